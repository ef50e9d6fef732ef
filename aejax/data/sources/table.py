"""Tables: numbers and categories from a .csv, .parquet or .npy file."""

import collections
import dataclasses
import functools
import re
from typing import Any

import numpy as np

from aejax.data.sources import checks, table_columns, table_numbers, table_text
from aejax.data.sources.base import Arrays, Column, Rows, Source, Spec
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError
from aejax.kinds import near

FORM = (
    "table:FILE.csv|.tsv|.parquet|.npy?label=NAME&skip=NAME,NAME&categorical=NAME,NAME"
    "&missing=TEXT,TEXT&delimiter=;&decimal=,&header=none&encoding=cp1252"
)
OPTIONS = {"label": "", "skip": "", "categorical": "", **table_text.OPTIONS}
# The index that pandas writes beside its columns, into text without a name.
_INDEX = re.compile(r"__index_level_\d+__|")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in memory, as numbers.

    Attributes:
        x: float32 [rows, elements]; NaN where a value is missing.
        label: int32 [rows], or None.
        spec: with the columns that the elements come from.
    """

    x: np.ndarray
    label: np.ndarray | None
    spec: Spec

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        return Rows(self.x[index], None if self.label is None else self.label[index])

    def file_rows(self) -> np.ndarray:
        """int [rows], from 0; the header and empty lines are not counted."""
        return np.arange(len(self))


def splits(argument: str, like: Spec | None = None) -> Splits:
    """All rows of a file, and its first 90 % and last 10 % after one fixed shuffle.

    A column of numbers is one element of a row; a column of text, truth values or dictionary
    entries is one element for each of its categories, which is 1 where it is that and 0 elsewhere.
    Missing values (empty, NaN, null) are NaN, all elements of a category among them. How text is
    read, `table_text` finds out. A .npy is an array [rows, ...]; it has no columns.

    Args:
        argument: what stands behind "table:".
        like: spec of the rows that a model was trained on: its columns are read, by name and in
            their order, with its categories; an unknown category is 0 in every element.

    Raises:
        InputError: no such file, a wrong option, or a column that cannot be used, by name.
    """
    path, options = checks.options(argument, FORM, OPTIONS)
    path = checks.file(path, FORM)
    if path.endswith(".npy"):
        if given := [name for name, value in options.items() if value]:
            raise InputError(f"{given[0]}={options[given[0]]}: a .npy has no columns by name")
        return of_whole(functools.partial(_array, path), shuffle=True)
    if not path.endswith((*table_text.ENDINGS, ".parquet")):
        raise InputError(f"{path} is no table by its name; accepted: {FORM}")
    return of_whole(lambda: _table(path, options, like), shuffle=True)


def _array(path: str) -> Source:
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises errors of many kinds on damaged headers
        raise InputError(f"{path} cannot be read as .npy: {error}") from None
    checks.shape(x, path)
    missing = x.dtype.kind == "f" and bool(np.isnan(x).any())
    x, maximum = checks.stored(x, path, missing=missing)
    if missing:
        _check_rows(x, path)
    return Arrays(x, None, maximum, missing=missing)


def _table(path: str, options: dict[str, Any], like: Spec | None) -> Source:
    known = like.columns if like else ()
    text = _read(path, options, known)
    columns = _by_name(text, path, known)
    label, names, classes = None, list(columns), ()
    if options["label"] and (like is None or options["label"] in columns):
        label, classes = table_columns.labels(
            columns, options["label"], path, like.classes if like else ()
        )
        names.remove(options["label"])
    if known:
        _check_known(text, columns, options, known, path)
        wanted = known
    else:
        skipped = table_columns.listed("skip", options["skip"], columns)
        categorical = table_columns.listed("categorical", options["categorical"], columns)
        names = [name for name in names if name not in skipped]
        wanted = table_columns.usable(columns, names, categorical, text.mixed, path)
    decimal = text.reading.decimal if text.reading else "."
    elements = [table_columns.elements(columns[each.name], each, decimal, path) for each in wanted]
    x = np.concatenate(elements, axis=1)
    _check_rows(x, path)
    missing = bool(np.isnan(x).any())
    spec = Spec(
        x.shape[1:],
        "float32",
        None,
        label is not None,
        classes=classes,
        missing=missing,
        columns=tuple(wanted),
        reading=text.reading.words() if text.reading else (),
    )
    return Table(x, label, spec)


def _check_known(
    text: table_text.Text,
    columns: dict[str, Any],
    options: dict[str, Any],
    known: tuple[Column, ...],
    path: str,
) -> None:
    """Refuses a file without the columns that a model takes, or options that leave them out."""
    for column in known:
        if column.name in checks.listed(options["skip"]):
            raise InputError(f"skip={options['skip']}: this model takes the column {column.name}")
        if column.name in checks.listed(options["categorical"]) and column.categories is None:
            raise InputError(
                f"categorical={options['categorical']}: this model takes numbers of the column"
                f" {column.name}"
            )
    if absent := [column.name for column in known if column.name not in columns]:
        how = f" when it is read with {' '.join(text.reading.words())}" if text.reading else ""
        raise InputError(
            f"{path} has no column {absent[0]}, which this model takes"
            f"{near(absent[0], columns)}; its columns are {checks.some(list(columns), 8)}{how}"
        )


def _check_rows(x: np.ndarray, path: str) -> None:
    empty = np.isnan(x).reshape(len(x), -1).all(axis=1)
    if empty.any():
        raise InputError(f"{path}: row {int(np.argmax(empty))} has no value at all; leave it out")


def _read(path: str, options: dict[str, Any], known: tuple[Column, ...]) -> table_text.Text:
    """The columns of a file, and how its text was read."""
    import pyarrow

    try:
        if path.endswith(".parquet"):
            from pyarrow import parquet

            columns = parquet.ParquetFile(path).read()
            columns = table_numbers.without(columns, checks.listed(options["missing"]))
            text = table_text.Text(columns, None, {})
        else:
            text = table_text.read(path, options, known)
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {reason}") from None
    if not text.columns.num_rows:
        raise InputError(f"{path} has no rows")
    return text


def _by_name(text: table_text.Text, path: str, known: tuple[Column, ...]) -> dict[str, Any]:
    """Each column as one of Arrow's arrays, without an index and empty columns without a name.

    Raises:
        InputError: two columns have one name.
    """
    own = {column.name for column in known}
    names = map(str.strip, text.columns.column_names)
    pairs = [*zip(names, text.columns.columns, strict=True)]
    kept = [(n, column) for n, column in pairs if n in own or not _INDEX.fullmatch(n)]
    for place, (name, column) in enumerate(pairs):
        # The first may be the index that pandas writes.
        if not (name or known) and place and column.null_count < len(column):
            checks.tell(f"{path}: column {place + 1} has no name and is left out")
    counts = collections.Counter(name for name, _ in kept)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        unnamed = ", or header=none where no line has names" if text.reading else ""
        raise InputError(
            f"{path} has two columns {twice[0]}; each must have a name of its own{unnamed}"
        )
    return {name: column.combine_chunks() for name, column in kept}
