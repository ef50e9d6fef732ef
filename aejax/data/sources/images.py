"""A folder of pictures, decoded when they are read."""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from aejax.data.sources import checks, decode, folders
from aejax.data.sources.base import Rows, Spec
from aejax.data.sources.checks import Choice
from aejax.data.sources.decode import Form, Header
from aejax.data.sources.folders import Files
from aejax.data.sources.splits import Splits
from aejax.errors import InputError

_MOST_PIXELS = 8192
FORM = "images:FOLDER or images:FOLDER?size=64&fit=crop&mode=rgb&broken=skip"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
OPTIONS = {
    "size": "",
    "fit": Choice(decode.FITS, "crop"),
    "mode": Choice(tuple(decode.MODES), ""),
    "broken": Choice(("refuse", "skip"), "refuse"),
}
_SIZE = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", re.ASCII)
# So many pictures or more are decoded by several threads (a step's batch by the feed's threads).
_MANY = 512
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Pictures(folders.OfFiles):
    """Pictures of one size: uint8 or uint16 [height, width, channels].

    Attributes:
        files: one a row.
        form: what each becomes.
        spec: what one row is.
        given: the source as it was given, for messages.
    """

    files: Files
    form: Form
    spec: Spec
    given: str

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Decodes the pictures at `index`.

        Raises:
            InputError: a picture that cannot be decoded, or whose size has changed.
        """
        index = checks.positions(index, len(self))
        x = np.empty((len(index), *self.spec.shape), self.spec.dtype)

        def put(row: int) -> None:
            x[row] = self._decoded(int(index[row]))

        for _ in _each(put, range(len(index))):
            pass
        label = self.files.label
        return Rows(x, None if label is None else label[index])

    def _decoded(self, row: int) -> np.ndarray:
        path = self.files.path(row)
        try:
            x = decode.pixels(path, self.form)
            if x.shape != self.spec.shape:
                height, width, _ = self.spec.shape
                raise InputError(
                    f"{path} is {x.shape[1]}x{x.shape[0]}, but was {width}x{height} before"
                )
        except decode.UnreadableError as error:
            raise InputError(
                f"data.source=images:{self.given}: {error}; the option broken=skip leaves out such"
                " pictures"
            ) from None
        except InputError as error:
            raise InputError(f"data.source=images:{self.given}: {error}") from None
        return x


def splits(argument: str) -> Splits:
    """The splits of a folder of pictures, as `folders` finds them.

    All are rotated by their EXIF orientation; of several frames the first is read. Without `mode`
    they become RGB if one of them has colours (a palette counts as such), else greyscale of 8 bits,
    or of 16 if all have 16. Alpha channels are dropped; translucent pixels are blended with white.
    Without `size` all must have the same size.

    Every header is read here, which finds truncated files. With broken=skip each picture is decoded
    once instead, and damaged ones are left out, with a line on standard error.

    Raises:
        InputError: no such folder, no pictures in it, some outside its train and test, a wrong
            option, pictures that cannot be read, or that differ where no option says what to do.
    """
    folder, options = checks.options(argument, FORM, OPTIONS)
    size = _size(options["size"])
    if size is None and f"fit={options['fit']}" in checks.split_options(argument)[1]:
        raise InputError(f"fit={options['fit']}: needs a size, such as size=64; accepted: {FORM}")
    found = folders.find(folder, FORM, SUFFIXES, "pictures")
    files, headers = _readable(found, options["broken"] == "skip", argument)
    mode = options["mode"] or _common_mode(files, headers)
    if size is None:
        _check_sizes(files, headers)
    width, height = size or (headers[0].width, headers[0].height)
    channels, dtype = decode.MODES[mode]
    spec = Spec(
        (height, width, channels),
        dtype,
        float(np.iinfo(dtype).max),
        files.label is not None,
        classes=files.classes,
    )
    form = Form(mode, size, options["fit"])
    return folders.splits(files, lambda some: Pictures(some, form, spec, argument))


def mode_of(spec: Spec) -> str:
    """The option `mode` that decodes pictures to such rows; "" if there is none."""
    fits = [
        mode
        for mode, (channels, dtype) in decode.MODES.items()
        if len(spec.shape) == 3 and (spec.shape[2], spec.dtype) == (channels, dtype)
    ]
    return fits[0] if fits else ""


def _size(text: str) -> tuple[int, int] | None:
    """(width, height) of the option."""
    if not text:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InputError(f"size={text}: must be a number of pixels or WIDTHxHEIGHT, as size=64x48")
    width, height = int(match[1]), int(match[2] or match[1])
    if max(width, height) > _MOST_PIXELS:
        raise InputError(f"size={text}: must be at most {_MOST_PIXELS} pixels a side")
    return width, height


def _readable(files: Files, skip: bool, given: str) -> tuple[Files, list[Header]]:
    """The pictures that can be read, and their headers.

    Raises:
        InputError: none can be read, or not all of them and none may be left out.
    """

    def read(row: int) -> Header | decode.UnreadableError:
        try:
            return decode.header(files.path(row), decode=skip)
        except decode.UnreadableError as error:
            return error

    found = list(_each(read, range(len(files))))
    good = [row for row, each in enumerate(found) if isinstance(each, Header)]
    headers = [each for each in found if isinstance(each, Header)]
    broken = [row for row, each in enumerate(found) if isinstance(each, InputError)]
    if not broken:
        return files, headers
    count = f"{len(broken)} of {len(files)} pictures cannot be read"
    if not skip or not good:
        more = "" if skip else ", or leave out such pictures with the option broken=skip"
        raise InputError(f"{found[broken[0]]} ({count}); accepted: whole files{more}")
    named = ", ".join(files.names[row] for row in broken[:_NAMED])
    more = ", ..." if len(broken) > _NAMED else ""
    checks.tell(f"images:{given}: {count} and are left out: {named}{more}")
    return files.only(good), headers


def _common_mode(files: Files, headers: Sequence[Header]) -> str:
    """The mode that all pictures can have without loss.

    Raises:
        InputError: some have 16 bits, and others 8.
    """
    modes = [each.mode for each in headers]
    if len(set(modes)) == 1:
        return modes[0]
    if "grey16" in modes:
        deep = modes.index("grey16")
        other = next(row for row, mode in enumerate(modes) if mode != "grey16")
        raise InputError(
            f"{files.path(deep)} has 16 bits, but {files.path(other)} has 8; accepted: pictures of"
            " one kind, or the option mode=grey16, mode=grey or mode=rgb"
        )
    return "rgb"


def _check_sizes(files: Files, headers: Sequence[Header]) -> None:
    first = (headers[0].width, headers[0].height)
    for row, each in enumerate(headers):
        if (each.width, each.height) != first:
            raise InputError(
                f"{files.path(row)} is {each.width}x{each.height}, but {files.path(0)} is"
                f" {first[0]}x{first[1]}; accepted: pictures of one size, or the option size=64 or"
                f" size=WIDTHxHEIGHT, with fit={', '.join(decode.FITS)}"
            )


def _each(function: Callable[[int], Any], rows: Sequence[int]) -> Iterable[Any]:
    """Maps a function over rows, in order; over many rows with several threads."""
    return _pool().map(function, rows) if len(rows) >= _MANY else map(function, rows)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), "pictures")
