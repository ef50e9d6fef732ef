"""Tables as text that others wrote: delimiters, decimal marks, and files without names."""

import gzip
import json

import numpy as np
import pytest

from aejax.data.sources import inherited, open_source
from aejax.errors import InputError
from tests.data.tables import opened, refused

GERMAN = "Höhe;Art;Preis\n1,5;a;1\n-,25;b;2,75\n3;a;1e3\n"
ROWS = [[1.5, 1, 0, 1], [-0.25, 0, 1, 2.75], [3, 1, 0, 1000]]


def written(tmp_path, text: str | bytes, name: str = "rows.csv") -> str:
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return f"table:{tmp_path / name}"


def names(source) -> list[str]:
    return [column.name for column in source.spec.columns]


@pytest.mark.parametrize("name", ["rows.csv", "rows.txt", "rows.csv.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_german_spreadsheet_is_read_and_told(tmp_path, capsys, name, mark, end):
    text = written(tmp_path, mark + GERMAN.replace("\n", end), name)
    source = open_source(text, "all")
    np.testing.assert_array_equal(source[:].x, np.float32(ROWS))
    assert names(source) == ["Höhe", "Art", "Preis"]
    assert source.spec.reading == ("delimiter=;", "decimal=,", "header=0")
    open_source(text, "all")
    told = f"{text[6:]} is read with delimiter=; decimal=, header=0 (options of the source)\n"
    assert capsys.readouterr().err == told


def test_nothing_is_told_of_a_usual_file_or_of_what_the_options_say(tmp_path, capsys):
    open_source(written(tmp_path, "a,b\n1.5,2\n"), "all")
    open_source(written(tmp_path, "a\tb\n1.5\t2\n", "rows.tsv"), "all")
    text = written(tmp_path, GERMAN, "german.csv")
    source = open_source(f"{text}?delimiter=;&decimal=,&header=0", "all")
    np.testing.assert_array_equal(source[:].x, np.float32(ROWS))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "reading", "rows"),
    [
        ("a\tb\n1.5\t2\n", "%09 . 0", [[1.5, 2]]),
        ("a|b\n1.5|2\n", "| . 0", [[1.5, 2]]),
        ('"a","b"\n"1.5","2"\n', ", . 0", [[1.5, 2]]),
        ('"a","b"\n"1,5","2"\n', ", , 0", [[1.5, 2]]),
        ("a,b (x;y)\n1,2\n", ", . 0", [[1, 2]]),
        ("a\n1\n2\n", ", . 0", [[1], [2]]),
        # three digits behind a comma, where another number says that it is a decimal mark
        ("a;b\n1,234;0,5\n", "; , 0", [[1.234, 0.5]]),
        ("a;b\n0,234;1\n", "; , 0", [[0.234, 1]]),
        # a blank that does not break is no part of a number
        ("a,b\n1.5\u00a0,2\n3.5\u00a0,4\n", ", . 0", [[1.5, 2], [3.5, 4]]),
        # no names: numbers that are not whole, or the same twice
        ("1.5,2\n3,4\n", ", . none", [[1.5, 2], [3, 4]]),
        ("0,0\n3,4\n", ", . none", [[0, 0], [3, 4]]),
        ("1,5;2,5\n3;4\n5;6,5\n", "; , none", [[1.5, 2.5], [3, 4], [5, 6.5]]),
        # nor a word that comes again below
        ("5.1,3.5,b\n4.9,3,b\n", ", . none", [[5.1, 3.5, 1], [4.9, 3, 1]]),
        ("NA,0.5\n2,3\n", ", . none", [[np.nan, 0.5], [2, 3]]),
        # a word above numbers is a name
        # blanks around a missing value; one column of words; a line break within quotes
        ("a, b\n1, 2\n3, NA\n", ", . 0", [[1, 2], [3, np.nan]]),
        ("full name\nAda L\nAlan T\nAda L\n", ", . 0", [[1, 0], [0, 1], [1, 0]]),
        ('a,b\n"x\ny",2\n"z",3\n', ", . 0", [[1, 0, 2], [0, 1, 3]]),
        ("id,2019,2020\n7,1,2\n", ", . 0", [[7, 1, 2]]),
    ],
)
def test_what_the_options_leave_open_is_found_out(tmp_path, text, reading, rows):
    source = open_source(written(tmp_path, text), "all")
    np.testing.assert_array_equal(source[:].x, np.float32(rows))
    words = zip(("delimiter", "decimal", "header"), reading.split(), strict=True)
    assert source.spec.reading == tuple("=".join(pair) for pair in words)
    # the same words give the same rows
    again = open_source(f"{written(tmp_path, text)}?{'&'.join(source.spec.reading)}", "all")
    np.testing.assert_array_equal(again[:].x, source[:].x)


def test_columns_without_names_have_numbers(tmp_path):
    text = written(tmp_path, "5.1,3.5,b\n4.9,3,c\n5,2.5,b\n")
    source = open_source(f"{text}?label=2&skip=0", "all")
    assert names(source) == ["1"] and source.spec.classes == ("b", "c")
    assert source[:].label.tolist() == [0, 1, 0]
    text = written(tmp_path, "39,work,13\n50,home,9\n")
    assert open_source(f"{text}?header=none", "all")[:].x.shape == (2, 4)
    assert names(open_source(f"{text}?header=0", "all")) == ["39", "work", "13"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("39,work,13\n50,home,9\n", ["first line is 39, work, 13;", "header=0", "header=none"]),
        # whole or not: numbers beside words may be names, and a row may lack a number
        ("class,400.5,401.0\nA,1,2\nB,3,4\n", ["first line is class, 400.5, 401.0; it may name"]),
        ("dose,0.5,1.0\n7,1,2\n", ["header=0 takes it as names, header=none as a row"]),
        ("5.1,<0.1,1.4\n4.9,3.0,1.4\n4.7,3.2,1.3\n", ["first line is 5.1, <0.1, 1.4; it may"]),
        ("a,b;c\n1,2;3\n", ["cut in 2 ways; delimiter=, or delimiter=; decides"]),
        ("a b\n1 2\n", ["cut in 2 ways; delimiter=, or delimiter=%20 decides"]),
        ("sep=;\na;b\n1;2\n", ["its first line is sep=;, a note for Excel; must be taken out"]),
        ("a,b,b\n1,2,3\n", ["two columns b", "header=none"]),
        ('a,b\n"1,234",5\n', ["column a has 1,234, whose comma may be", "decimal=,"]),
        ('a,b\n"1,234,567",5\n', ["column a has 1,234,567", "no thousands separators", "skip=a"]),
        ('a,b\n7,5\n"1,234.5",5\n', ["column a has 1,234.5", "categorical=a"]),
        ("a;b\n1.234,5;0,5\n7;8\n", ["column a has 1.234,5", "decimal=,"]),
        ("a;b\n1.234;0,5\n7,5;8\n", ["column a has 1.234, ", "decimal=,"]),
        ("a;b\n1'234;5\n7;8\n", ["column a has 1'234, "]),
        ("a;b\n1\u00a0234;5\n7;8\n", ["column a has 1\u00a0234, "]),
        ("a;b\n1.5;0,5\n", ["column a has 1.5, which is no number with decimal=,"]),
        (
            "Höhe;b\n1;2\n".encode("cp1252"),
            ["line 1 is not UTF-8; with encoding=cp1252 it has Höhe"],
        ),
        (
            "a;b\nschön;2\n".encode("cp1252"),
            ["line 2 is not UTF-8; with encoding=cp1252 it has schön"],
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        open_source(written(tmp_path, text), "all")
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path) in message
    for word in words:
        assert word in message, message


def test_the_options_that_a_refusal_names_decide(tmp_path):
    text = written(tmp_path, 'a,b\n"1,234",5\n"2,500",6\n')
    assert (
        open_source(f"{text}?decimal=,", "all")[:].x.tolist()
        == np.float32([[1.234, 5], [2.5, 6]]).tolist()
    )
    assert open_source(f"{text}?skip=a", "all")[:].x.tolist() == [[5], [6]]
    source = open_source(f"{text}?categorical=a", "all")
    assert source.spec.columns[0].categories == ("1,234", "2,500")
    with pytest.raises(InputError, match="column a has 1,234, which is no number with decimal=\\."):
        open_source(f"{text}?decimal=.", "all")
    for word, accepted in (
        ("header=None", "one of 0, none"),
        ("decimal=;", "one of ., ,"),
        ("delimiter=;;", "one character"),
    ):
        with pytest.raises(InputError, match=f"{word}: must be {accepted}"):
            open_source(f"{text}?{word}", "all")


def test_another_file_is_read_as_the_runs_own(tmp_path):
    own = written(tmp_path, GERMAN)
    spec = open_source(own, "all").spec
    words = "delimiter=;&decimal=,&header=0"
    assert inherited("table:other.csv", own, spec) == f"table:other.csv?{words}"
    assert inherited("table:other.csv.gz?decimal=.", own, spec) == (
        "table:other.csv.gz?decimal=.&delimiter=;&header=0"
    )
    assert inherited("table:other.parquet", own, spec) == "table:other.parquet"
    assert inherited("npz:other.npz", own, spec) == "npz:other.npz"
    assert json.loads(json.dumps(spec.reading)) == list(spec.reading)


def test_an_option_that_the_run_was_given_is_no_second_one_for_another_file(tmp_path):
    own = written(tmp_path, GERMAN) + "?delimiter=;&label=Art"
    spec = open_source(own, "all").spec
    other = inherited(written(tmp_path, GERMAN, "other.csv"), own, spec)
    assert other.endswith("other.csv?delimiter=;&label=Art&decimal=,&header=0")
    assert len(open_source(other, "all")) == 3


def test_the_index_that_pandas_writes_without_a_name_is_no_column(tmp_path):
    source = open_source(written(tmp_path, ",a,b\n0,1.5,2\n1,2.5,3\n"), "all")
    assert names(source) == ["a", "b"]


def test_infinity_in_the_first_row_is_a_number(tmp_path):
    with pytest.raises(InputError, match="column 1: inf in row 0 is not finite"):
        open_source(written(tmp_path, "5.1,inf,1.4\n4.9,3.0,1.4\n"), "all")


def test_names_longer_than_what_is_looked_at_first(tmp_path):
    count = 20_000
    line = "label," + ",".join(map(str, range(count))) + "\n"
    source = open_source(written(tmp_path, line + ("1," * count + "2\n") * 3), "all")
    assert len(source) == 3 and names(source)[:2] == ["label", "0"]


def test_lines_longer_than_a_block(tmp_path):
    text = "text,b\n" + f"{'x' * 2**21},2\n" + "y,3\n"
    assert open_source(written(tmp_path, text), "all").spec.shape == (3,)


@pytest.mark.parametrize("delimiter", ["%22", "1", "a", ".", "-"])
def test_a_delimiter_that_numbers_or_quotes_have_is_refused(tmp_path, delimiter):
    with pytest.raises(InputError, match="must be one character that no number or quote has"):
        open_source(f"{written(tmp_path, GERMAN)}?delimiter={delimiter}", "all")


def test_a_file_of_one_line_is_a_row_where_it_has_numbers(tmp_path, capsys):
    for text, shape in (("1.5,red,30\n", (1, 3)), ("15,red,30", (1, 3)), ("1,2,3\n", (1, 3))):
        source = open_source(written(tmp_path, text), "all")
        assert source[:].x.shape == shape and names(source) == ["0", "1", "2"]
    assert "header=none" in capsys.readouterr().err
    text = written(tmp_path, "red,blue\n")
    with pytest.raises(InputError, match="its only line, red, blue, is taken as .* header=none"):
        open_source(text, "all")
    assert len(open_source(f"{text}?header=none", "all")) == 1
    with pytest.raises(InputError, match="its only line, 1.5, 2, is taken as the columns' names"):
        open_source(written(tmp_path, "1.5,2\n") + "?header=0", "all")


def test_columns_that_several_blanks_set_apart_are_refused(tmp_path):
    for text in ("a  b\n1  2\n30 4\n", " 1.0  2.5\n-1.0 30.5\n"):
        with pytest.raises(InputError, match="set apart by several blanks; must be by one char"):
            open_source(written(tmp_path, text), "all")
    assert open_source(written(tmp_path, "full name\nAda L\nAlan T\n"), "all")[:].x.shape == (2, 2)


@pytest.mark.parametrize("other", [",", ";", "\t", "|"])
def test_another_delimiter_than_the_runs_is_refused_with_the_option(tmp_path, other):
    own = written(tmp_path, "a;b\n1,5;x\n2;y\n")
    spec = open_source(own, "all").spec
    text = written(tmp_path, f"b{other}a\nx{other}1\n", "other.csv")
    source = inherited(text, own, spec)
    if other == ";":
        assert opened(source, spec)[:].x.tolist() == [[1, 1, 0]]
        return
    word = other.replace("\t", "%09")
    refused(
        source, "none of this model's columns with delimiter=;", f"?delimiter={word} ", like=spec
    )
    assert opened(inherited(f"{text}?delimiter={word}", own, spec), spec)[:].x.shape == (1, 3)


def test_a_line_of_names_too_many_or_too_few_for_a_run_is_refused(tmp_path):
    named = opened(written(tmp_path, "height,colour\n1.5,red\n2,blue\n")).spec
    unnamed = opened(written(tmp_path, "1.5,red\n2.5,blue\n3.5,red\n", "none.csv")).spec
    text = written(tmp_path, "height,colour\n1.5,red\n", "other.csv")
    words = ["its first line, height, colour, has names", "(header=none): take this line out"]
    refused(f"{text}?header=none", *words, like=unnamed)
    text = written(tmp_path, "3.5,red\n4.5,red\n", "other.csv")
    refused(f"{text}?header=0", "no column height", "its columns are 3.5, red", like=named)
    # one row that a model is to judge
    text = written(tmp_path, "3.5,red\n", "other.csv")
    assert opened(f"{text}?header=none", unnamed)[:].x.tolist() == [[3.5, 0, 1]]
