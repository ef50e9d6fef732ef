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
KEYS = "x (and y), or x_train, x_test (and y_train, y_test)"


def splits(argument: str) -> Splits:
    """The splits of a file with x and y, or with x_train, y_train, x_test and y_test.

    x is [rows, ...] as stored, floating point as float32; y is a label a row, and may be missing.
    Objects are never unpickled.

    Raises:
        InputError: no such file, not an .npz, or other keys.
    """
    path = checks.file(argument, FORM)
    keys = set(_open(path, lambda archive: archive.files))
    own = [split for split in ("train", "test") if f"x_{split}" in keys]
    if ("x" in keys) == bool(own):
        raise InputError(f"{path} has the keys {_listed(keys)}; accepted: {KEYS}")
    if not own:
        return of_whole(lambda: _rows(path, "x", "y" if "y" in keys else ""), shuffle=True)
    found: Splits = {}
    for split in own:
        label = f"y_{split}" if f"y_{split}" in keys else ""
        found[split] = functools.partial(_rows, path, f"x_{split}", label)
    return found


def _rows(path: str, x_key: str, y_key: str) -> Source:
    x, maximum = checks.stored(_open(path, lambda archive: archive[x_key]), f"{path}: {x_key}")
    if not y_key:
        return Arrays(x, None, maximum)
    y = _open(path, lambda archive: archive[y_key])
    if y.shape[:1] != x.shape[:1]:
        raise InputError(f"{path}: {x_key} has {len(x)} rows, {y_key} has shape {y.shape}")
    return Arrays(x, checks.labels(y, len(x), f"{path}: {y_key}"), maximum)


def _open(path: str, take: Callable[[Any], Any]) -> Any:
    """What `take` takes from the archive, without unpickling anything."""
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(f"{path} is a single array; accepted: an .npz with {KEYS}")
        with archive:
            return take(archive)
    except InputError:
        raise
    except Exception as error:  # zip, zlib and NumPy's header each have errors of their own
        reason = str(error) or type(error).__name__
        if "allow_pickle" in reason:
            reason = "it holds Python objects (ragged rows or a pickle), which are not read"
        raise InputError(f"{path} cannot be read as .npz: {reason}") from None


def _listed(keys: set[str]) -> str:
    return ", ".join(sorted(keys)[:8]) + (", ..." if len(keys) > 8 else "") if keys else "(none)"
