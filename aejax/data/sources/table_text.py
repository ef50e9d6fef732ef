"""Tables as text (.csv, .tsv, .txt): which delimiter, decimal mark and line of names they have.

What the source's options do not say is found out from the file, told in one line if it is not the
usual, and kept in the rows' spec, so that a run reads its other files in the same way. What can be
read in two ways is refused with the option that decides.
"""

import csv
import dataclasses
import io
import os
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

from aejax.data.sources import checks
from aejax.data.sources.places import parts
from aejax.errors import InputError

ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
# Texts that mean a missing value, besides an empty field.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "None", "?")
OPTIONS = {
    "delimiter": "",
    "decimal": checks.Choice((".", ","), ""),
    "header": checks.Choice(("0", "none"), ""),
}
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE = 2**16  # bytes
_WHOLE = r"[+-]?\d+"
_EXPONENT = r"([eE][+-]?\d+)?"
_NUMBER = rf"[+-]?(\d+([.,]\d*)?|[.,]\d+){_EXPONENT}"
_INFINITE = r"[+-]?[iI][nN][fF](inity)?"
_COMMA = rf"[+-]?(\d+(,\d*)?|,\d+){_EXPONENT}"
_GROUP_MARKS = ".,' \u2019\u00a0\u202f"
_GROUPED = rf"[+-]?\d{{1,3}}([{_GROUP_MARKS}]\d{{3}})+([.,]\d+)?"
# A comma before three digits may be a decimal mark or group thousands.
_EITHER = r"[+-]?([1-9]\d{0,2},\d{3}|\d+)"


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is read, in the values of its options."""

    delimiter: str
    decimal: str
    header: str

    def words(self) -> tuple[str, ...]:
        """As options of a source."""
        delimiter = urllib.parse.quote(self.delimiter, safe=",;|")
        return f"delimiter={delimiter}", f"decimal={self.decimal}", f"header={self.header}"


def unkept(source: str) -> tuple[str, ...]:
    """How the table of a run was read whose folder does not say: before it was found out."""
    kind, argument = parts(source)
    path = checks.split_options(argument)[0]
    if kind != "table" or not path.endswith(ENDINGS):
        return ()
    return Reading(_usual(path), ".", "0").words()


def read(path: str, options: dict[str, str], number: Callable[[str], bool]) -> tuple[Any, Reading]:
    """An Arrow table of a file, and how it was read.

    Args:
        path: the file.
        options: values of `OPTIONS`; "" for what is to be found out.
        number: whether the column of a name may hold numbers.

    Raises:
        InputError: the file can be read in two ways, or has numbers with thousands separators.
    """
    sample = _sample(path)
    if sample.lower().startswith("sep="):
        line = sample.splitlines()[0]
        raise InputError(f"{path}: its first line is {line}, a note for Excel; must be taken out")
    usual = _usual(path)
    given = options["delimiter"]
    if len(given) > 1 or given.isalnum() or (given and given in "\"'.+-"):
        raise InputError(f"delimiter={given}: must be one character that no number or quote has")
    delimiter = options["delimiter"] or _delimiter(path, sample, usual)
    header = options["header"] or _header(path, _records(sample, delimiter))
    reading = Reading(delimiter, options["decimal"] or ".", header)
    longest = max(map(len, sample.splitlines()), default=0)
    table = _arrow(path, reading, longest)
    if not options["decimal"] and _has_decimal_commas(path, table, number):
        reading = dataclasses.replace(reading, decimal=",")
        table = _arrow(path, reading, longest)
    if wrong := _number_like(table, number):
        name, texts = wrong[0]
        raise InputError(
            f"{path}: column {name} has {_shown(texts, _plain(reading))}, which is no number with"
            f" decimal={reading.decimal}: numbers must have no thousands separators;"
            f" categorical={name} takes them as text, skip={name} leaves them out"
        )
    if reading != Reading(usual, ".", "0") and not all(options[name] for name in OPTIONS):
        checks.tell(f"{path} is read with {' '.join(reading.words())} (options of the source)")
    return table, reading


def _usual(path: str) -> str:
    """The delimiter that a file's name tells."""
    return "\t" if ".tsv" in os.path.basename(path) else ","


def _sample(path: str) -> str:
    """The first lines of a file, whole ones."""
    import pyarrow

    with pyarrow.input_stream(path) as stream:
        data = more = stream.read(_SAMPLE)
        while more and len(data.splitlines()) < 3:  # a line below that of names, to its end
            data += (more := stream.read(len(data)))
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} cannot be read: its text is UTF-16; must be UTF-8")
    if more and b"\n" in data:
        data = data[: data.rindex(b"\n")]
    return data.decode("utf-8-sig", "replace")


def _records(sample: str, delimiter: str) -> list[list[str]]:
    """The sample's lines as fields without blanks around them; [] where they cannot be cut so."""
    try:
        lines = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        return [[field.strip() for field in line] for line in lines if line]
    except (csv.Error, ValueError):  # a quote that does not end, or a delimiter such as a newline
        return []


def _delimiter(path: str, sample: str, usual: str) -> str:
    """The delimiter that cuts all lines into the same number of fields, more than one."""
    found = {each: _records(sample, each) for each in _DELIMITERS}
    found = {each: lines for each, lines in found.items() if lines and len(lines[0]) > 1}
    even = {e: ls for e, ls in found.items() if all(len(line) == len(ls[0]) for line in ls)}
    # Where no delimiter cuts all lines evenly, the first line says which is meant.
    fitting = even or found
    if usual == "\t" and usual in fitting:
        return usual
    blank = _records(sample, " ")
    numbers = any(re.fullmatch(_NUMBER, field) for line in blank[1:] for field in line)
    if not fitting and numbers and len(blank[0]) > 1 and len(set(map(len, blank))) == 1:
        fitting = {usual: [], " ": blank}
    if not fitting:
        return usual
    if len(fitting) > 1:
        shown = [f"delimiter={urllib.parse.quote(each, safe=',;|')}" for each in fitting]
        raise InputError(
            f"{path}: its lines can be cut in {len(fitting)} ways; {' or '.join(shown)} decides"
        )
    return next(iter(fitting))


def _header(path: str, records: list[list[str]]) -> str:
    """Whether the first line has names (0) or is a row like the others (none)."""
    if not records:
        return "0"
    first, *below = records
    texts = [text for text in first if text not in MISSING]
    numbers = [text for text in texts if re.fullmatch(f"{_NUMBER}|{_INFINITE}", text)]
    if not numbers:
        return "0"
    words = set(texts) - set(numbers)
    distinct = len(set(numbers)) == len(numbers)
    may_be_names = distinct and all(re.fullmatch(_WHOLE, text) for text in numbers)
    if not words and not may_be_names:
        return "none"
    below = [line for line in below if len(line) == len(first)]
    for place, text in enumerate(first):
        rows = [line[place] for line in below if line[place] not in MISSING]
        if text in words and text in rows:
            return "none"  # a value that comes again
        above_numbers = rows and all(re.fullmatch(_NUMBER, each) for each in rows)
        if text in words and above_numbers and may_be_names:
            return "0"
    raise InputError(
        f"{path}: its first line is {', '.join(first[:4])}; it may name the columns or be a"
        " row: header=0 takes it as names, header=none as a row (the columns are then 0, 1, ...)"
    )


def _arrow(path: str, reading: Reading, longest: int) -> Any:
    from pyarrow import csv as arrow_csv

    unnamed = reading.header == "none"
    table = arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(
            autogenerate_column_names=unnamed, block_size=max(2**20, 4 * longest)
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=reading.delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            null_values=[f"{a}{text}{b}" for text in MISSING for a in ("", " ") for b in ("", " ")],
            strings_can_be_null=True,
            check_utf8=True,
            decimal_point=reading.decimal,
        ),
    )
    names = range(table.num_columns) if unnamed else table.column_names
    return table.rename_columns([str(name).strip() for name in names])


def _number_like(table: Any, number: Callable[[str], bool]) -> list[tuple[str, Any]]:
    """Columns of text whose values all look like numbers with a mark in them."""
    from pyarrow import types

    columns = zip(table.column_names, table.columns, strict=True)
    texts = [(n, _present(c)) for n, c in columns if types.is_string(c.type) and number(n)]
    return [(n, c) for n, c in texts if len(c) and _all(c, rf"{_NUMBER}|{_GROUPED}")]


def _has_decimal_commas(path: str, table: Any, number: Callable[[str], bool]) -> bool:
    """Whether numbers have a decimal comma.

    Raises:
        InputError: their commas may as well group thousands.
    """
    columns = [(n, c) for n, c in _number_like(table, number) if _all(c, _COMMA)]
    if columns and all(_all(texts, _EITHER) for _, texts in columns):
        name, texts = columns[0]
        raise InputError(
            f"{path}: column {name} has {_shown(texts, _WHOLE)}, whose comma may be a decimal mark"
            f" or group thousands; decimal=, reads a decimal mark, categorical={name} takes text,"
            f" skip={name} leaves the column out; thousands separators are not read"
        )
    return bool(columns)


def _present(column: Any) -> Any:
    from pyarrow import compute

    return compute.call_function("utf8_trim_whitespace", [column.drop_null()])


def _all(texts: Any, pattern: str) -> bool:
    """Whether all texts are of a pattern (of RE2)."""
    from pyarrow import compute

    options = compute.MatchSubstringOptions(f"^({pattern})$")
    matches = compute.call_function("match_substring_regex", [texts], options)
    return compute.call_function("all", [matches]).as_py()


def _shown(texts: Any, plain: str) -> str:
    """The first value that is not of this pattern."""
    values = texts.to_pylist()
    return next((text for text in values if not re.fullmatch(plain, text)), values[0])


def _plain(reading: Reading) -> str:
    """The pattern of numbers that are read with this decimal mark."""
    return _COMMA if reading.decimal == "," else _COMMA.replace(",", r"\.")
