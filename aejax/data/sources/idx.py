"""Images and labels in MNIST's IDX files: a big-endian header, then bytes.

Format: http://yann.lecun.com/exdb/mnist. The header is two zero bytes, the type of the elements
(8 for unsigned bytes), the number of dimensions, and four bytes a dimension.
"""

import functools
import os
import struct

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Arrays, Source
from aejax.data.sources.splits import Splits
from aejax.errors import InputError

FORM = "idx:FOLDER"
PREFIXES = {"train": "train", "test": "t10k"}
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def splits(argument: str) -> Splits:
    """The splits of a folder with {train,t10k}-images-idx3-ubyte, with .gz or without.

    Rows are uint8 [height, width, 1]; labels come from {train,t10k}-labels-idx1-ubyte, where
    that file is there.

    Raises:
        InputError: no such folder, or none of the images' files in it.
    """
    folder = checks.folder(checks.options(argument, FORM)[0], FORM)
    found: Splits = {}
    for split, prefix in PREFIXES.items():
        if images := _find(folder, f"{prefix}-{IMAGES}"):
            labels = _find(folder, f"{prefix}-{LABELS}")
            found[split] = functools.partial(_rows, images, labels)
    if not found:
        names = " or ".join(f"{prefix}-{IMAGES}" for prefix in PREFIXES.values())
        raise InputError(f"{folder} holds neither {names}, plain or as .gz")
    return found


def read(path: str, dimensions: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes with so many dimensions.

    Raises:
        InputError: it cannot be read, is another kind of file, or is not as long as its header
            says.
    """
    data = checks.read_bytes(path)
    start = 4 + 4 * dimensions
    expected = 0x0800 + dimensions
    if len(data) < start:
        raise InputError(f"{path} has {len(data)} bytes; an IDX header has {start}")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", data[:start])
    if magic != expected:
        raise InputError(
            f"{path} starts with magic 0x{magic:08x}; accepted: 0x{expected:08x}"
            f" ({dimensions}-dimensional unsigned bytes)"
        )
    size = int(np.prod(shape, dtype=object))
    if len(data) - start != size:
        raise InputError(
            f"{path} holds {len(data) - start} bytes after its header, which says"
            f" {'x'.join(map(str, shape))} = {size}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(folder: str, name: str) -> str:
    paths = [os.path.join(folder, name + end) for end in ("", ".gz")]
    return next(filter(os.path.isfile, paths), "")


def _rows(images: str, labels: str) -> Source:
    x, maximum = checks.stored(read(images, 3)[..., None], images)
    if not labels:
        return Arrays(x, None, maximum)
    label = read(labels, 1)
    if len(label) != len(x):
        raise InputError(f"{labels} has {len(label)} labels, {images} has {len(x)} images")
    return Arrays(x, checks.labels(label, len(x), labels), maximum)
