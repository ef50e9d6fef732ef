"""Checks that several sources share; every failure is one line about the file that causes it."""

import bz2
import dataclasses
import functools
import gzip
import os
import sys
import urllib.parse
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aejax.errors import InputError
from aejax.kinds import near

ACCEPTED_TYPES = "bool, whole numbers up to 2^24, floating point"
KEPT = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
# float32 represents all whole numbers up to this one exactly.
EXACT = 2**24
_OTHER_TYPES = {
    "c": "complex numbers",
    "O": "Python objects",
    "U": "text",
    "S": "text",
    "V": "records",
    "M": "dates",
    "m": "spans of time",
}


def folder(path: str, form: str) -> str:
    """The folder at `path`, with "~" expanded.

    Raises:
        InputError: no path is given, or there is no such folder.
    """
    path = _given(path, form)
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise InputError(f"{path} is a file; accepted: a folder, as {form}")
    raise InputError(f"there is no folder {path}; accepted: an existing one, as {form}")


def file(path: str, form: str) -> str:
    """The file at `path`, with "~" expanded.

    Raises:
        InputError: no path is given, or there is no such file.
    """
    path = _given(path, form)
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; accepted: a file, as {form}")
    raise InputError(f"there is no file {path}; accepted: an existing one, as {form}")


@dataclasses.dataclass(frozen=True)
class Choice:
    """An option that is one of several words, and the one that holds where none is given."""

    accepted: tuple[str, ...]
    default: str


Default = int | float | str | Choice


def options(
    argument: str, form: str, defaults: Mapping[str, Default] | None = None
) -> tuple[str, dict[str, Any]]:
    """A path, and the options that follow it as ?name=value&name=value.

    If a file of the whole name exists, question mark included, it is a path without options. In
    free text, special characters are written as in a URL: %26 for &.

    Args:
        argument: the text after the source's kind.
        form: how such a source is written, for messages.
        defaults: {name: its value where it is not given}, which says what else is accepted. An int:
            whole numbers, at least 1; a float: numbers above 0; a `Choice`: its words; a str: any
            text that is not empty. None or {}: the source takes no options.

    Returns:
        The path, and a value for every name: of a `Choice` its word.

    Raises:
        InputError: an unknown or repeated option, or a value that is not accepted.
    """
    defaults = defaults or {}
    out: dict[str, Any] = {
        name: default.default if isinstance(default, Choice) else default
        for name, default in defaults.items()
    }
    path, words = split_options(argument)
    given: set[str] = set()
    for word in words:
        name, _, value = word.partition("=")
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise InputError(
                f"there is no option {name!r} (there: {known}); accepted:"
                f" {form}{near(name, defaults)}"
            )
        if name in given:
            raise InputError(f"{word}: {name} is given twice")
        given.add(name)
        out[name] = _value(name, value, defaults[name])
    return path, out


def split_options(argument: str) -> tuple[str, list[str]]:
    """A path and the words "name=value" behind it, unread.

    Of several question marks the options begin at the first that follows something that exists.
    """
    if "?" not in argument or os.path.exists(os.path.expanduser(argument)):
        return argument, []
    marks = [i for i, letter in enumerate(argument) if letter == "?"]
    there = [i for i in marks if i and os.path.exists(os.path.expanduser(argument[:i]))]
    mark = (there or marks[-1:])[0]
    path, words = argument[:mark], argument[mark + 1 :]
    # a missing file whose name has a question mark
    if not there and "=" not in words:
        return argument, []
    return path, words.split("&")


def listed(text: str) -> list[str]:
    """The words of an option that takes several, as A,B."""
    return [word.strip() for word in text.split(",")] if text else []


def some(texts: Sequence[str], most: int) -> str:
    """The first of some texts, for a message: A, B, ..."""
    return ", ".join(texts[:most]) + ", ..." * (len(texts) > most)


def _value(name: str, text: str, default: Default) -> Any:
    """An option's value, read as its default says."""
    if isinstance(default, Choice):
        if text not in default.accepted:
            raise InputError(
                f"{name}={text}: must be one of {', '.join(default.accepted)}"
                f"{near(text, default.accepted)}"
            )
        return text
    if isinstance(default, str):
        if not text:
            raise InputError(f"{name}=: is empty; must be a text")
        return urllib.parse.unquote(text)
    whole = isinstance(default, int)
    number = _number(text)
    if number is None or number <= 0 or (whole and number != int(number)):
        kind = "a whole number, at least 1" if whole else "a number above 0"
        raise InputError(f"{name}={text}: must be {kind}")
    return int(number) if whole else number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


@functools.cache
def tell(line: str) -> None:
    """Prints a line, once: the same data are opened for training, evaluation and figures."""
    print(line, file=sys.stderr, flush=True)


def read_bytes(path: str) -> bytes:
    """All bytes of a file; those that end in .gz or .bz2 are decompressed.

    Raises:
        InputError: the file cannot be read, is truncated or damaged.
    """
    openers = {".gz": gzip.open, ".bz2": bz2.open}
    kind = os.path.splitext(path)[1]
    try:
        with openers.get(kind, open)(path, "rb") as stream:
            return stream.read()
    except EOFError:
        raise InputError(f"{path} is cut off: its {kind} stream ends too early") from None
    except (OSError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        what = f"cannot be read as {kind}" if kind in openers else "cannot be read"
        raise InputError(f"{path} {what}: {reason}") from None


def stored(
    x: np.ndarray, what: str, length: np.ndarray | None = None, missing: bool = False
) -> tuple[np.ndarray, float | None]:
    """Converts rows to the type in which they are stored, with padding 0; and the type's maximum.

    bool becomes uint8 (maximum 1). Floating point becomes float32 (no maximum), and so do integers
    of a signed type or one wider than uint16: such a type tells nothing of the values' range, and a
    range taken from the values would differ between splits.

    Args:
        x: array [rows, ...], in any byte order and layout.
        what: names the array in messages.
        length: as in `Rows`; padding may have any values.
        missing: whether NaN marks missing values.

    Raises:
        InputError: no rows, empty rows, another type, values that are not finite in float32, or
            whole numbers that it does not hold exactly.
    """
    shape(x, what)
    dtype, maximum = stored_type(x.dtype, what)
    if length is not None:
        x = without_padding(x, length)
    _check(what, x, exact(x, dtype), f"whole numbers beyond {EXACT}, which float32 would round")
    with np.errstate(over="ignore"):
        x = x.astype(dtype, copy=False)
    if maximum is None:
        fine = np.isfinite(x) | (np.isnan(x) & missing)
        _check(what, x, fine, "values that are not finite in float32")
    return x, maximum


def shape(x: np.ndarray, what: str) -> None:
    """Raises InputError where x is not [rows, ...], or has nothing in it."""
    if x.ndim < 2 or x.size == 0:
        raise InputError(f"{what} has shape {x.shape}; accepted: [rows, ...], none of them 0")


def exact(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Whether each value is represented exactly by this type: float32 rounds large integers."""
    if x.dtype.kind not in "iu" or dtype != np.float32:
        return np.ones((1,) * x.ndim, np.bool_)
    return (x >= -EXACT) & (x <= EXACT)


def _check(what: str, x: np.ndarray, fine: np.ndarray, problem: str) -> None:
    if not fine.all():
        row = int(np.argmin(fine.reshape(len(x), -1).all(axis=1)))
        value = x[row][~fine[row]][0]
        raise InputError(f"{what} has {problem}, first in row {row}: {value}")


def stored_type(dtype: np.dtype, what: str) -> tuple[np.dtype, float | None]:
    """The type in which values of `dtype` are stored, and its maximum (None for float32).

    Raises:
        InputError: a type that is not accepted.
    """
    if dtype.kind == "b":
        return np.dtype(np.uint8), 1.0
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return dtype.newbyteorder("="), float(np.iinfo(dtype).max)
    if dtype.kind in "iuf":
        return np.dtype(np.float32), None
    holds = _OTHER_TYPES.get(dtype.kind, "something else")
    raise InputError(f"{what} holds {holds} (dtype {dtype}); accepted: {ACCEPTED_TYPES}")


def real(x: np.ndarray, length: np.ndarray | None) -> np.ndarray:
    """The mask of padding, False for padding, in a shape that broadcasts to x [rows, steps, ...].

    Args:
        x: rows.
        length: [rows], each row's number of steps without padding; None for no padding.
    """
    if length is None:
        return np.ones((1,) * x.ndim, np.bool_)
    steps = np.arange(x.shape[1]) < np.asarray(length)[:, None]
    return steps.reshape(steps.shape + (1,) * (x.ndim - 2))


def without_padding(x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Sets padding to 0; copies the rows only if it is not 0 already."""
    here = real(x, length)
    behind = x[~here.reshape(here.shape[:2])]
    # Compares bits: -0.0 does not count as 0.
    if not np.ascontiguousarray(behind).view(np.uint8).any():
        return x
    return np.where(here, x, np.zeros((), x.dtype))


def labels(label: np.ndarray, rows: int, what: str) -> np.ndarray:
    """Class labels as int32 [rows].

    Raises:
        InputError: not whole numbers, not one a row, or out of int32's range.
    """
    if label.dtype.kind not in "iub":
        raise InputError(f"{what} has dtype {label.dtype}; accepted: whole numbers")
    if label.shape not in ((rows,), (rows, 1)):
        raise InputError(f"{what} has shape {label.shape}; accepted: one label a row, ({rows},)")
    limits = np.iinfo(np.int32)
    if rows and not limits.min <= int(label.min()) <= int(label.max()) <= limits.max:
        raise InputError(f"{what} reaches {label.min()} to {label.max()}; accepted: int32")
    return label.reshape(rows).astype(np.int32)


def lengths(length: np.ndarray, x: np.ndarray, what: str) -> np.ndarray:
    """Each row's length along its first axis, without padding, int32 [rows].

    Raises:
        InputError: not whole numbers, not one a row, or not from 1 to the rows' length.
    """
    length = labels(length, len(x), what)
    if not 1 <= int(length.min()) <= int(length.max()) <= x.shape[1]:
        raise InputError(
            f"{what} reaches {length.min()} to {length.max()}; accepted: 1 to {x.shape[1]}, the"
            " length of a row"
        )
    return length


def positions(index: np.ndarray | slice, rows: int) -> np.ndarray:
    """Resolves an index to row numbers, each in 0 .. rows - 1.

    Raises:
        IndexError: a number outside -rows .. rows - 1.
    """
    if isinstance(index, slice):
        return np.arange(*index.indices(rows))
    index = np.asarray(index, np.int64)
    if index.size and not -rows <= index.min() <= index.max() < rows:
        raise IndexError(f"index {index.min()} to {index.max()} is out of range for {rows} rows")
    return np.where(index < 0, index + rows, index)


def _given(path: str, form: str) -> str:
    if not path:
        raise InputError(f"no path is given; accepted: {form}")
    return os.path.expanduser(path)
