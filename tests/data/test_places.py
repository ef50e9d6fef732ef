"""Relative paths of a run's data: from where it was started, or else from here."""

import os

import numpy as np
import pytest

from aejax.data.sources.places import Location, example, locate, parts
from aejax.errors import InputError
from aejax.evaluation.rows import choose_rows
from aejax.runs import folder
from aejax.training.setup import setup
from configs.dense import get_config


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two folders, one and other; the working folder is the other."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "other")
    return tmp_path / "one", tmp_path / "other"


def test_kinds_end_where_their_argument_begins():
    assert parts("digits") == ("digits", "")
    assert parts("digits?x=1") == ("digits", "?x=1")
    assert parts("npz:a?b:c=1") == ("npz", "a?b:c=1")


@pytest.mark.parametrize(
    ("source", "padded", "other"),
    [
        ("digits", False, "npz:FILE"),
        ("arrays", False, "npz:FILE"),
        ("npz:rows.npz", False, "npz:FILE"),
        ("table:rows.csv?label=y", False, "table:FILE.csv"),
        ("images:faces?size=64", False, "images:FOLDER"),
        ("sound:words?seconds=1", True, "sound:FOLDER"),
        ("text:book.txt", False, "text:FILE"),
        ("text:letters?length=64", True, "text:FOLDER"),
    ],
)
def test_other_rows_are_of_the_kind_of_the_runs_own(source, padded, other):
    assert example(source, padded) == other


def test_the_first_folder_that_has_it_counts(two):
    one, other = two
    bases = (str(one), str(other))
    text = "images:my pics/ä=#1?size=64"
    with pytest.raises(InputError) as caught:
        locate(text, "", bases)
    assert f"there is no my pics/ä=#1 in {one} and none in {other}" in str(caught.value)
    (other / "my pics" / "ä=#1").mkdir(parents=True)
    assert locate(text, "", bases) == Location(text, "", str(other))
    (one / "my pics" / "ä=#1").mkdir(parents=True)
    there = f"images:{one}/my pics/ä=#1?size=64"
    assert locate(text, "", bases) == Location(there, "", str(one))
    # where nothing is known of another folder, the source itself says what is missing
    assert locate("npz:gone", "", ("", str(other))).source == "npz:gone"
    for text in ("digits", "planted:copy", f"npz:{one}/gone", "npz:~/gone", "npz:"):
        assert locate(text, "", bases).source == text
    (one / "sets").mkdir()
    assert locate("tfds:a", "sets", bases) == Location("tfds:a", str(one / "sets"), str(one))
    assert locate("tfds:a", "", bases).folder == ""


def test_a_run_finds_its_data_from_anywhere(two, monkeypatch):
    one, other = two
    rows = np.arange(40, dtype=np.uint8).reshape(20, 2)
    np.savez(one / "rows.npz", x=rows)
    config = get_config()
    config.data.source, config.batch_size = "npz:rows.npz", 8
    config.data.prepare.scale = True
    run, elsewhere = str(one / "a run"), str(other / "moved run")
    monkeypatch.chdir(one)
    folder.write(run, setup(config, workdir=run).run())
    assert folder.read(run).base == str(one) and folder.read(run).config == config
    monkeypatch.chdir(other)
    os.rename(run, elsewhere)
    chosen = choose_rows(folder.read(elsewhere), split="all")
    assert chosen.source[:].x.tolist() == rows.tolist() and chosen.name == "npz:rows.npz"
    again = setup(config, workdir=elsewhere).run()
    assert again.base == str(one) and again.rows == 18
    # all of it moved: the data lie below the folder that one works in
    os.rename(one / "rows.npz", other / "rows.npz")
    assert choose_rows(folder.read(elsewhere), split="all").source[:].x.tolist() == rows.tolist()
    assert setup(config, workdir=elsewhere).run().base == str(other)
    (other / "rows.npz").unlink()
    with pytest.raises(InputError, match=f"no rows.npz in {one} and none in {other}"):
        choose_rows(folder.read(elsewhere))
    with pytest.raises(InputError, match=f"no rows.npz in {one} and none in {other}"):
        setup(config, workdir=elsewhere)
