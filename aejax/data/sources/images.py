"""A folder of pictures, decoded when they are asked for."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from aejax.data.sources import checks, folders
from aejax.data.sources.base import Rows, Source, Spec
from aejax.data.sources.splits import Splits
from aejax.errors import InputError

FORM = "images:FOLDER"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
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
    """The splits of a folder of pictures, as `folders.splits` finds them.

    Pictures are RGB or greyscale by what they are, as stored (turned by no camera's mark; the first
    frame where there are several).

    Raises:
        InputError: no such folder, no pictures in it, or some outside its train and test.
    """
    make = functools.partial(_pictures, argument)
    folder, _ = checks.options(argument, FORM)
    return folders.splits(folder, FORM, SUFFIXES, "pictures", make)


def _pictures(given: str, files: tuple[str, ...], label: np.ndarray | None) -> Source:
    """Reads every picture's header, so that one that does not fit is named before any work."""
    shape = _shape(files[0])
    for path in files[1:]:
        _check_shape(path, _shape(path), shape, files[0])
    return Pictures(files, label, Spec(shape, "uint8", 255.0, label is not None), given)


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
