"""Windows of bytes from one text file."""

import functools

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Arrays, Source
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError

FORM = "text:FILE or text:FILE?length=64"
LENGTH = 64


def splits(argument: str) -> Splits:
    """Windows of a file's bytes, uint8 [length], without overlap; the rest at the end is dropped.

    Files that end in .gz or .bz2 are decompressed, others are mapped into memory. train and test
    are contiguous, so that no sentence is in both.

    Raises:
        InputError: no such file, a wrong option, or fewer bytes than one window.
    """
    name, options = checks.options(argument, FORM, {"length": LENGTH})
    path = checks.file(name, FORM)
    return of_whole(functools.partial(_windows, path, options["length"]), shuffle=False)


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
