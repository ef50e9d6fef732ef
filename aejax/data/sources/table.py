"""Tables: numbers and categories from a .csv, .parquet or .npy file."""

import dataclasses
import functools
import re
from typing import Any

import numpy as np

from aejax.data.sources import checks, table_text
from aejax.data.sources.base import Arrays, Column, Rows, Source, Spec
from aejax.data.sources.splits import Splits, of_whole
from aejax.errors import InputError
from aejax.kinds import near

FORM = (
    "table:FILE.csv|.tsv|.parquet|.npy?label=NAME&skip=NAME,NAME&categorical=NAME,NAME"
    "&delimiter=;&decimal=,&header=none"
)
OPTIONS = {"label": "", "skip": "", "categorical": "", **table_text.OPTIONS}
MOST_CATEGORIES = 100
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
    columns, reading = _read(path, options, known)
    label, names, classes = None, list(columns), ()
    if options["label"] and (like is None or options["label"] in columns):
        label, classes = _label(columns, options["label"], path, like.classes if like else ())
        names.remove(options["label"])
    for name in _listed("skip", options["skip"], columns):
        if name in names:
            names.remove(name)
    categorical = _listed("categorical", options["categorical"], columns)
    if known:
        wanted = known
        if absent := [column.name for column in wanted if column.name not in columns]:
            raise InputError(
                f"{path} has no column {absent[0]}, which this model takes{near(absent[0], names)}"
            )
    else:
        wanted = _usable(columns, names, categorical, path)
    x = np.concatenate([_elements(columns[each.name], each, path) for each in wanted], axis=1)
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
        reading=reading,
    )
    return Table(x, label, spec)


def _check_rows(x: np.ndarray, path: str) -> None:
    empty = np.isnan(x).reshape(len(x), -1).all(axis=1)
    if empty.any():
        raise InputError(f"{path}: row {int(np.argmax(empty))} has no value at all; leave it out")


def _read(
    path: str, options: dict[str, Any], known: tuple[Column, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The columns of a file by name, each one of Arrow's arrays, and how its text was read."""
    import pyarrow

    numbers = {column.name for column in known if column.categories is None}
    other = {
        name for option in ("label", "skip", "categorical") for name in _names(options[option])
    }
    reading = ()
    try:
        if path.endswith(".parquet"):
            from pyarrow import parquet

            found = parquet.ParquetFile(path).read()
        else:
            found, how = table_text.read(
                path, options, lambda name: name in numbers if known else name not in other
            )
            reading = how.words()
        names = [name.strip() for name in found.column_names]
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: its text is not UTF-8 ({error.reason})") from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {reason}") from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        unnamed = "" if path.endswith(".parquet") else ", or header=none where no line has names"
        raise InputError(
            f"{path} has two columns {twice[0]}; each must have a name of its own{unnamed}"
        )
    if not found.num_rows:
        raise InputError(f"{path} has no rows")
    columns = (column.combine_chunks() for column in found.columns)
    kept = zip(names, columns, strict=True)
    own = {column.name for column in known}
    return {n: column for n, column in kept if n in own or not _INDEX.fullmatch(n)}, reading


def _names(text: str) -> list[str]:
    """The names in an option's value."""
    return [name.strip() for name in text.split(",")] if text else []


def _listed(option: str, text: str, columns: dict[str, Any]) -> list[str]:
    """The columns that an option names."""
    names = _names(text)
    for name in names:
        _check_name(option, name, columns)
    return names


def _check_name(option: str, name: str, columns: dict[str, Any]) -> None:
    if name not in columns:
        known = ", ".join(list(columns)[:8]) + ", ..." * (len(columns) > 8)
        raise InputError(
            f"{option}={name}: there is no such column; there are {known}{near(name, columns)}"
        )


def _usable(
    columns: dict[str, Any], names: list[str], categorical: list[str], path: str
) -> list[Column]:
    """How each column is used.

    Raises:
        InputError: some cannot be used; the message names all of them, and the option to skip them.
    """
    found, problems = [], {}
    for name in names:
        column, problem = _column(name, columns[name], name in categorical)
        if problem:
            problems[name] = problem
        else:
            found.append(column)
    if problems:
        what = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        raise InputError(
            f"{path} has columns that cannot be used: {what}; skip={','.join(problems)} leaves"
            " them out"
        )
    if not found:
        raise InputError(f"{path} has no columns beside those that are skipped and the label")
    return found


def _column(name: str, values: Any, categorical: bool) -> tuple[Column, str]:
    """How a column is used, or why it cannot be."""
    from pyarrow import types

    kind, column = values.type, Column(name)
    if values.null_count == len(values):
        return column, "has no values"
    if types.is_boolean(kind):
        return Column(name, ("false", "true")), ""
    if _is_numeric(kind) and not categorical:
        return column, ""
    if not (_is_numeric(kind) or _is_text(kind)):
        return column, f"holds {_kind(kind)}"
    categories = tuple(sorted({text for text in _texts(values) if text is not None}))
    if len(categories) > MOST_CATEGORIES:
        return column, f"has {len(categories)} categories, more than {MOST_CATEGORIES}"
    return Column(name, categories), ""


def _is_numeric(kind: Any) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
        return _is_text(kind) or _is_numeric(kind) or types.is_boolean(kind)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _kind(kind: Any) -> str:
    from pyarrow import types

    if types.is_temporal(kind):
        return "dates or times"
    if types.is_nested(kind):
        return "lists or records"
    if types.is_binary(kind):
        return "text that is not UTF-8"
    return f"what Arrow calls {kind}"


def _texts(values: Any) -> list[str | None]:
    """A column as text, None where a value is missing."""
    found = values.to_pylist()
    # whole numbers have the same text in columns of integers and of floating point
    plain = (int(one) if isinstance(one, float) and one.is_integer() else one for one in found)
    words = (str(one).lower() if isinstance(one, bool) else one for one in plain)
    return [None if one is None or one != one else str(one).strip() for one in words]


def _elements(values: Any, column: Column, path: str) -> np.ndarray:
    """A column as float32 [rows, elements]."""
    if column.categories is None:
        return _numbers(values, f"{path}: column {column.name}")[:, None]
    place = {category: i for i, category in enumerate(column.categories)}
    out = np.zeros((len(values), len(place)), np.float32)
    for row, text in enumerate(_texts(values)):
        if text is None:
            out[row] = np.nan
        elif text in place:
            out[row, place[text]] = 1
    return out


def _numbers(values: Any, what: str) -> np.ndarray:
    """A column of numbers as float32 [rows], NaN where one is missing."""
    from pyarrow import types

    if types.is_null(values.type):
        return np.full(len(values), np.nan, np.float32)
    if not _is_numeric(values.type):
        raise InputError(f"{what} is {_kind(values.type)} here; this model takes numbers")
    found = values.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        x = found.astype(np.float32)
    if np.isinf(x).any():
        row = int(np.argmax(np.isinf(x)))
        raise InputError(f"{what}: {found[row]:g} in row {row} is not finite in float32")
    return x


def _label(
    columns: dict[str, Any], name: str, path: str, known: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 [rows] and the names of their classes: text is numbered in sorted order.

    Classes that a model was trained on keep their numbers; new ones come after them.
    """
    from pyarrow import types

    _check_name("label", name, columns)
    values, what = columns[name], f"{path}: label {name}"
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise InputError(f"{what} is missing in row {row}; must be there in every row")
    if _is_numeric(values.type):
        numbers = np.asarray(values.cast("float64", safe=False))
        whole = np.round(numbers).astype(np.int64)
        if (whole != numbers).any():
            row = int(np.argmax(whole != numbers))
            raise InputError(
                f"{what} is {numbers[row]} in row {row}; accepted: whole numbers, text"
            )
        return checks.labels(whole, len(values), what), ()
    if not (_is_text(values.type) or types.is_boolean(values.type)):
        raise InputError(f"{what} is {values.type}; accepted: text, or whole numbers")
    texts = [str(text) for text in _texts(values)]
    classes = (*known, *sorted(set(texts) - set(known)))
    place = {text: i for i, text in enumerate(classes)}
    return np.array([place[text] for text in texts], np.int32), classes
