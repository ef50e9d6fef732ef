"""Sources of examples by name: digits, idx:FOLDER, images:FOLDER, npz:FILE, text:FILE,
sound:FOLDER, table:FILE, planted:KIND, tfds:NAME.

A further kind of source is a function that takes what stands behind the colon and returns
`Splits`; it is known once it stands in `KINDS`.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator

from aejax.data.sources import digits, idx, images, npz, planted, sound, table, text, tfds
from aejax.data.sources.base import Arrays, Rows, Source, Spec
from aejax.data.sources.splits import Splits, select
from aejax.errors import InputError
from aejax.kinds import near

__all__ = ["KINDS", "Arrays", "Rows", "Source", "Spec", "Splits", "open_source", "open_splits"]

# {kind: opens (what stands behind the colon, TFDS's data folder, whether TFDS may download)}
KINDS: dict[str, Callable[[str, str, bool], Splits]] = {
    "digits": lambda argument, folder, download: digits.splits(argument),
    "idx": lambda argument, folder, download: idx.splits(argument),
    "images": lambda argument, folder, download: images.splits(argument),
    "planted": lambda argument, folder, download: planted.splits(argument),
    "npz": lambda argument, folder, download: npz.splits(argument),
    "sound": lambda argument, folder, download: sound.splits(argument),
    "table": lambda argument, folder, download: table.splits(argument),
    "text": lambda argument, folder, download: text.splits(argument),
    "tfds": tfds.splits,
}

_MODULES = (digits, idx, images, npz, planted, sound, table, text, tfds)
FORMS = tuple(module.FORM for module in _MODULES)


def open_source(
    text: str, split: str = "train", folder: str = "", download: bool = False
) -> Source:
    """Opens one split of a source.

    Args:
        text: one of `FORMS`.
        split: a split by name and slice (train, test[:500], train+test, all); sources without
            splits of their own are cut into train (90 %) and test (10 %).
        folder: TFDS's data folder; "" for its default.
        download: let TFDS fetch a set that is missing. Without it nothing reaches for the network.

    Returns:
        The rows, of which `Arrays` are in memory and others are read when asked for.

    Raises:
        InputError: no such source or split, or its files are missing or damaged.
    """
    splits = open_splits(text, folder, download)
    with _naming(f"data.source={text}"):
        return select(splits, split)


def open_splits(
    text: str,
    folder: str = "",
    download: bool = False,
    setting: str = "data.source",
    like: Spec | None = None,
) -> Splits:
    """All splits of a source by name, each read when it is called for.

    Args:
        text, folder, download: as in `open_source`.
        setting: what the source is called in messages.
        like: of the rows that a model was trained on, whose columns a table is read by.

    Raises:
        InputError: no such source, or its files are missing or damaged; the splits raise it too.
    """
    kind, argument = parts(text)
    if kind not in KINDS:
        raise InputError(
            f"{setting}={text}: there is no source {kind!r}; accepted: {', '.join(FORMS)}"
            f"{near(kind, KINDS)}"
        )
    where = f"{setting}={text}"
    with _naming(where):
        if kind == "table":
            splits = table.splits(argument, like)
        else:
            splits = KINDS[kind](argument, folder, download)
    return {name: functools.partial(_read, where, read) for name, read in splits.items()}


def parts(text: str) -> tuple[str, str]:
    """A source's kind, and what stands behind it: digits?x=1 has no colon."""
    kind = re.split("[:?]", text, maxsplit=1)[0]
    return kind, text[len(kind) :].removeprefix(":")


def _read(where: str, read: Callable[[], Source]) -> Source:
    with _naming(where):
        return read()


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Puts the source, once, before whatever is wrong with it."""
    try:
        yield
    except InputError as error:
        line = " ".join(str(error).splitlines())
        raise InputError(line if line.startswith(where) else f"{where}: {line}") from None
