"""Columns of text that hold numbers: with a decimal comma, or with marks for missing values."""

import re
import urllib.parse
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from aejax.data.sources import checks
from aejax.errors import InputError

WHOLE = r"[+-]?\d+"
_EXPONENT = r"([eE][+-]?\d+)?"
NUMBER = rf"[+-]?(\d+([.,]\d*)?|[.,]\d+){_EXPONENT}"
INFINITE = r"[+-]?[iI][nN][fF](inity)?"
_COMMA = rf"[+-]?(\d+(,\d*)?|,\d+){_EXPONENT}"
_POINT = _COMMA.replace(",", r"\.")
_GROUP_MARKS = ".,' \u2019\u00a0\u202f"
_GROUPED = rf"[+-]?\d{{1,3}}([{_GROUP_MARKS}]\d{{3}})+([.,]\d+)?"
_SIGN = "[$\u20ac\u00a3\u00a5]"
_LIKE_NUMBERS = rf"[+-]?({_SIGN}\s?)?({NUMBER}|{_GROUPED})(\s?(%|{_SIGN}))?|{INFINITE}"
# A comma before three digits may be a decimal mark or group thousands.
_EITHER = r"[+-]?([1-9]\d{0,2},\d{3}|\d+)"
# Texts, in small letters, that mean a missing value among numbers; in a column of words they are
# words like others. `table_text.MISSING` is missing in every column.
MARKS = (
    *("-", "--", "---", "\u2013", "\u2014", ".", "..", "...", "*", "?", "\\n"),
    *("na", "n.a.", "n/a", "<na>", "nan", "null", "(null)", "nil", "none", "missing", "unknown"),
    *("#na", "#n/a", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"),
)
_SHOWN = 3


class TextColumn(NamedTuple):
    """A column of text that may hold numbers.

    Attributes:
        place: which column of the table it is.
        name: its name.
        cells: all, without blanks around them.
        present: those that are neither missing nor a mark for it.
    """

    place: int
    name: str
    cells: Any
    present: Any


class Words(NamedTuple):
    """Cells of a column that are no numbers.

    Attributes:
        count: how many there are.
        rows: the number of cells in which they were looked for, without those that are empty.
        texts: what they say, each once.
        row: of the first among all these cells, from 0.
    """

    count: int
    rows: int
    texts: list[str]
    row: int

    def shown(self) -> str:
        """Some of the texts, for a message."""
        return checks.some(self.texts, _SHOWN)

    def option(self) -> str:
        """The option that reads these texts as missing."""
        words = [urllib.parse.quote(each, safe="<>+") for each in self.texts]
        return "missing=" + ",".join(words[:_SHOWN]) + ",..." * (len(words) > _SHOWN)


def plain(decimal: str) -> str:
    """The pattern of numbers that are read with this decimal mark."""
    return f"{_COMMA if decimal == ',' else _POINT}|{INFINITE}"


def without(table: Any, words: Sequence[str]) -> Any:
    """A table in which these words are missing: cells of text, and numbers of this value."""
    import pyarrow

    columns = [_without(column, words) for column in table.columns] if words else table.columns
    return pyarrow.table(columns, table.column_names)


def _without(column: Any, words: Sequence[str]) -> Any:
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        column = column.cast("string")
        return _blank(column, _in(_call("utf8_trim_whitespace", column), words))
    numbers = [float(word) for word in words if re.fullmatch(_POINT, word)]
    if not numbers or not (types.is_integer(column.type) or types.is_floating(column.type)):
        return column
    return _blank(column, _in(column.cast("float64", safe=False), numbers))


def text_columns(table: Any, number: Callable[[str], bool]) -> list[TextColumn]:
    """The columns of text whose names may be those of numbers."""
    from pyarrow import types

    found = []
    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if types.is_string(column.type) and number(name):
            cells = _call("utf8_trim_whitespace", column)
            present = cells.drop_null()
            present = present.filter(_call("invert", _marked(present)))
            found.append(TextColumn(place, name, cells, present))
    return found


def has_decimal_commas(path: str, columns: Sequence[TextColumn]) -> bool:
    """Whether numbers have a decimal comma.

    Raises:
        InputError: their commas may as well group thousands.
    """
    found = [
        each
        for each in columns
        if _all(each.present, _LIKE_NUMBERS)
        and _all(each.present, plain(","))
        and not _all(each.present, plain("."))
    ]
    if found and all(_all(each.present, _EITHER) for each in found):
        name, text = found[0].name, _words(found[0].present, WHOLE).texts[0]
        raise InputError(
            f"{path}: column {name} has {text}, whose comma may be a decimal mark or group"
            f" thousands; decimal=, reads a decimal mark, categorical={name} takes text,"
            f" skip={name} leaves the column out; thousands separators are not read"
        )
    return bool(found)


def converted(
    path: str, table: Any, columns: Sequence[TextColumn], decimal: str, known: bool
) -> tuple[Any, dict[str, Words]]:
    """Makes numbers of columns of text that have nothing else but marks for missing values.

    What is read as missing is told.

    Args:
        path: the file, for messages.
        table: Arrow's.
        columns: those of its columns that may hold numbers.
        decimal: the decimal mark.
        known: whether a model takes numbers of these columns.

    Returns:
        The table, and the columns that have other words too, but more numbers; marks are neither.

    Raises:
        InputError: numbers with another mark, or other words where a model takes numbers.
    """
    told, mixed = [], {}
    for each in columns:
        if not (known or len(each.present)):
            continue
        if _all(each.present, plain(decimal)):
            words = _words(each.cells, plain(decimal))
            numbers = _numbers(each.cells, decimal)
            table = table.set_column(each.place, each.name, numbers)
            told += [(each.name, words)] * (words.count > 0)
        elif _all(each.present, _LIKE_NUMBERS):
            raise InputError(f"{path}: column {each.name} has {_no_number(each, decimal, known)}")
        elif known:
            words = _words(each.cells, _LIKE_NUMBERS, MARKS)
            raise InputError(
                f"{path}: column {each.name} has {words.texts[0]} in row {words.row}; this model"
                f" takes numbers there; {words.option()} behind the path reads it as missing"
            )
        else:
            words = _words(each.present, _LIKE_NUMBERS)
            if 2 * words.count < words.rows:
                mixed[each.name] = words
    if told:
        cells = " and ".join(f"{w.count} of column {name} ({w.shown()})" for name, w in told)
        names = ",".join(name for name, _ in told)
        checks.tell(
            f"{path}: cells that are no numbers are read as missing: {cells}"
            + ("" if known else f"; categorical={names} takes all cells as categories instead")
        )
    return table, mixed


def _no_number(column: TextColumn, decimal: str, known: bool) -> str:
    """Which number cannot be read, and why."""
    text, other = _words(column.present, plain(decimal)).texts[0], ".,"[decimal == "."]
    what = f"{text}, which is no number with decimal={decimal}"
    if known and _all(column.present, plain(other)):
        value = text.replace(other, ".")
        return f"{what}; decimal={other} behind the path reads it as {float(value):g}"
    what += ": numbers must have no thousands separators, % or signs of a currency"
    if known:
        return what
    return (
        f"{what}; categorical={column.name} takes them as text, skip={column.name} leaves them out"
    )


def _words(cells: Any, pattern: str, besides: Sequence[str] = ()) -> Words:
    """The cells that are neither of this pattern nor one of some other words."""
    wrong = _call("invert", _matching(cells, pattern))
    if besides:
        wrong = _call("and_", wrong, _call("invert", _in(_call("utf8_lower", cells), besides)))
    wrong = _call("fill_null", wrong, False)
    texts = cells.filter(wrong)
    row = _call("index", wrong, value=True).as_py()
    return Words(len(texts), len(cells) - cells.null_count, texts.unique().to_pylist(), row)


def _numbers(cells: Any, decimal: str) -> Any:
    """Cells as float64; marks are missing."""
    cells = _blank(cells, _marked(cells))
    if decimal != ".":
        cells = _call("replace_substring", cells, pattern=decimal, replacement=".")
    return cells.cast("float64")


def _marked(cells: Any) -> Any:
    return _in(_call("utf8_lower", cells), MARKS)


def _all(texts: Any, pattern: str) -> bool:
    """Whether all texts are of a pattern (of RE2)."""
    return _call("all", _matching(texts, pattern)).as_py() is not False


def _matching(texts: Any, pattern: str) -> Any:
    return _call("match_substring_regex", texts, pattern=f"^({pattern})$")


def _in(values: Any, wanted: Collection[Any]) -> Any:
    import pyarrow

    return _call("is_in", values, value_set=pyarrow.array(list(wanted), values.type))


def _blank(column: Any, where: Any) -> Any:
    """A column without the values of some rows."""
    import pyarrow

    return _call("if_else", where, pyarrow.scalar(None, column.type), column)


def _call(name: str, *arguments: Any, **options: Any) -> Any:
    from pyarrow import compute

    return getattr(compute, name)(*arguments, **options)
