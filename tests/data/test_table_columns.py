"""What columns become: categories that are new, the same values written in other ways, dates."""

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from aejax.data.sources.base import Column
from tests.data.tables import opened, refused, written

TRAINED = "height,colour\n1.5,red\n2,blue\n3,green\n"


def test_categories_that_training_did_not_have_are_told(tmp_path, capsys):
    like = opened(written(tmp_path, TRAINED)).spec
    text = "height,colour\n1,violet\n2,red\n3,\n4,Red\n5,violet\n6,a\n7,b\n"
    source = opened(written(tmp_path, text, "others.csv"), like)
    assert source[:].x[:2].tolist() == [[1, 0, 0, 0], [2, 0, 0, 1]]
    assert np.isnan(source[:].x[2, 1:]).all() and source[:].x[3].tolist() == [4, 0, 0, 0]
    assert capsys.readouterr().err == (
        f"{tmp_path}/others.csv: column colour has values in 5 of 7 rows that training did not have"
        " (violet, Red, a, ...); they are none of its categories, 0 in the element of each (blue,"
        " green, red)\n"
    )


def test_nothing_is_told_of_known_and_missing_values(tmp_path, capsys):
    like = opened(written(tmp_path, TRAINED)).spec
    opened(written(tmp_path, "height,colour\n1,\n2,NA\n3, red \n", "others.csv"), like)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("trained", "values", "categories"),
    [
        # text in training, and a type of their own in a file that has some of the values alone
        ("1,2,3+", "2,1", "2,1"),
        ("007,1.0,x", "1.0,007", "1.0,007"),
        ("True,False,unsure", "False,True", "False,True"),
        ("12:30,noon", "12:30,12:30", "12:30,12:30"),
        ("2024-01-05,never", "2024-01-05,never", "2024-01-05,never"),
        # truth values in training
        ("true,false,true", "TRUE,False", "true,false"),
        ("true,false,true", "1,0", "true,false"),
        ("true,false,true", "true,maybe", "true,none of them"),
    ],
)
def test_a_value_is_the_same_category_whatever_else_a_file_has(
    tmp_path, trained, values, categories
):
    def table(values: str, name: str, like=None):
        rows = [f"{value},1" for value in values.split(",")]
        return opened(written(tmp_path, "\n".join([" kind ,b", *rows, ""]), name), like)

    like = table(trained, "rows.csv").spec
    known, x = like.columns[0].categories, table(values, "others.csv", like)[:].x
    expected = [[float(each == one) for each in known] for one in categories.split(",")]
    assert x[:, :-1].tolist() == expected


def test_numbers_that_are_categories_are_known_in_any_form(tmp_path):
    like = opened(written(tmp_path, "a;b\n10;1,5\n20;2,5\n") + "?decimal=,&categorical=a,b").spec
    assert like.columns == (Column("a", ("10", "20")), Column("b", ("1.5", "2.5")))
    text = written(tmp_path, "a;b\n010;1,50\n20,0;2.5\n", "others.csv")
    x = opened(f"{text}?decimal=,&delimiter=;", like)[:].x
    assert x.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    unnamed = opened(written(tmp_path, "1.5,x\n2,y\n3,x\n", "none.csv")).spec
    x = opened(written(tmp_path, "1,x\n2,z\n", "others.csv") + "?header=none", unnamed)[:].x
    assert x.tolist() == [[1, 1, 0], [2, 0, 0]]


def test_categories_of_a_parquet_file(tmp_path):
    words = pyarrow.array([" a", "a", None, "b"])
    columns = {
        "words": words.dictionary_encode(),
        "view": words.cast(pyarrow.string_view()),
        "code": pyarrow.array([1.0, 2.5, np.nan, 1.0]),
        "gap": pyarrow.array([1, -999, 3, 4]),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    source = opened(f"table:{tmp_path}/rows.parquet?categorical=code&missing=-999")
    nan = np.nan
    np.testing.assert_array_equal(
        source[:].x,
        [
            [1, 0, 1, 0, 1, 0, 1],
            [1, 0, 1, 0, 0, 1, nan],
            [nan, nan, nan, nan, nan, nan, 3],
            [0, 1, 0, 1, 1, 0, 4],
        ],
    )
    assert [column.categories for column in source.spec.columns[:3]] == [
        ("a", "b"),
        ("a", "b"),
        ("1", "2.5"),
    ]


def test_the_option_missing_holds_for_all_kinds_of_text_in_a_parquet_file(tmp_path):
    words = pyarrow.array(["gone", "a", " gone ", "b"])
    kinds = (words.cast("string_view"), words.cast("large_string"), words.dictionary_encode())
    columns = {"row": pyarrow.array(range(4)), **dict(zip("xyz", kinds, strict=True))}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    source = opened(f"table:{tmp_path}/rows.parquet?missing=gone")
    assert [column.categories for column in source.spec.columns[1:]] == [("a", "b")] * 3
    assert np.isnan(source[:].x[[0, 2], 1:]).all()


def test_options_of_a_run_that_say_nothing_about_another_file_are_passed_over(tmp_path):
    like = opened(written(tmp_path, "id,a,kind\n1,2,x\n3,4,y\n") + "?skip=id").spec
    text = written(tmp_path, "a,kind\n1,x\n", "others.csv")
    assert opened(f"{text}?skip=id", like)[:].x.tolist() == [[1, 1, 0]]
    refused(f"{text}?skip=a", "skip=a: this model takes the column a", like=like)
    refused(f"{text}?categorical=a", "categorical=a: this model takes numbers", like=like)


@pytest.mark.parametrize("date", ["05.01.2024", "1/5/2024", "2024/01/05", "05-01-2024 12:30"])
def test_dates_as_text_are_refused_as_others_are(tmp_path, date):
    text = written(tmp_path, f"a,when\n1,{date}\n2,{date}\n")
    refused(text, f"when holds dates or times ({date}); skip=when leaves them out")
    assert opened(f"{text}?categorical=when").spec.shape == (2,)


def test_categories_that_hardly_any_rows_share_are_told(tmp_path, capsys):
    rows = "".join(f"{i / 2} kg,x{i % 20},c{i % 19}\n" for i in range(39))
    text = written(tmp_path, f"a,b,c\n{rows}")
    opened(text)
    assert capsys.readouterr().err == "".join(
        f"{tmp_path}/rows.csv: column {name} is read as categories: it has {count} in 39 rows"
        f" ({first}, ...); skip={name} leaves it out, categorical={name} says that this is right\n"
        for name, count, first in (("a", 39, "0.0 kg, 0.5 kg"), ("b", 20, "x0, x1"))
    )
    opened(f"{text}?categorical=a&skip=b")
    assert capsys.readouterr().err == ""


def test_numbers_too_close_for_float32_are_told(tmp_path, capsys):
    rows = "".join(f"{10**17 + i},{2000 + i},{1e6 + i}\n" for i in range(20))
    opened(written(tmp_path, f"id,year,b\n{rows}"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "column id goes from 1e+17 to 1.0000000000000002e+17" in line
    assert "float32 keeps 1 of its 2 values apart" in line


def test_columns_without_a_name_are_left_out_and_told_if_they_have_values(tmp_path, capsys):
    for text, told in (
        ("a,b,,\n1,2,,\n3,4,,\n", ""),
        (",a,b\n0,1,2\n1,3,4\n", ""),
        (
            "a,,b,\n1,x,2,y\n3,,4,\n",
            "column 2 has no name and is left out column 4 has no name and is",
        ),
    ):
        source = opened(written(tmp_path, text))
        assert [column.name for column in source.spec.columns] == ["a", "b"]
        err = capsys.readouterr().err.replace(f"\n{tmp_path}/rows.csv:", "")
        assert told in err and bool(told) == bool(err)
