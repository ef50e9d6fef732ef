"""A fingerprint of a source's rows, by which a run knows its data again."""

import hashlib
import os
from typing import Any

import numpy as np

from aejax.data.sources.base import Arrays, Source

# Rows in memory up to this are read whole: a third of a second.
_WHOLE_BYTES = 2**28
_SAMPLED_ROWS = 64


def fingerprint(source: Source) -> str:
    """sha256 of what a split holds, in hexadecimal; the same on every device and machine.

    It covers the number of rows, their shape and type, and:

    - of rows in memory up to 256 MiB, every value, label and length;
    - of others, 64 rows spread evenly from the first to the last, and the size of every file of a
      source that has `files`. A change that keeps all sizes and spares these rows is not noticed.

    Times of files are left out: a copy of the data has others. A source whose rows are computed,
    and may differ in their last bits from one device to another, says itself what they come from
    in a method `fingerprint()`.
    """
    if hasattr(source, "fingerprint"):
        return source.fingerprint()
    spec, count = source.spec, len(source)
    digest = hashlib.sha256(repr((spec.shape, spec.dtype, spec.padded, count)).encode())
    for file in getattr(source, "files", ()):
        digest.update(b"%d " % os.path.getsize(file))
    if isinstance(source, Arrays) and source.x.nbytes <= _WHOLE_BYTES:
        rows = source[:]
    else:
        rows = source[np.unique(np.linspace(0, count - 1, _SAMPLED_ROWS).astype(np.int64))]
    for array in rows:
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def combined(*parts: Any) -> str:
    """The fingerprint of rows that are computed from these: fingerprints, or arrays."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data)
    return digest.hexdigest()
