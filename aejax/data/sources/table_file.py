"""The text of a table's file: its encoding, its first lines, and the line where something is wrong.

A byte-order mark says what the encoding is; without one it is UTF-8, or what the user names.
"""

import codecs
import csv
import io
import itertools
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

from aejax.errors import InputError

# A longer mark stands before the shorter one that it begins with.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_END = "\ufdd0"  # a line behind the last one; no letter
_SAMPLE = 2**16  # bytes
_SHOWN = 40  # letters
_SUCH_AS = "encoding=cp1252, latin-1, cp1250, shift_jis or another name that Python knows"


def encoding(path: str, given: str) -> str:
    """The encoding of a file's text, as Python calls it.

    Args:
        path: the file.
        given: the option, "" where there is none; a byte-order mark counts for more.

    Raises:
        InputError: no such encoding, or bytes that are no text.
    """
    try:
        "".encode(given or "utf-8")
    except LookupError:
        raise InputError(
            f"encoding={given}: there is no such encoding; accepted: {_SUCH_AS}"
        ) from None
    data = _first_bytes(path)
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    if b"\0" in data and not given:
        raise InputError(
            f"{path} holds bytes that are no text: it is no table as text, or its text is UTF-16"
            " without a mark, which encoding=utf-16-le reads"
        )
    return given or "utf-8"


def sample(path: str, name: str) -> str:
    """The first lines of a file in this encoding, whole ones; wrong bytes are replaced."""
    with _bytes(path) as stream:
        data = more = stream.read(_SAMPLE)
        while more and len(data.splitlines()) < 3:  # a line below that of names, to its end
            data += (more := stream.read(len(data)))
    text = codecs.getincrementaldecoder(name)("replace").decode(data)
    return text[: text.rindex("\n")] if more and "\n" in text else text


def parsed(path: str, name: str, texts: Sequence[str], line: str = "", **options: Any) -> Any:
    """An Arrow table of a file.

    Args:
        path: the file.
        name: its encoding.
        texts: the columns that are read as text, whatever they hold; the type of others is found
            out.
        line: the file's text, if it is one line without an end.
        options: Arrow's, of reading, parsing and converting.

    Raises:
        InputError: wrong bytes in the line of names, or a line with too many or too few cells.
    """
    import pyarrow
    from pyarrow import csv as arrow_csv

    def given(*names: str) -> dict[str, Any]:
        return {each: options[each] for each in names}

    try:
        table = arrow_csv.read_csv(
            # Arrow takes no line that does not end as one.
            io.BytesIO(f"{line}\n".encode()) if line else path,
            arrow_csv.ReadOptions(
                encoding="utf-8" if line or _is_utf8(name) else name,
                **given("autogenerate_column_names", "block_size"),
            ),
            # Line breaks within quotes: 300 MB take 2.2 s of CPU time, 1.8 s without.
            arrow_csv.ParseOptions(newlines_in_values=True, **given("delimiter")),
            arrow_csv.ConvertOptions(
                strings_can_be_null=True,
                check_utf8=True,
                column_types=dict.fromkeys(texts, pyarrow.string()),
                **given("decimal_point", "null_values"),
            ),
        )
        table = table.rename_columns(table.column_names)  # names that are not UTF-8 fail here
    except UnicodeDecodeError:
        raise InputError(undecoded(path, name)) from None
    except pyarrow.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise InputError(undecoded(path, name)) from None
        if wrong := _wrong_line(path, name, options["delimiter"]):
            raise InputError(f"{path}: {wrong}") from None
        raise
    if _ends_in_lines(table) and (wrong := _wrong_line(path, name, options["delimiter"])):
        raise InputError(f"{path}: {wrong}")
    return table


def _wrong_line(path: str, name: str, delimiter: str) -> str:
    """Says which line has more or fewer cells than the first, or a quote that does not end."""
    start, wanted, first = 1, 0, ""
    with _bytes(path) as stream:
        lines = io.TextIOWrapper(stream, name, errors="replace", newline="")
        records = csv.reader(itertools.chain(lines, [_END]), delimiter=delimiter)
        try:
            for record in records:
                if record == [_END]:
                    return ""
                first = first or delimiter.join(record)
                wanted = wanted or len(record)
                if record and (len(record) != wanted or record[-1].endswith(_END)):
                    break
                start = records.line_num + 1
        except csv.Error:  # a cell of more letters than the reader takes
            record = [_END]
    if record[-1].endswith(_END):
        return f"line {start} has a quote that does not end"
    cells = f"{len(record)} cell{'s' * (len(record) > 1)}"
    what = f"line {start} has {cells}, the first ({first[:_SHOWN]}) {wanted}"
    if records.line_num > start:
        what += f"; a quote in it joins it with the lines up to {records.line_num}"
    return f"{what} (delimiter={urllib.parse.quote(delimiter, safe=',;|')})"


def _ends_in_lines(table: Any) -> bool:
    """Whether a cell of the last row has a line break, as where a quote does not end."""
    cells = table.slice(max(0, table.num_rows - 1)).to_pylist()
    return any(isinstance(cell, str) and "\n" in cell for row in cells for cell in row.values())


def undecoded(path: str, name: str) -> str:
    """Says which line is not in this encoding, and which option may read it."""
    place, word = "its text", ""
    with _bytes(path) as stream:
        for number, line in enumerate(io.BufferedReader(stream), 1):
            try:
                line.decode(name)
            except UnicodeDecodeError as error:
                place, word = f"line {number}", _word(line, error.start)
                break
    if not _is_utf8(name):
        return f"{path}: {place} is not in encoding={name}; accepted: {_SUCH_AS}"
    shown = f"; with encoding=cp1252 it has {word}" if word else ""
    return f"{path}: {place} is not UTF-8{shown}; accepted: UTF-8, or {_SUCH_AS}"


def _is_utf8(name: str) -> bool:
    """Whether an encoding is UTF-8, with a mark or without."""
    return codecs.lookup(name).name in ("utf-8", "utf-8-sig")


def _word(line: bytes, at: int) -> str:
    """The word of a line with the byte at this place, as Western European text."""
    text = line.decode("cp1252", "replace")  # a letter a byte
    before = re.search(r"\w*$", text[:at])
    after = re.match(r"\w*", text[at:])
    return (before[0] if before else "") + ((after[0] if after else "") or text[at])


def _first_bytes(path: str) -> bytes:
    with _bytes(path) as stream:
        return stream.read(_SAMPLE)


def _bytes(path: str) -> Any:
    """A file as a stream of bytes; a compressed one (by its name) is decompressed."""
    import pyarrow

    return pyarrow.input_stream(path)
