"""Sources of examples by name: digits, idx:FOLDER, images:FOLDER, npz:FILE, text:FILE,
text:FOLDER, sound:FOLDER, table:FILE, planted:KIND, tfds:NAME.

To add a kind of source, write a function that takes the text after the colon and returns `Splits`,
and add it to `KINDS`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from aejax.data.sources import checks, digits, idx, images, npz, planted, sound, table, text, tfds
from aejax.data.sources.base import Arrays, Rows, Source, Spec
from aejax.data.sources.labels import keep_labels
from aejax.data.sources.places import parts, reading_for, with_options
from aejax.data.sources.splits import Splits, select
from aejax.errors import InputError
from aejax.kinds import near

__all__ = [
    "ARRAYS",
    "KINDS",
    "Arrays",
    "Rows",
    "Source",
    "Spec",
    "Splits",
    "as_source",
    "open_source",
    "open_splits",
]

# The source's name in config.json if rows came from Python.
ARRAYS = "arrays"


def _given(argument: str, folder: str, download: bool) -> Splits:
    raise InputError(
        "the run was given its rows by a program (yours, or a stage of pre-training), and"
        " they cannot be opened again; give such rows:"
        " --source=npz:FILE (to train on, --config.data.source=npz:FILE)"
    )


# {kind: opens (what stands behind the colon, TFDS's data folder, whether TFDS may download)}
KINDS: dict[str, Callable[[str, str, bool], Splits]] = {
    ARRAYS: _given,
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


def as_source(what: str, rows: Any) -> Source:
    """Makes a source of rows from Python; a source is returned as it is.

    Args:
        what: names the rows in messages.
        rows: an array [rows, ...] (of NumPy, JAX or anything that NumPy takes), such an array and
            labels [rows], or a `Source`.

    Raises:
        InputError: neither, or an array that `checks.stored` refuses.
    """
    array, labels = rows if isinstance(rows, tuple) and len(rows) == 2 else (rows, None)
    if hasattr(array, "__array__"):
        x, maximum = checks.stored(np.asarray(array), what)
        if labels is not None:
            labels = checks.labels(np.asarray(labels), len(x), f"{what}: the labels")
        return Arrays(x, labels, maximum)
    source: Any = rows
    if not isinstance(getattr(source, "spec", None), Spec):
        raise InputError(
            f"{what} is a {type(rows).__name__}; accepted: an array [rows, ...],"
            " a pair of it and labels [rows], aejax.data.sources.Arrays, or another Source"
        )
    return source


def open_source(
    text: str,
    split: str = "train",
    folder: str = "",
    download: bool = False,
    keep: Sequence[int] = (),
    like: Spec | None = None,
) -> Source:
    """Opens one split of a source.

    Args:
        text: one of `FORMS`.
        split: a split by name and slice (train, test[:500], train+test, all); sources without
            splits of their own are cut into train (90 %) and test (10 %).
        folder: TFDS's data folder; "" for its default.
        download: let TFDS fetch a set that is missing; otherwise the network is not used.
        keep: labels of the rows to keep; () for all rows.
        like: spec of the rows that a model was trained on; a table is read with its columns.

    Returns:
        The rows, `Arrays` in memory, or a source that reads them when they are indexed.

    Raises:
        InputError: no such source or split, or its files are missing or damaged.
    """
    return open_several(text, (split,), folder, download, keep, like)[0]


def open_several(
    text: str,
    splits: Sequence[str],
    folder: str = "",
    download: bool = False,
    keep: Sequence[int] = (),
    like: Spec | None = None,
) -> list[Source]:
    """Opens several splits of a source, whose files are listed once; as `open_source`."""
    found = open_splits(text, folder, download, like=like)
    with _naming(f"data.source={text}"):
        return [keep_labels(select(found, split), keep, f"split {split}") for split in splits]


def open_splits(
    text: str,
    folder: str = "",
    download: bool = False,
    setting: str = "data.source",
    like: Spec | None = None,
) -> Splits:
    """All splits of a source by name, each read when it is first used.

    Args:
        text, folder, download: as in `open_source`.
        setting: what the source is called in messages.
        like: spec of the rows that a model was trained on; a table is read with its columns.

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


def inherited(text: str, own: str, spec: Spec) -> str:
    """Adds options of a run's own source to another source of the same kind, which lacks them.

    Args:
        text: the other source.
        own: the run's source.
        spec: of the run's rows; pictures become greyscale or RGB like these.
    """
    kind, (own_kind, own_argument) = parts(text)[0], parts(own)
    more = list(checks.split_options(own_argument)[1]) if kind == own_kind else []
    found = with_options(with_options(text, more), reading_for(text, own, spec.reading))
    mode = images.mode_of(spec) if kind == "images" else ""
    return with_options(found, [f"mode={mode}"] if mode else [])


def _read(where: str, read: Callable[[], Source]) -> Source:
    with _naming(where):
        return read()


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Puts the source's name in front of the messages of errors, once."""
    try:
        yield
    except InputError as error:
        line = " ".join(str(error).splitlines())
        raise InputError(line if line.startswith(where) else f"{where}: {line}") from None
