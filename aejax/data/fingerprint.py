"""A fingerprint of a source's rows, by which a run recognises its data."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from aejax.data.sources.base import Arrays, Filed, Fingerprinted, Source
from aejax.data.sources.splits import Joined, Selected

# In-memory sources up to this size are read in full, which takes a third of a second.
_WHOLE_BYTES = 2**28
_SAMPLED_ROWS = 64


def fingerprint(source: Source) -> str:
    """The sha256 of a split's contents, in hexadecimal; the same on every device and machine.

    It covers the number of rows, their shape and type, and:

    - of rows in memory up to 256 MiB, every value, label and length;
    - of others, 64 evenly spaced rows from the first to the last, and if each row has a file, the
      size of every file. A change to other rows that keeps all sizes is not noticed.

    Modification times are left out, since a copy of the data has others. A source whose rows are
    computed, and may differ in their last bits between devices, has a fingerprint of its own
    (`Fingerprinted`).
    """
    if isinstance(source, Fingerprinted):
        return source.fingerprint()
    spec, count = source.spec, len(source)
    digest = hashlib.sha256(repr((spec.shape, spec.dtype, spec.padded, count)).encode())
    for file in _files(source):
        digest.update(b"%d " % os.path.getsize(file))
    if isinstance(source, Arrays) and source.x.nbytes <= _WHOLE_BYTES:
        rows = source[:]
    else:
        rows = source[np.unique(np.linspace(0, count - 1, _SAMPLED_ROWS).astype(np.int64))]
    for array in rows:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _files(source: Source) -> Sequence[str]:
    """The file of each row, in the order of the rows; none where they have no files."""
    if isinstance(source, Selected):
        files = _files(source.source)
        return [files[int(row)] for row in source.index] if files else ()
    if isinstance(source, Joined):
        return [file for each in source.sources for file in _files(each)]
    return source.paths() if isinstance(source, Filed) else ()


def combined(*parts: Any) -> str:
    """The fingerprint of rows that are computed from these fingerprints or arrays."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data)
    return digest.hexdigest()
