"""Selections of rows by their labels, and checks of labels."""

from collections.abc import Sequence

import numpy as np

from aejax.data.sources.base import Labelled, Source
from aejax.data.sources.splits import Joined, Selected, take
from aejax.errors import InputError
from aejax.kinds import near

_ROWS_AT_A_TIME = 1000
_LISTED = 20


def labels_of(source: Source) -> np.ndarray:
    """The labels of all rows, int [rows], without decoding files where that is possible.

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


def numbers_of(text: str, classes: Sequence[str], setting: str) -> list[int]:
    """Labels as numbers, from text with commas: 3,5, or names of classes; "" has none.

    A whole number is always a label, also where a class is called so.

    Args:
        text: what was given.
        classes: the names of labels 0, 1, ...; () without names.
        setting: what the text is called in messages.

    Raises:
        InputError: neither a number nor the name of a class.
    """
    words = [text] if text in classes else text.split(",") if text else []
    numbers = {name: number for number, name in enumerate(classes)}
    found = []
    for word in words:
        if not word.isdecimal() and word not in numbers:
            accepted = "must be labels, such as 3 or 3,5"
            if classes:
                every = described(range(len(classes)), classes)
                accepted = f"must be labels or their names: {every}{near(word, classes)}"
            raise InputError(f"{setting}={text}: {accepted}")
        found.append(int(word) if word.isdecimal() else numbers[word])
    return found


def described(labels: Sequence[int], classes: Sequence[str]) -> str:
    """Labels with the names of their classes, where they have some: 0=ok, 1=sick."""
    words = [
        f"{label}={classes[label]}" if 0 <= label < len(classes) else str(label)
        for label in labels[:_LISTED]
    ]
    return ", ".join(words) + ", ..." * (len(labels) > _LISTED)


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
        listed = described(known.tolist(), source.spec.classes)
        raise InputError(f"{where} have no label {missing[0]}; accepted: {listed}")
    rows = np.flatnonzero(np.isin(label, np.asarray(keep)))
    return source if len(rows) == len(source) else take(source, rows)


def some_of_each(source: Source, labels: str, seed: int) -> Source:
    """Some rows of each class, stratified by class, in the source's order.

    The rows of a smaller selection are always among those of a larger one.

    Args:
        source: with labels.
        labels: a share of the rows, such as 1%, or how many; "" for all.
        seed: of the choice.

    Raises:
        InputError: not at least one row, or more than there are.
    """
    if not labels:
        return source
    label, rows = labels_of(source), len(source)
    count = round(float(labels[:-1]) / 100 * rows) if labels.endswith("%") else int(labels)
    if not 1 <= count <= rows:
        raise InputError(
            f"config.data.labels={labels}: {count} rows; must be from 1 to {rows}, the rows of the"
            " training split"
        )
    rank = np.empty(rows)
    for each in np.unique(label):
        mine = np.random.RandomState([seed, each]).permutation(np.flatnonzero(label == each))
        rank[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    return take(source, np.sort(np.argsort(rank, kind="stable")[:count]))


def check_classes(source: Source, classes: int, split: str) -> None:
    """Raises InputError where a label is not one of 0 to classes - 1, or there are none.

    Args:
        source: one split.
        classes: how many a model tells apart.
        split: its setting and value, for messages.
    """
    if not source.spec.labelled:
        raise InputError(f"{split}: has no labels, which config.model learns from")
    label = labels_of(source)
    wrong = label[(label < 0) | (label >= classes)]
    if len(wrong):
        raise InputError(
            f"config.model.classes={classes}: {split} has the label {wrong.max()}; must be above"
            " the largest label, and labels at least 0"
        )
