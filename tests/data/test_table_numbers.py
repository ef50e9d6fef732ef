"""Columns of numbers with other cells in them: marks for missing values, words, signs."""

import numpy as np
import pytest

from aejax.data.sources.base import Column
from tests.data.tables import opened, refused, written

NAN = np.nan


@pytest.mark.parametrize(
    "mark", ["-", "--", "n.a.", "none", "NULL", "Unknown", "#DIV/0!", ".", "?"]
)
def test_a_mark_among_numbers_is_a_missing_value(tmp_path, mark):
    source = opened(written(tmp_path, f"a,b\n1.5,{mark}\n2,3\n4, {mark} \n"))
    assert source.spec.columns == (Column("a"), Column("b")) and source.spec.missing
    np.testing.assert_array_equal(source[:].x, [[1.5, NAN], [2, 3], [4, NAN]])


def test_what_is_read_as_missing_is_told_with_the_option_that_decides(tmp_path, capsys):
    text = written(tmp_path, "a,b,c\n1,-,x\n-,3,-\n2,n.a.,x\n")
    source = opened(text)
    assert source.spec.columns == (Column("a"), Column("b"), Column("c", ("-", "x")))
    assert capsys.readouterr().err == (
        f"{tmp_path}/rows.csv: cells that are no numbers are read as missing: 1 of column a (-) and"
        " 2 of column b (-, n.a.); categorical=a,b takes all cells as categories instead\n"
    )
    source = opened(f"{text}?categorical=a,b")
    assert source.spec.columns[:2] == (
        Column("a", ("-", "1", "2")),
        Column("b", ("-", "3", "n.a.")),
    )
    assert capsys.readouterr().err == ""


def test_marks_among_decimal_commas(tmp_path):
    source = opened(written(tmp_path, "a;b\n1,5;-\n-;2\n,25;1e3\n"))
    assert source.spec.reading[1] == "decimal=,"
    np.testing.assert_array_equal(source[:].x, [[1.5, NAN], [NAN, 2], [0.25, 1000]])
    refused(written(tmp_path, "a;b\n1,234;-\n-;2\n"), "column a has 1,234, whose comma may be")


def test_other_words_among_numbers_are_told_or_named_as_the_reason(tmp_path, capsys):
    text = written(tmp_path, "a,b\n1,1\n2,<0.1\n3,5\n4,high\n")
    assert opened(text).spec.columns[1].categories == ("1", "5", "<0.1", "high")
    assert capsys.readouterr().err == ""  # as many words as numbers
    text = written(tmp_path, "a,b\n1,1\n2,<0.1\n3,5\n4,-\n5,7\n")
    assert opened(text).spec.columns[1].categories == ("-", "1", "5", "7", "<0.1")
    line = "column b is read as categories: 1 of its 4 values are no numbers (<0.1), which missing"
    assert f"{line}=<0.1" in capsys.readouterr().err
    np.testing.assert_array_equal(opened(f"{text}?missing=<0.1")[:].x[:, 1], [1, NAN, 5, NAN, 7])
    rows = "".join(f"{i},{i / 7 if i % 50 else 'x y'}\n" for i in range(200))
    text = written(tmp_path, f"a,b\n{rows}")
    refused(text, "b has 197 categories, more than 100, and 4 of its 200 values are no", "x y")
    assert np.isnan(opened(f"{text}?missing=x%20y")[:].x[:, 1]).sum() == 4


@pytest.mark.parametrize("numbers", [[], ["1", "2"]])
def test_marks_among_words_are_no_numbers(tmp_path, capsys, numbers):
    cells = [*numbers, "red", "-", "unknown", "", "-", "green", "unknown", "-"]
    text = written(tmp_path, "a,b\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    categories = opened(text).spec.columns[1].categories
    assert categories == (*sorted([*numbers, "-"]), "green", "red", "unknown")
    assert capsys.readouterr().err == ""  # not more numbers than words


def test_the_option_missing_holds_for_numbers_and_words(tmp_path):
    text = written(tmp_path, "a,b,c\n-999,x,1.5\n2,gone,-999.0\n3,x,4\n")
    source = opened(f"{text}?missing=-999,gone")
    assert source.spec.columns == (Column("a"), Column("b", ("x",)), Column("c"))
    np.testing.assert_array_equal(source[:].x, [[NAN, 1, 1.5], [2, NAN, NAN], [3, 1, 4]])


def test_a_model_takes_numbers_and_marks_where_it_was_trained_on_numbers(tmp_path, capsys):
    like = opened(written(tmp_path, "a,b\n1,2\n3,4\n")).spec
    text = written(tmp_path, "a,b\n-,2\n3,4\n", "others.csv")
    np.testing.assert_array_equal(opened(text, like)[:].x, [[NAN, 2], [3, 4]])
    told = (
        f"{tmp_path}/others.csv: cells that are no numbers are read as missing: 1 of column a (-)\n"
    )
    assert capsys.readouterr().err == told
    text = written(tmp_path, "a,b\n-,2\n3,4\ntall,4\n", "others.csv")
    refused(text, "column a has tall in row 2;", "missing=tall behind the path", like=like)
    np.testing.assert_array_equal(opened(f"{text}?missing=tall", like)[:].x[:, 0], [NAN, 3, NAN])
    # a column without a number in this file
    text = written(tmp_path, "a,b\n-,2\n-,4\n", "others.csv")
    np.testing.assert_array_equal(opened(text, like)[:].x, [[NAN, 2], [NAN, 4]])


def test_a_mark_that_was_a_category_in_training_stays_one(tmp_path):
    text = written(tmp_path, "a,b\n1,2\n-,4\n")
    like = opened(f"{text}?categorical=a").spec
    assert opened(text, like)[:].x.tolist() == [[0, 1, 2], [1, 0, 4]]


@pytest.mark.parametrize("cell", ["$12.50", "12.5 \u20ac", "5%", "-$3", "$1,234.50"])
def test_numbers_with_signs_are_refused_as_those_with_thousands_are(tmp_path, cell):
    text = written(tmp_path, f'a,b\n1,"{cell}"\n2,7\n')
    refused(
        text, f"column b has {cell}, which is no number", "% or signs", "categorical=b", "skip=b"
    )
    assert opened(f"{text}?categorical=b").spec.shape == (3,)


def test_another_decimal_mark_than_the_runs_is_refused_with_the_option(tmp_path):
    like = opened(written(tmp_path, "a;b\n1,5;2\n2;3\n")).spec
    options = "&".join(like.reading)
    text = written(tmp_path, "a;b\n1.5;2\n2;3\n", "others.csv")
    refused(f"{text}?{options}", "column a has 1.5, ", "decimal=. behind the path", like=like)
    assert opened(f"{text}?{options.replace('decimal=,', 'decimal=.')}", like)[:].x[0, 0] == 1.5
