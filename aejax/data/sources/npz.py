"""Arrays from one NumPy .npz file."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Arrays, Source
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError

FORM = "npz:FILE"
TABLES = (".csv", ".tsv", ".txt", ".parquet")
_NPY, _ZIP = b"\x93NUMPY", b"PK"
KEYS = "x (and y, length), or x_train, x_test (and y_train, ...)"


def splits(argument: str) -> Splits:
    """The splits of a file with x, y and length, or with x_train, y_train, x_test and so on.

    x is [rows, ...]; bytes and uint16 stay as stored, other numbers become float32. y is a label
    for each row, and length each row's length along its first axis, without padding (which may have
    any values); both may be missing. Objects are never unpickled.

    Raises:
        InputError: no such file, not an .npz, or other keys.
    """
    path = checks.file(checks.options(argument, FORM)[0], FORM)
    keys = set(_open(path, lambda archive: archive.files))
    own = [split for split in ("train", "test") if f"x_{split}" in keys]
    if ("x" in keys) == bool(own):
        raise InputError(f"{path} has the keys {_listed(keys)}; accepted: {KEYS}")
    if not own:
        return of_whole(lambda: _rows(path, keys, ""), shuffle=True)
    return {split: functools.partial(_rows, path, keys, f"_{split}") for split in own}


def _rows(path: str, keys: set[str], split: str) -> Source:
    """The rows of the keys that end in `split`."""
    key = f"x{split}"
    stored = _open(path, lambda archive: archive[key])
    checks.shape(stored, f"{path}: {key}")

    def beside(name: str) -> np.ndarray | None:
        """The array of this name and split, with one entry for each row."""
        if f"{name}{split}" not in keys:
            return None
        values = _open(path, lambda archive: archive[f"{name}{split}"])
        if values.shape[:1] != stored.shape[:1]:
            raise InputError(
                f"{path}: {key} has {len(stored)} rows, {name}{split} has shape {values.shape}"
            )
        return values

    y, length = beside("y"), beside("length")
    if length is not None:
        length = checks.lengths(length, stored, f"{path}: length{split}")
    x, maximum = checks.stored(stored, f"{path}: {key}", length)
    if y is not None:
        y = checks.labels(y, len(x), f"{path}: y{split}")
    return Arrays(x, y, maximum, length)


def _open(path: str, take: Callable[[Any], Any]) -> Any:
    """The result of `take` on the opened archive; nothing is unpickled."""
    with open(path, "rb") as file:
        start = file.read(len(_NPY))
    if start == _NPY:
        raise InputError(
            f"{path} is a single array; accepted: an .npz with {KEYS}; or table:{path}"
        )
    if start[:2] != _ZIP:
        table = f"; or table:{path}" if path.endswith(TABLES) else ""
        raise InputError(f"{path} is no .npz: it does not begin as one; accepted: {KEYS}{table}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return take(archive)
    except Exception as error:  # zip, zlib and NumPy's header each have errors of their own
        reason = str(error) or type(error).__name__
        if "allow_pickle" in reason:
            reason = "it holds Python objects (ragged rows or a pickle), which are not read"
        raise InputError(f"{path} cannot be read as .npz: {reason}") from None


def _listed(keys: set[str]) -> str:
    return ", ".join(sorted(keys)[:8]) + (", ..." if len(keys) > 8 else "") if keys else "(none)"
