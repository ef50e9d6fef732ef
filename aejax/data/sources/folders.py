"""Files in a folder, its sub-folders as splits and as classes."""

import functools
import os
from collections.abc import Callable, Sequence

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Source
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError

SPLIT_FOLDERS = ("train", "validation", "val", "test")

# (paths, label [rows] or None) -> their rows.
Make = Callable[[tuple[str, ...], np.ndarray | None], Source]


def splits(argument: str, form: str, suffixes: Sequence[str], what: str, make: Make) -> Splits:
    """The splits of a folder of files: its sub-folders train and test, where it has them.

    Files are found at any depth and taken in the order of their paths; names that start with a dot
    are passed over. Where all of them lie in two or more sub-folders, the names of these in order
    are the classes 0, 1, ...

    Args:
        argument: the folder.
        form: how such a source is written, for messages.
        suffixes: of the files, in small letters.
        what: they are, for messages.
        make: a source of such files.

    Raises:
        InputError: no such folder, nothing in it, or files outside its train and test.
    """
    folder = checks.folder(argument, form)
    found = _listing(folder, tuple(suffixes))
    if not found:
        raise InputError(f"{folder} holds no {what}; accepted: {', '.join(suffixes)}")
    tops = {parts[0] for parts in found if len(parts) > 1}
    if not tops & {"train", "test"}:
        classes = _classes(found)
        return of_whole(lambda: _source(make, folder, found, classes), shuffle=True)
    groups = {name: [parts for parts in found if _within(parts, name)] for name in SPLIT_FOLDERS}
    if outside := set(found).difference(*groups.values()):
        raise InputError(
            f"{folder} has sub-folders for its splits, but {os.path.join(*min(outside))} lies"
            f" outside; accepted: {', '.join(SPLIT_FOLDERS)}"
        )
    # one numbering for all splits, whichever of them lacks a class
    classes = _classes([parts[1:] for parts in found])
    return {
        name: functools.partial(_source, make, os.path.join(folder, name), inner, classes)
        for name, group in groups.items()
        if (inner := [parts[1:] for parts in group])
    }


def _source(make: Make, folder: str, found: list[tuple[str, ...]], classes: list[str]) -> Source:
    label = None
    if classes:
        numbers = {name: number for number, name in enumerate(classes)}
        label = np.array([numbers[parts[0]] for parts in found], np.int32)
    return make(tuple(os.path.join(folder, *parts) for parts in found), label)


def _listing(folder: str, suffixes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All such files below a folder, as the parts of their paths, in order."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = os.path.relpath(root, folder)
        parts = () if inner == os.curdir else tuple(inner.split(os.sep))
        for name in files:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                found.append((*parts, name))
    return sorted(found)


def _within(parts: tuple[str, ...], name: str) -> bool:
    return len(parts) > 1 and parts[0] == name


def _classes(found: list[tuple[str, ...]]) -> list[str]:
    """The names of the classes in order; none where the folders do not say them."""
    names = sorted({parts[0] for parts in found})
    return names if len(names) > 1 and all(len(parts) > 1 for parts in found) else []
