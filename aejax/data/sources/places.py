"""Resolves the relative paths of sources, whatever the working folder is."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from aejax.data.sources import checks
from aejax.errors import InputError

# Kinds whose argument is not a path; TFDS's sets are in its data folder.
_NO_PATH = ("digits", "planted", "tfds")


class Location(NamedTuple):
    """A source, TFDS's data folder, and the folder to which their relative paths refer."""

    source: str
    folder: str
    base: str


def parts(text: str) -> tuple[str, str]:
    """A source's kind, and the text after it (digits?x=1 has no colon)."""
    ends = [end for end in (text.find(":"), text.find("?")) if end >= 0]
    kind = text[: min(ends, default=len(text))]
    return kind, text[len(kind) :].removeprefix(":")


def example(text: str, padded: bool) -> str:
    """How other rows for a run on such a source are named: table:FILE.csv, images:FOLDER, ...

    Args:
        text: the run's source.
        padded: whether its rows have lengths; texts then are files of a folder.
    """
    kind = parts(text)[0]
    own = {"images": "FOLDER", "sound": "FOLDER", "table": "FILE.csv"}
    own["text"] = "FOLDER" if padded else "FILE"
    return f"{kind}:{own[kind]}" if kind in own else "npz:FILE"


def with_options(text: str, more: Sequence[str]) -> str:
    """A source with the options "name=value" that it does not set itself."""
    words = checks.split_options(parts(text)[1])[1]
    given = {word.partition("=")[0] for word in words}
    more = [word for word in more if word.partition("=")[0] not in given]
    return text + ("&" if words else "?") + "&".join(more) if more else text


def reading_for(text: str, own: str, reading: Sequence[str]) -> Sequence[str]:
    """The options by which a run's own table was read, for a source of the same kind of file."""

    def file(source: str) -> tuple[str, str]:
        kind, argument = parts(source)
        path = checks.split_options(argument)[0].removesuffix(".gz")
        return kind, os.path.splitext(path)[1]

    return reading if file(text) == file(own) else ()


def locate(text: str, folder: str, bases: Sequence[str], setting: str = "data.source") -> Location:
    """Resolves a source's relative path with the first of some folders in which it exists.

    Args:
        text: the source, such as images:pictures?size=64.
        folder: TFDS's data folder, "" for its default.
        bases: absolute folders; if it exists in none of them, the working folder is taken.
        setting: what the source is called in messages.

    Raises:
        InputError: there are two or more folders, and it exists in none.
    """
    kind, argument = parts(text)
    relative = folder if kind == "tfds" else "" if kind in _NO_PATH else argument
    here = Location(text, folder, os.getcwd())
    if not relative or os.path.isabs(os.path.expanduser(relative)):
        return here
    bases = [base for base in dict.fromkeys(bases) if base]
    for base in bases:
        there = os.path.join(base, relative)
        if not os.path.exists(checks.split_options(there)[0]):
            continue
        if base == here.base:
            return here
        if kind == "tfds":
            return Location(text, there, base)
        return Location(f"{kind}:{there}", folder, base)
    if len(bases) < 2:
        return here
    path = checks.split_options(relative)[0]
    raise InputError(
        f"{setting}={text}: there is no {path} in {' and none in '.join(bases)} (where the run was"
        " started, and where this program was)"
    )
