"""Bytes of text: windows of one file, or a folder's files, a row each."""

import dataclasses
import functools
import os

import numpy as np

from aejax.data.sources import checks, folders
from aejax.data.sources.base import Arrays, Rows, Source, Spec
from aejax.data.sources.folders import Files
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError

FORM = "text:FILE, text:FILE?length=64 or text:FOLDER?length=64"
SUFFIXES = (".txt",)
LENGTH = 64


@dataclasses.dataclass(frozen=True)
class Documents(folders.OfFiles):
    """Files of text, read when they are indexed: the first bytes of each, uint8 [length].

    Attributes:
        files: one a row; shorter ones end in padding.
        length: bytes of a row.
        given: the source as it was given, for messages.
    """

    files: Files
    length: int
    given: str

    @property
    def spec(self) -> Spec:
        labelled, classes = self.files.label is not None, self.files.classes
        return Spec((self.length,), "uint8", 255.0, labelled, padded=True, classes=classes)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Reads the files at `index`.

        Raises:
            InputError: one that cannot be read, or is empty.
        """
        index = checks.positions(index, len(self))
        x = np.zeros((len(index), self.length), np.uint8)
        length = np.empty(len(index), np.int32)
        for row, number in enumerate(index):
            data = self._start(self.files.path(int(number)))
            x[row, : len(data)], length[row] = np.frombuffer(data, np.uint8), len(data)
        label = self.files.label
        return Rows(x, None if label is None else label[index], length)

    def _start(self, path: str) -> bytes:
        try:
            with open(path, "rb") as file:
                data = file.read(self.length)
        except OSError as error:
            raise InputError(
                f"data.source=text:{self.given}: {path} cannot be read: {error.strerror}"
            ) from None
        if not data:
            raise InputError(f"data.source=text:{self.given}: {_empty(path)}")
        return data


def splits(argument: str) -> Splits:
    """Windows of a file's bytes, or the starts of a folder's files; uint8 [length].

    Windows do not overlap; the rest at the end is dropped. Files that end in .gz or .bz2 are
    decompressed, others are mapped into memory. train and test are contiguous, so that no sentence
    is in both. A folder's .txt files are a row each, with splits and labels as `folders` finds
    them.

    Raises:
        InputError: no such file or folder, a wrong option, fewer bytes than one window, or a file
            in the folder that is empty or cannot be read.
    """
    name, options = checks.options(argument, FORM, {"length": LENGTH})
    if os.path.isdir(os.path.expanduser(name)):
        files = folders.find(name, FORM, SUFFIXES, "text")
        if 0 in (sizes := folders.sizes(files)):
            raise InputError(_empty(files.path(sizes.index(0))))
        return folders.splits(files, lambda some: Documents(some, options["length"], argument))
    path = checks.file(name, FORM)
    return of_whole(functools.partial(_windows, path, options["length"]), shuffle=False)


def _empty(path: str) -> str:
    return f"{path} is empty; accepted: files of at least one byte"


def _windows(path: str, length: int) -> Source:
    if path.endswith((".gz", ".bz2")):
        data = np.frombuffer(checks.read_bytes(path), np.uint8)
    else:
        data = _mapped(path)
    rows = len(data) // length
    if not rows:
        raise InputError(f"{path} has {len(data)} bytes, less than one window of length={length}")
    return Arrays(data[: rows * length].reshape(rows, length), None, 255.0)


def _mapped(path: str) -> np.ndarray:
    try:
        return np.asarray(np.memmap(path, np.uint8, mode="r"))
    except ValueError:  # nothing to map: an empty file
        return np.empty(0, np.uint8)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
