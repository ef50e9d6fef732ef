"""Rows of some labels only, and what labels there are."""

from collections.abc import Sequence

import numpy as np

from aejax.data.sources.base import Labelled, Source
from aejax.data.sources.splits import Joined, Selected, take
from aejax.errors import InputError

_ROWS_AT_A_TIME = 1000
_LISTED = 20


def labels_of(source: Source) -> np.ndarray:
    """The labels of all rows, int [rows], without decoding what lies in files.

    Args:
        source: with labels.
    """
    if isinstance(source, Selected):
        return labels_of(source.source)[source.index]
    if isinstance(source, Joined):
        return np.concatenate([labels_of(each) for each in source.sources])
    if isinstance(source, Labelled):
        label = source.labels()
        assert label is not None
        return label
    starts = range(0, len(source), _ROWS_AT_A_TIME)
    pieces = [source[slice(start, start + _ROWS_AT_A_TIME)].label for start in starts]
    return np.concatenate([piece for piece in pieces if piece is not None])


def keep_labels(source: Source, keep: Sequence[int], split: str) -> Source:
    """The rows whose label is one of `keep`, in their order; all rows where it is empty.

    Args:
        source: one split.
        keep: labels.
        split: what the split is called in messages.

    Raises:
        InputError: the rows have no labels, or a label does not exist.
    """
    if not keep:
        return source
    where = f"config.data.keep_labels={','.join(map(str, keep))}: the rows of {split}"
    if not source.spec.labelled:
        raise InputError(f"{where} have no labels; accepted: none (), which keeps all rows")
    label = labels_of(source)
    known = np.unique(label)
    if missing := sorted(set(keep) - set(known.tolist())):
        listed = ", ".join(map(str, known[:_LISTED])) + ", ..." * (len(known) > _LISTED)
        raise InputError(f"{where} have no label {missing[0]}; accepted: {listed}")
    rows = np.flatnonzero(np.isin(label, np.asarray(keep)))
    return source if len(rows) == len(source) else take(source, rows)
