"""What the columns of a table become: numbers, elements of categories, labels."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from aejax.data.sources import checks, table_numbers
from aejax.data.sources.base import Column
from aejax.errors import InputError
from aejax.kinds import near

MOST_CATEGORIES = 100
# Dates that Arrow takes for text; those that it knows have a type of their own.
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{4}\b|\d{4}[./]\d{1,2}[./]\d{1,2}\b")
# From so many on, categories that most rows do not share are told.
_MANY = 20
# A column whose range has fewer steps of float32 is told.
_STEPS = 1024


def listed(option: str, text: str, columns: dict[str, Any]) -> list[str]:
    """The columns that an option names."""
    names = checks.listed(text)
    for name in names:
        _check_name(option, name, columns)
    return names


def _check_name(option: str, name: str, columns: dict[str, Any]) -> None:
    if name not in columns:
        known = checks.some(list(columns), 8)
        raise InputError(
            f"{option}={name}: there is no such column; there are {known}{near(name, columns)}"
        )


def usable(
    columns: dict[str, Any],
    names: list[str],
    categorical: list[str],
    mixed: dict[str, table_numbers.Words],
    path: str,
) -> list[Column]:
    """How each column is used.

    Raises:
        InputError: some cannot be used; the message names all of them, and the option to skip them.
    """
    found, problems = [], {}
    for name in names:
        column, problem = _column(name, columns[name], name in categorical)
        doubt = _doubt(column, columns[name], mixed.get(name))
        if problem:
            problems[name] = problem + f", and {doubt}" * (name in mixed)
            continue
        found.append(column)
        if doubt and name not in categorical:
            checks.tell(
                f"{path}: column {name} is read as categories: {doubt}; skip={name} leaves it out,"
                f" categorical={name} says that this is right"
            )
    if problems:
        what = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        raise InputError(
            f"{path} has columns that cannot be used: {what}; skip={','.join(problems)} leaves"
            " them out"
        )
    if not found:
        raise InputError(f"{path} has no columns beside those that are skipped and the label")
    return found


def _doubt(column: Column, values: Any, words: table_numbers.Words | None) -> str:
    """Why a column of text may hold no categories."""
    if words:
        return (
            f"{words.count} of its {words.rows} values are no numbers ({words.shown()}), which"
            f" {words.option()} reads as missing values"
        )
    rows, count = len(values) - values.null_count, len(column.categories or ())
    if count < _MANY or 2 * count <= rows:
        return ""
    return f"it has {count} in {rows} rows ({checks.some(column.categories or (), 2)})"


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
    categories = tuple(sorted(set(_texts(values)[1])))
    if not categories:
        return column, "has no values"
    if not categorical and all(_DATE.match(text) for text in categories):
        return column, f"holds dates or times ({categories[0]})"
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
        return "bytes that are no text"
    if types.is_boolean(kind):
        return "true or false"
    return f"what Arrow calls {kind}"


def _texts(values: Any) -> tuple[np.ndarray, list[str]]:
    """A column as text: which text each row has [rows], -1 for a missing value, and the texts."""
    from pyarrow import types

    if types.is_string_view(values.type):
        values = values.cast("string")
    if not types.is_dictionary(values.type):
        values = values.dictionary_encode()
    texts: list[str] = []
    numbers = [-1]  # of each entry of the dictionary; the last is that of a missing value
    for one in values.dictionary.to_pylist():
        if one is None or one != one:
            numbers.insert(-1, -1)
            continue
        # whole numbers have the same text in columns of integers and of floating point
        one = int(one) if isinstance(one, float) and one.is_integer() else one
        texts.append(str(one).lower() if isinstance(one, bool) else str(one).strip())
        numbers.insert(-1, len(texts) - 1)
    return np.array(numbers)[values.indices.fill_null(-1).to_numpy()], texts


def elements(values: Any, column: Column, decimal: str, path: str) -> np.ndarray:
    """A column as float32 [rows, elements]."""
    if column.categories is None:
        return _numbers(values, f"{path}: column {column.name}")[:, None]
    rows, texts = _texts(values)
    places = [_place(text, column.categories, decimal) for text in texts]
    size = len(column.categories)
    # Beside the categories: nothing, for what is new, and missing values.
    element = np.concatenate([np.eye(size), np.zeros((1, size)), np.full((1, size), np.nan)])
    place = np.array([*places, size + 1])[rows]
    if new := int((place == size).sum()):
        words = [text for text, place in zip(texts, places, strict=True) if place == size]
        known = checks.some(column.categories, 8)
        checks.tell(
            f"{path}: column {column.name} has values in {new} of {len(rows)} rows that training"
            f" did not have ({checks.some(words, 3)}); they are none of its categories, 0 in the"
            f" element of each ({known})"
        )
    return element.astype(np.float32)[place]


def _place(text: str, categories: Sequence[str], decimal: str) -> int:
    """Which category a text is, their number for none.

    Where Arrow found numbers or truth values in one file and text in another, the same value is
    written in several ways.
    """
    words = [text]
    if categories == ("false", "true"):
        words.append({"0": "false", "1": "true"}.get(text, text.lower()))
    if re.fullmatch(table_numbers.plain(decimal), text):
        number = float(text.replace(decimal, "."))
        words.append(str(int(number)) if number.is_integer() else str(number))
    return next((categories.index(word) for word in words if word in categories), len(categories))


def _numbers(values: Any, what: str) -> np.ndarray:
    """A column of numbers as float32 [rows], NaN where one is missing."""
    from pyarrow import types

    if types.is_null(values.type):
        return np.full(len(values), np.nan, np.float32)
    if not _is_numeric(values.type):
        raise InputError(f"{what} holds {_kind(values.type)} here; this model takes numbers")
    found = values.cast("float64", safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        x = found.astype(np.float32)
    if np.isinf(x).any():
        row = int(np.argmax(np.isinf(x)))
        raise InputError(f"{what}: {found[row]:g} in row {row} is not finite in float32")
    low, high = np.fmin.reduce(found), np.fmax.reduce(found)
    if 0 < high - low < _STEPS * np.spacing(np.float32(max(abs(low), abs(high)))):
        apart, values = len(np.unique(x)), len(np.unique(found))
        if apart < values:
            checks.tell(
                f"{what} goes from {low:.17g} to {high:.17g}: float32 keeps {apart} of its {values}"
                " values apart; subtract an offset in the file, or skip the column"
            )
    return x


def labels(
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
    rows, texts = _texts(values)
    classes = (*known, *sorted(set(texts) - set(known)))
    place = {text: i for i, text in enumerate(classes)}
    return np.array([place[text] for text in texts], np.int32)[rows], classes
