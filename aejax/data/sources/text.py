"""Windows of bytes from one text file."""

import functools

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Arrays, Source
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError
from aejax.kinds import near

FORM = "text:FILE or text:FILE?length=64"
LENGTH = 64


def splits(argument: str) -> Splits:
    """Windows of a file's bytes, uint8 [length]: they do not overlap; the broken last is left out.

    Files that end in .gz or .bz2 are decompressed, others are mapped into memory. train and test
    are contiguous, so that no sentence stands in both.

    Raises:
        InputError: no such file, a wrong option, or fewer bytes than one window.
    """
    name, mark, options = argument.rpartition("?")
    path = checks.file(name if mark else argument, FORM)
    length = _length(options) if mark else LENGTH
    return of_whole(functools.partial(_windows, path, length), shuffle=False)


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


def _length(options: str) -> int:
    key, _, value = options.partition("=")
    if key != "length":
        raise InputError(f"there is no option {key!r}; accepted: {FORM}{near(key, ['length'])}")
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value)):
        raise InputError(f"length={value}: must be a whole number of bytes, at least 1")
    return int(value)
