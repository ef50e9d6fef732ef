"""Tables as text (.csv, .tsv, .txt): which delimiter, decimal mark and line of names they have.

What the source's options do not say is found out from the file, told in one line if it is not the
usual, and kept in the rows' spec, so that a run reads its other files in the same way. What can be
read in two ways is refused with the option that decides.
"""

import csv
import dataclasses
import functools
import io
import os
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any, NamedTuple

from aejax.data.sources import checks, table_file, table_numbers
from aejax.data.sources.base import Column
from aejax.data.sources.places import parts
from aejax.errors import InputError

ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
# Texts that mean a missing value, besides an empty field.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "None", "?")
_FOUND_OUT = {
    "delimiter": "",
    "decimal": checks.Choice((".", ","), ""),
    "header": checks.Choice(("0", "none"), ""),
}
OPTIONS = {**_FOUND_OUT, "missing": "", "encoding": ""}
_DELIMITERS = (",", ";", "\t", "|")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is read, in the values of its options."""

    delimiter: str
    decimal: str
    header: str

    def words(self) -> tuple[str, ...]:
        """As options of a source."""
        return (
            f"delimiter={_quoted(self.delimiter)}",
            f"decimal={self.decimal}",
            f"header={self.header}",
        )


class Text(NamedTuple):
    """A file as it was read.

    Attributes:
        columns: Arrow's table.
        reading: how; None for a file that is no text.
        mixed: the columns of text that are mostly numbers, and what else they say.
    """

    columns: Any
    reading: Reading | None
    mixed: dict[str, table_numbers.Words]


def unkept(source: str) -> tuple[str, ...]:
    """How the table of a run was read whose folder does not say: before it was found out."""
    kind, argument = parts(source)
    path = checks.split_options(argument)[0]
    if kind != "table" or not path.endswith(ENDINGS):
        return ()
    return Reading(_usual(path), ".", "0").words()


def read(path: str, options: dict[str, str], known: Sequence[Column] = ()) -> Text:
    """Reads a file of text.

    Args:
        path: the file.
        options: the values of all options of the source; "" for what is to be found out.
        known: the columns that a model takes; () where the file says what its columns are.

    Raises:
        InputError: the file can be read in two ways, has lines of several lengths, wrong bytes,
            numbers with thousands separators, or words where a model takes numbers.
    """
    numbers = {column.name for column in known if column.categories is None}
    other = {
        name
        for option in ("label", "skip", "categorical")
        for name in checks.listed(options[option])
    }

    def number(name: str) -> bool:
        return name in numbers if known else name not in other

    encoding = table_file.encoding(path, options["encoding"])
    sample = table_file.sample(path, encoding)
    reading = _found_out(path, sample, options, known)
    parse = functools.partial(_parsed, path, encoding, sample, options, known)
    columns = parse(reading)
    texts = table_numbers.text_columns(columns, number)
    if not options["decimal"] and table_numbers.has_decimal_commas(path, texts):
        reading = dataclasses.replace(reading, decimal=",")
        columns = parse(reading)
        texts = table_numbers.text_columns(columns, number)
    if not columns.num_rows:
        raise InputError(
            f"{path} has no rows: its only line, {checks.some(columns.column_names, 4)}, is taken"
            " as the columns' names; header=none takes it as a row"
        )
    unusual = reading != Reading(_usual(path), ".", "0")
    if unusual and not all(options[name] for name in _FOUND_OUT):
        checks.tell(f"{path} is read with {' '.join(reading.words())} (options of the source)")
    columns, mixed = table_numbers.converted(path, columns, texts, reading.decimal, bool(known))
    return Text(columns, reading, mixed)


def _found_out(path: str, sample: str, options: dict[str, str], known: Sequence[Column]) -> Reading:
    """How a file is read, by its first lines; a decimal comma is looked for in all of them."""
    if not sample.strip():
        raise InputError(f"{path} is empty")
    if sample.lower().startswith("sep="):
        line = sample.splitlines()[0]
        raise InputError(f"{path}: its first line is {line}, a note for Excel; must be taken out")
    given = options["delimiter"]
    if len(given) > 1 or given.isalnum() or (given and given in "\"'.+-"):
        raise InputError(f"delimiter={given}: must be one character that no number or quote has")
    delimiter = given or _delimiter(path, sample, _usual(path))
    records = _records(sample, delimiter)
    header = options["header"] or _header(path, records)
    if known and header == "0":
        _check_delimiter(path, sample, delimiter, known)
    elif known:
        _check_unnamed(path, records, known)
    return Reading(delimiter, options["decimal"] or ".", header)


def _usual(path: str) -> str:
    """The delimiter that a file's name tells."""
    return "\t" if ".tsv" in os.path.basename(path) else ","


def _records(sample: str, delimiter: str) -> list[list[str]]:
    """The sample's lines as fields without blanks around them; [] where they cannot be cut so."""
    return [[field.strip() for field in line] for line in _cut(sample, delimiter)]


def _cut(sample: str, delimiter: str) -> list[list[str]]:
    """The sample's lines as fields; [] where they cannot be cut so."""
    try:
        lines = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        return [line for line in lines if line]
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
    numbers = any(re.fullmatch(table_numbers.NUMBER, field) for line in blank[1:] for field in line)
    if not fitting and numbers and len(blank[0]) > 1 and len(set(map(len, blank))) == 1:
        fitting = {usual: [], " ": blank}
    columns = [len(line.split()) for line in sample.splitlines() if line.strip()]
    if not fitting and numbers and columns[0] > 1 and len(set(columns)) == 1:
        raise InputError(
            f"{path}: its columns are set apart by several blanks; must be by one character, such"
            " as a comma or a tab"
        )
    if not fitting:
        return usual
    if len(fitting) > 1:
        shown = [f"delimiter={_quoted(each)}" for each in fitting]
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
    numbers = [
        text
        for text in texts
        if re.fullmatch(f"{table_numbers.NUMBER}|{table_numbers.INFINITE}", text)
    ]
    if not numbers:
        return "0"
    if not below:
        return "none"  # names of columns without rows are of no use
    words = set(texts) - set(numbers)
    distinct = len(set(numbers)) == len(numbers)
    may_be_names = distinct and all(re.fullmatch(table_numbers.WHOLE, text) for text in numbers)
    if not words and not may_be_names:
        return "none"
    below = [line for line in below if len(line) == len(first)]
    for place, text in enumerate(first):
        rows = [line[place] for line in below if line[place] not in MISSING]
        if text in words and text in rows:
            return "none"  # a value that comes again
        above_numbers = rows and all(re.fullmatch(table_numbers.NUMBER, each) for each in rows)
        if text in words and above_numbers and may_be_names:
            return "0"
    raise InputError(
        f"{path}: its first line is {', '.join(first[:4])}; it may name the columns or be a"
        " row: header=0 takes it as names, header=none as a row (the columns are then 0, 1, ...)"
    )


def _check_delimiter(path: str, sample: str, delimiter: str, known: Sequence[Column]) -> None:
    """Refuses a delimiter that finds none of a model's columns, where another finds them all."""
    wanted = {column.name for column in known}
    names = {each: {*(_records(sample, each) or [[]])[0]} for each in (*_DELIMITERS, delimiter)}
    fitting = [_quoted(each) for each in _DELIMITERS if wanted <= names[each]]
    if fitting and not wanted & names[delimiter]:
        raise InputError(
            f"{path} has none of this model's columns with delimiter={_quoted(delimiter)} and all"
            f" of them with delimiter={fitting[0]}: table:{path}?delimiter={fitting[0]} reads them"
        )


def _check_unnamed(path: str, records: list[list[str]], known: Sequence[Column]) -> None:
    """Refuses a first line of words where a model knows numbers of columns without names."""
    places = [int(each.name) for each in known if each.categories is None and each.name.isdigit()]

    def some_number(lines: list[list[str]]) -> bool:
        return any(
            re.fullmatch(table_numbers.NUMBER, line[place])
            for line in lines
            for place in places
            if place < len(line)
        )

    if some_number(records[1:]) and not some_number(records[:1]):
        raise InputError(
            f"{path}: its first line, {checks.some(records[0], 4)}, has names; the columns of this"
            " model have none (header=none): take this line out"
        )


def _quoted(delimiter: str) -> str:
    """A delimiter as the option has it."""
    return urllib.parse.quote(delimiter, safe=",;|")


def _parsed(
    path: str,
    encoding: str,
    sample: str,
    options: dict[str, str],
    known: Sequence[Column],
    reading: Reading,
) -> Any:
    """The columns as Arrow reads them; text where a model knows categories of the name."""
    from pyarrow import types

    words = {column.name for column in known if column.categories is not None}
    first = (_cut(sample, reading.delimiter) or [[]])[0]
    if unnamed := reading.header == "none":
        texts = [f"f{place}" for place in range(len(first)) if str(place) in words]
    else:
        texts = [name for name in first if name.strip() in words]
    columns = table_file.parsed(
        path,
        encoding,
        texts,
        "" if re.search(r"[\r\n]", sample) else sample,
        autogenerate_column_names=unnamed,
        block_size=max(2**20, 4 * max(map(len, sample.splitlines()))),
        delimiter=reading.delimiter,
        decimal_point=reading.decimal,
        null_values=[f"{a}{text}{b}" for text in MISSING for a in ("", " ") for b in ("", " ")],
    )
    names = range(columns.num_columns) if unnamed else columns.column_names
    columns = columns.rename_columns([str(name).strip() for name in names])
    used = {column.name for column in known} or {*columns.column_names} - {
        *checks.listed(options["skip"])
    }
    if any(types.is_binary(each.type) and each.name in used for each in columns.schema):
        raise InputError(table_file.undecoded(path, encoding))
    return table_numbers.without(columns, checks.listed(options["missing"]))
