"""Files in a folder, its sub-folders as splits and as classes."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Source
from aejax.data.sources.splits import WHOLE, Splits, of_whole, share, shuffled
from aejax.errors import InputError

SPLIT_FOLDERS = ("train", "validation", "val", "test")


@dataclasses.dataclass(frozen=True)
class Files:
    """Files below a folder, one a row.

    Attributes:
        folder: the folder.
        names: paths below it, with forward slashes.
        label: int32 [rows], or None.
        classes: the labels' names.
        own_splits: whether the folder's sub-folders are its splits.
    """

    folder: str
    names: tuple[str, ...]
    label: np.ndarray | None
    classes: tuple[str, ...]
    own_splits: bool

    def __len__(self) -> int:
        return len(self.names)

    def path(self, row: int) -> str:
        """The path of this row's file."""
        return os.path.join(self.folder, self.names[row])

    def paths(self) -> list[str]:
        """The paths of all files."""
        return [self.path(row) for row in range(len(self))]

    def only(self, rows: Sequence[int]) -> "Files":
        """A selection of the files, with the same numbers of classes."""
        label = None if self.label is None else self.label[np.asarray(rows, np.int64)]
        names = tuple(self.names[row] for row in rows)
        return dataclasses.replace(self, names=names, label=label)


class OfFiles:
    """What sources have whose attribute `files` has one file a row."""

    files: Files

    def __len__(self) -> int:
        return len(self.files)

    def names(self, index: np.ndarray) -> list[str]:
        """Paths of these rows' files below the folder, with forward slashes."""
        return [self.files.names[row] for row in index]

    def labels(self) -> np.ndarray | None:
        """All labels, without reading the files."""
        return self.files.label

    def paths(self) -> list[str]:
        """The path of each row's file."""
        return self.files.paths()


def find(argument: str, form: str, suffixes: Sequence[str], what: str) -> Files:
    """The files of a folder, at any depth, in the order of their paths.

    Names that start with a dot are skipped, and so are pipes, sockets and devices; links are
    followed. If the folder has sub-folders train or test, its sub-folders are its splits. If all
    files (of a split) are in two or more sub-folders, the sub-folders' sorted names are the classes
    0, 1, ...

    Args:
        argument: the folder.
        form: how such a source is written, for messages.
        suffixes: of the files, in lower case.
        what: what the files are called in messages.

    Raises:
        InputError: no such folder, one that cannot be read, nothing in it, or files outside its
            train and test.
    """
    folder = checks.folder(argument, form)
    found = sorted(_listing(folder, (), tuple(suffixes), ()))
    if not found:
        raise InputError(f"{folder} holds no {what}; accepted: {', '.join(suffixes)}")
    own_splits = any(_within(parts, name) for parts in found for name in ("train", "test"))
    if own_splits:
        outside = [parts for parts in found if not any(_within(parts, n) for n in SPLIT_FOLDERS)]
        if outside:
            raise InputError(
                f"{folder} has sub-folders for its splits, but {os.path.join(*outside[0])} lies"
                f" outside; accepted: {', '.join(SPLIT_FOLDERS)}"
            )
    # the same numbers for all splits, also if one of them lacks a class
    inner = [parts[1:] for parts in found] if own_splits else found
    classes, label = _classes(inner), None
    if classes:
        numbers = {name: number for number, name in enumerate(classes)}
        label = np.array([numbers[parts[0]] for parts in inner], np.int32)
    return Files(folder, tuple(map("/".join, found)), label, classes, own_splits)


def sizes(files: Files) -> list[int]:
    """The bytes of each file.

    Raises:
        InputError: one of them cannot be reached, such as a link that leads nowhere.
    """
    return [_size(path) for path in files.paths()]


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def splits(files: Files, make: Callable[[Files], Source]) -> Splits:
    """The splits of a folder of files: its sub-folders if they are its splits, else a fixed cut.

    Args:
        files: what `find` found, or some of it.
        make: a source of such files.
    """
    if not files.own_splits:
        return of_whole(lambda: make(files), shuffle=True)
    return _own_splits(files, make)


def splits_by_file(files: Files, make: Callable[[Files], Source]) -> Splits:
    """As `splits`, for sources with several rows in a file: no file is in two splits.

    Args:
        files: what `find` found, or some of it.
        make: a source of such files.
    """
    if files.own_splits:
        return _own_splits(files, make)

    def piece(train: bool) -> Source:
        part = share(len(files), train, "file")
        return make(files.only(shuffled(len(files))[part].tolist()))

    whole = functools.cache(lambda: make(files))
    return {WHOLE: whole, "train": lambda: piece(True), "test": lambda: piece(False)}


def _own_splits(files: Files, make: Callable[[Files], Source]) -> Splits:
    tops = [name.partition("/")[0] for name in files.names]
    return {
        name: functools.partial(make, files.only(rows))
        for name in SPLIT_FOLDERS
        if (rows := [row for row, top in enumerate(tops) if top == name])
    }


def _listing(
    folder: str,
    parts: tuple[str, ...],
    suffixes: tuple[str, ...],
    above: tuple[tuple[int, int], ...],
) -> list[tuple[str, ...]]:
    """All files with the suffixes below a folder, as the parts of their paths.

    A link back to one of the folders `above` (device and inode of each) is not followed.
    """
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return []
        entries = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    found = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        inner = (*parts, entry.name)
        if _is_folder(entry):
            found += _listing(entry.path, inner, suffixes, (*above, here))
        elif entry.name.lower().endswith(suffixes) and not _is_device(entry.path):
            found.append(inner)
    return found


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_device(path: str) -> bool:
    """Whether this is a pipe, a socket or a device; a link that leads nowhere is not."""
    return os.path.exists(path) and not os.path.isfile(path)


def _within(parts: tuple[str, ...], name: str) -> bool:
    return len(parts) > 1 and parts[0] == name


def _classes(found: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The sorted names of the classes; () if the files are not all in sub-folders."""
    names = sorted({parts[0] for parts in found})
    return tuple(names) if len(names) > 1 and all(len(parts) > 1 for parts in found) else ()
