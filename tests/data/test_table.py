"""Tables: numbers, categories and what is missing, from .csv, .parquet and .npy files."""

import dataclasses
import json

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from aejax.config import Config, Prepare
from aejax.data.outliers import chunks
from aejax.data.prepare import Preparation, statistics
from aejax.data.sources import open_source, open_splits
from aejax.data.sources.base import Column, Spec
from aejax.data.sources.splits import select
from aejax.errors import InputError
from aejax.runs.folder import Run, read, write

CSV = """height,colour,flag,kind,weight
1.5,red,true,b,10
,blue,false,a,20
2.5,,true,b,NA
3.5,red,,c,40
4.5,green,false,a,50
"""
NAN = np.nan
# height, colour=blue, green, red, flag=false, true, weight
ROWS = [
    [1.5, 0, 0, 1, 0, 1, 10],
    [NAN, 1, 0, 0, 1, 0, 20],
    [2.5, NAN, NAN, NAN, 0, 1, NAN],
    [3.5, 0, 0, 1, NAN, NAN, 40],
    [4.5, 0, 1, 0, 1, 0, 50],
]


def written(tmp_path, text: str = CSV, name: str = "rows.csv"):
    (tmp_path / name).write_text(text)
    return f"table:{tmp_path / name}"


def refused(text: str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(text, "all")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_numbers_categories_labels_and_what_is_missing(tmp_path):
    source = open_source(f"{written(tmp_path)}?label=kind", "all")
    np.testing.assert_array_equal(source[:].x, np.float32(ROWS))
    assert source[:].label.tolist() == [1, 0, 1, 2, 0]
    spec = source.spec
    assert (spec.shape, spec.dtype, spec.missing, spec.labelled) == ((7,), "float32", True, True)
    assert spec.classes == ("a", "b", "c")
    assert spec.columns == (
        Column("height"),
        Column("colour", ("blue", "green", "red")),
        Column("flag", ("false", "true")),
        Column("weight"),
    )
    assert "Spec(" not in spec.describe() and "columns height, colour" in spec.describe()
    parts = [open_source(f"{written(tmp_path)}?label=kind", split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [4, 1]
    assert parts[0].spec == parts[1].spec == spec


def test_options_choose_columns_and_the_delimiter(tmp_path):
    text = CSV.replace(",", ";")
    name = written(tmp_path, text)
    source = open_source(f"{name}?delimiter=;&skip=kind,flag,colour&categorical=weight", "all")
    assert source.spec.columns == (Column("height"), Column("weight", ("10", "20", "40", "50")))
    assert source[:].x[4].tolist() == [4.5, 0, 0, 0, 1]
    tabs = open_source(written(tmp_path, CSV.replace(",", "\t"), "rows.tsv"), "all")
    assert tabs.spec.shape == (10,)


def test_a_parquet_file_reads_like_the_text(tmp_path):
    arrays = {
        "height": pyarrow.array([1.5, None, 2.5, 3.5, 4.5], "float32"),
        "colour": pyarrow.array(["red", "blue", None, "red", "green"]).dictionary_encode(),
        "flag": pyarrow.array([True, False, True, None, False]),
        "kind": pyarrow.array([2, 1, 2, 3, 1], "int16"),
        "weight": pyarrow.array([10, 20, None, 40, 50], "int64"),
        "__index_level_0__": pyarrow.array(range(5)),
    }
    parquet.write_table(pyarrow.table(arrays), tmp_path / "rows.parquet")
    source = open_source(f"table:{tmp_path}/rows.parquet?label=kind", "all")
    other = open_source(f"{written(tmp_path)}?label=kind", "all")
    np.testing.assert_array_equal(source[:].x, other[:].x)
    assert source[:].label.tolist() == [2, 1, 2, 3, 1] and source.spec.classes == ()
    assert source.spec == other.spec


def test_another_file_is_read_by_the_columns_that_a_model_knows(tmp_path):
    like = open_source(f"{written(tmp_path)}?label=kind", "all").spec
    # other orders, a column more, all numbers whole, no label, a category that is new
    text = "new,weight,flag,colour,height\nx,1,false,red,2\nx,3,true,violet,4\n"
    name = written(tmp_path, text, "others.csv")
    source = select(open_splits(name, like=like), "all")
    assert source[:].x.tolist() == [[2, 0, 0, 1, 1, 0, 1], [4, 0, 0, 0, 0, 1, 3]]
    assert source.spec.columns == like.columns
    assert not source.spec.missing and not source.spec.labelled
    # classes keep their numbers, and new ones come after them
    text = "weight,flag,colour,height,kind\n1,,red,2,c\n3,true,red,4,aa\n"
    source = select(open_splits(f"{written(tmp_path, text)}?label=kind", like=like), "all")
    assert source[:].label.tolist() == [2, 3] and source.spec.classes == ("a", "b", "c", "aa")
    name = written(tmp_path, "weight,flag,color,height\n1,true,red,2\n3,true,red,4\n")
    with pytest.raises(InputError, match="no column colour, which .*did you mean color"):
        select(open_splits(name, like=like), "all")
    name = written(tmp_path, "weight,flag,colour,height\n1,true,red,tall\n3,true,red,4\n")
    with pytest.raises(
        InputError, match="column height has tall in row 0; this model takes numbers"
    ):
        select(open_splits(name, like=like), "all")


def test_columns_and_classes_stand_in_the_folder(tmp_path):
    spec = open_source(f"{written(tmp_path)}?label=kind", "all").spec
    write(str(tmp_path), Run(Config(), spec, {"low": 0.0, "high": 1.0}, 5))
    found = read(str(tmp_path)).spec
    assert found == spec and found.classes == spec.classes
    data = json.loads((tmp_path / "config.json").read_text())["data"]
    assert ["colour", ["blue", "green", "red"]] in data["columns"]


def test_numbers_are_standardised_and_categories_are_not(tmp_path):
    source = open_source(f"{written(tmp_path)}?label=kind", "all")
    settings = Prepare(scale=False, centre="standardise")
    x = np.asarray(Preparation(settings, source.spec, statistics(settings, source))(source[:].x))
    raw = np.array(ROWS)
    for column in (0, 6):
        expected = (raw[:, column] - np.nanmean(raw[:, column])) / np.nanstd(raw[:, column])
        np.testing.assert_allclose(x[:, column], np.nan_to_num(expected), atol=1e-6)
    np.testing.assert_array_equal(x[:, 1:6], np.nan_to_num(raw[:, 1:6]))


def test_one_range_for_columns_of_several_units_is_refused_with_the_flags_that_help(tmp_path):
    r = np.random.RandomState(0).rand(30, 4) * [1, 1, 1, 1000]
    text = "\n".join(["a,b,c,d", *(",".join(map(str, row)) for row in r)])
    source = open_source(written(tmp_path, text), "all")
    with pytest.raises(InputError, match="--config=table, or --config.data.prepare.scale=False"):
        statistics(Prepare(), source)
    text = "\n".join(["a,b", *(f"{255 * (i % 2)},{i}" for i in range(200))])  # pixels, say
    assert statistics(Prepare(), open_source(written(tmp_path, text), "all")) == {
        "low": 0.0,
        "high": 255.0,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n", ["has no rows"]),
        ("", ["rows.csv is empty"]),
        ("a,b\n1,2\n1,2,3\n", ["line 3 has 3 cells, the first (a,b) 2"]),
        ("a,a\n1,2\n", ["two columns a"]),
        ("1,2\n3,4\n", ["first line is 1, 2; it may name the columns"]),
        ("a,when\n1,2024-01-05\n", ["when holds dates or times; skip=when leaves them out"]),
        ("a,b,c\n1,,\n2,,\n", ["b has no values; c has no values; skip=b,c leaves"]),
        ("a,b\n1,2\n,\n", ["row 1 has no value at all"]),
        ("a,b\n1,2\n2,1e300\n", ["column b: 1e+300 in row 1 is not finite"]),
        ("b,a\n1,2\n2,inf\n", ["column a: inf in row 1 is not finite"]),
        (
            "a,id\n" + "".join(f"1,x{i}\n" for i in range(101)),
            ["id has 101 categories, more than 100; skip=id leaves them out"],
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_name(tmp_path, text, words):
    refused(written(tmp_path, text), str(tmp_path), *words)


def test_wrong_options_and_labels_are_refused(tmp_path):
    name = written(tmp_path)
    refused(f"{name}?label=kinds", "label=kinds: there is no such column", "did you mean kind?")
    refused(f"{name}?skip=kind,nothing", "skip=nothing: there is no such column")
    refused(f"{name}?label=colour", "label colour is missing in row 2")
    refused(f"{name}?labels=kind", "there is no option 'labels'", "did you mean label?")
    refused(f"{written(tmp_path, name='rows.xlsx')}", "is no table by its name")
    np.save(tmp_path / "rows.npy", np.eye(3))
    refused(f"table:{tmp_path}/rows.npy?label=a", "label=a: a .npy has no columns by name")


def test_an_array_is_read_as_it_is(tmp_path):
    x = np.random.RandomState(0).randn(20, 3, 2)
    np.save(tmp_path / "rows.npy", np.asfortranarray(x.astype(">f8")))
    source = open_source(f"table:{tmp_path}/rows.npy", "all")
    assert source.spec == Spec((3, 2), "float32", None, False)
    np.testing.assert_array_equal(source[:].x, x.astype(np.float32))
    x[4, 0] = np.nan
    np.save(tmp_path / "rows.npy", x)
    source = open_source(f"table:{tmp_path}/rows.npy", "train")
    assert source.spec == Spec((3, 2), "float32", None, False, missing=True)
    assert sum(np.isnan(rows.x).sum() for _, rows in chunks(source)) == 2
    x[5] = np.nan
    np.save(tmp_path / "rows.npy", x)
    refused(f"table:{tmp_path}/rows.npy", "row 5 has no value at all")
    np.save(tmp_path / "rows.npy", np.array([[1], [1, 2]], object), allow_pickle=True)
    refused(f"table:{tmp_path}/rows.npy", "cannot be read as .npy")


def test_whole_rows_and_rows_with_gaps_are_told_apart(tmp_path):
    spec = open_source(written(tmp_path, "a,b\n1,2\n3,4\n"), "all").spec
    assert not spec.missing
    assert spec != dataclasses.replace(spec, missing=True)
