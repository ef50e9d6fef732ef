"""A folder of pictures, decoded when they are asked for."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Rows, Source, Spec
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError

FORM = "images:FOLDER"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SPLIT_FOLDERS = ("train", "validation", "val", "test")
# Pillow's modes of 8 bits a channel, and the channels that they become.
CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of one size: uint8 [height, width, channels].

    Attributes:
        files: paths, one a row.
        label: int32 [rows], or None.
        spec: what one row is.
        folder: the folder as it was given, for messages.
    """

    files: tuple[str, ...]
    label: np.ndarray | None
    spec: Spec
    folder: str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Decodes the pictures at `index`.

        Raises:
            InputError: a picture that cannot be decoded, or whose size has changed.
        """
        index = checks.positions(index, len(self))
        x = np.empty((len(index), *self.spec.shape), np.uint8)
        for row, number in enumerate(index):
            try:
                x[row] = _decoded(self.files[number], self.spec.shape)
            except InputError as error:
                raise InputError(f"data.source=images:{self.folder}: {error}") from None
        return Rows(x, None if self.label is None else self.label[index])


def splits(argument: str) -> Splits:
    """The splits of a folder of pictures: its sub-folders train and test, where it has them.

    Pictures are found at any depth and taken in the order of their paths; names that start with a
    dot are passed over. They are RGB or greyscale by what they are, as stored (turned by no
    camera's mark; the first frame where there are several). Where all of them lie in two or more
    sub-folders, the names of these in order are the classes 0, 1, ...

    Raises:
        InputError: no such folder, no pictures in it, or some outside its train and test.
    """
    folder = checks.folder(argument, FORM)
    found = _listing(folder)
    if not found:
        raise InputError(f"{folder} holds no pictures; accepted: {', '.join(SUFFIXES)}")
    tops = {parts[0] for parts in found if len(parts) > 1}
    if not tops & {"train", "test"}:
        classes = _classes(found)
        return of_whole(lambda: _pictures(argument, folder, found, classes), shuffle=True)
    groups = {name: [parts for parts in found if _within(parts, name)] for name in SPLIT_FOLDERS}
    if outside := set(found).difference(*groups.values()):
        raise InputError(
            f"{folder} has sub-folders for its splits, but {os.path.join(*min(outside))} lies"
            f" outside; accepted: {', '.join(SPLIT_FOLDERS)}"
        )
    # one numbering for all splits, whichever of them lacks a class
    classes = _classes([parts[1:] for parts in found])
    return {
        name: functools.partial(_pictures, argument, os.path.join(folder, name), inner, classes)
        for name, group in groups.items()
        if (inner := [parts[1:] for parts in group])
    }


def _listing(folder: str) -> list[tuple[str, ...]]:
    """All pictures below a folder, as the parts of their paths, in order."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = os.path.relpath(root, folder)
        parts = () if inner == os.curdir else tuple(inner.split(os.sep))
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append((*parts, name))
    return sorted(found)


def _within(parts: tuple[str, ...], name: str) -> bool:
    return len(parts) > 1 and parts[0] == name


def _classes(found: list[tuple[str, ...]]) -> list[str]:
    """The names of the classes in order; none where the folders do not say them."""
    names = sorted({parts[0] for parts in found})
    return names if len(names) > 1 and all(len(parts) > 1 for parts in found) else []


def _pictures(given: str, folder: str, found: list[tuple[str, ...]], classes: list[str]) -> Source:
    """Reads every picture's header, so that one that does not fit is named before any work."""
    files = tuple(os.path.join(folder, *parts) for parts in found)
    shape = _shape(files[0])
    for path in files[1:]:
        _check_shape(path, _shape(path), shape, files[0])
    label = None
    if classes:
        numbers = {name: number for number, name in enumerate(classes)}
        label = np.array([numbers[parts[0]] for parts in found], np.int32)
    return Pictures(files, label, Spec(shape, "uint8", 255.0, bool(classes)), given)


def _shape(path: str) -> tuple[int, int, int]:
    """[height, width, channels] from a picture's header."""
    return _read(path, lambda image, channels: (image.height, image.width, channels))


def _decoded(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of a picture, uint8 of this shape."""

    def pixels(image: Any, channels: int) -> np.ndarray:
        flat = np.asarray(image.convert("RGB" if channels == 3 else "L"), np.uint8)
        return flat.reshape(image.height, image.width, channels)

    x = _read(path, pixels)
    _check_shape(path, x.shape, shape, "the others")
    return x


def _read(path: str, take: Callable[[Any, int], Any]) -> Any:
    """What `take` takes from an opened picture and the number of its channels."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in CHANNELS:
                return take(image, CHANNELS[image.mode])
            mode = image.mode
    except Exception as error:  # Pillow's formats raise errors of many kinds on damaged files
        raise InputError(
            f"picture {path} cannot be read: {type(error).__name__}: {error}"
        ) from None
    raise InputError(f"{path} has mode {mode}; accepted: RGB or greyscale of 8 bits")


def _check_shape(path: str, shape: tuple[int, ...], wanted: tuple[int, ...], like: str) -> None:
    if shape != wanted:
        raise InputError(
            f"{path} is {_size(shape)}, but {like} is {_size(wanted)}; accepted: pictures of one"
            " size and mode"
        )


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'RGB' if channels == 3 else 'greyscale'}"
