"""Rows of some labels only: both feeds, statistics, resuming, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest

from aejax.config import Data
from aejax.data.sources import open_source
from aejax.data.sources.base import Arrays
from aejax.data.sources.labels import keep_labels, labels_of, numbers_of, some_of_each
from aejax.data.sources.splits import Joined, Selected
from aejax.errors import InputError
from aejax.evaluation.rows import choose_rows
from aejax.runs import folder
from aejax.training.trainer import Trainer
from tests.training.runs import small, train


def config(**data):
    made = small(duration="6 steps", batch_size=16, log_every=3)
    made.evaluation.every = made.checkpoint.every = "3 steps"
    for name, value in data.items():
        setattr(made.data, name, value)
    return made


def test_rows_of_kept_labels_alone_in_their_order():
    whole = open_source("digits", "train")
    found = open_source("digits", "train", keep=(3, 5))
    rows = np.flatnonzero(np.isin(whole[:].label, (3, 5)))
    assert np.array_equal(found[:].x, whole[rows].x)
    assert set(np.unique(found[:].label)) == {3, 5}
    assert keep_labels(whole, (), "train") is whole
    part = Selected(whole, np.arange(10, 40))
    both = Joined((part, whole))
    assert np.array_equal(labels_of(both), both[slice(0, len(both))].label)
    assert np.array_equal(keep_labels(both, (7,), "x")[np.arange(3)].label, [7, 7, 7])


def test_a_run_knows_its_rows_and_goes_on_with_them_by_either_feed(tmp_path):
    counts = [len(open_source("digits", split, keep=(3,))) for split in ("train", "test")]
    for feed in ("resident", "streaming"):
        place = str(tmp_path / feed)
        train(config(keep_labels=(3,), feed=feed), place)
        run = folder.read(place)
        assert run.rows == counts[0] and run.config.data.keep_labels == (3,)
        assert set(np.unique(choose_rows(run).source[:].label)) == {3}
        assert len(choose_rows(run).source) == counts[1]
        assert len(choose_rows(run).every or ()) == 360
        longer = config(keep_labels=(3,), feed=feed)
        longer.duration = "9 steps"
        assert train(longer, place).step == 9
    rows = [
        [json.loads(line)["loss"] for line in (tmp_path / feed / "metrics.jsonl").open()]
        for feed in ("resident", "streaming")
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5)
    with pytest.raises(InputError, match=r"config.data.keep_labels: \[3\] -> \[5\]"):
        train(config(keep_labels=(5,)), str(tmp_path / "resident"))


def test_rows_that_are_given_are_kept_by_label_too(tmp_path):
    label = np.arange(100, dtype=np.int32) % 4
    given = Arrays(np.random.RandomState(0).rand(100, 6).astype(np.float32), label, 1.0)
    Trainer(config(keep_labels=(1,)), tmp_path, train=given, test=given).fit(quiet=True)
    assert folder.read(str(tmp_path)).rows == 25


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="keep_labels=3,13: .* no label 13; accepted: 0, 1, 2"):
        open_source("digits", keep=(3, 13))
    np.savez(tmp_path / "rows.npz", x=np.zeros((20, 3), np.float32))
    with pytest.raises(InputError, match="keep_labels=3: the rows of split train have no labels"):
        open_source(f"npz:{tmp_path}/rows.npz", keep=(3,))


def test_labels_are_numbers_or_names_of_classes(tmp_path):
    classes = ("ok", "sick", "a,b", "0")
    for text, wanted in (("", []), ("3,5", [3, 5]), ("sick,0", [1, 0]), ("a,b", [2])):
        assert numbers_of(text, classes, "--normal") == wanted
    known = "must be labels or their names: 0=ok, 1=sick, 2=a,b, 3=0; did you mean sick"
    with pytest.raises(InputError, match=f"--normal=ok,sik: {known}"):
        numbers_of("ok,sik", classes, "--normal")
    with pytest.raises(InputError, match="--normal=ok: must be labels, such as 3 or 3,5"):
        numbers_of("ok", (), "--normal")
    rows = "".join(f"{row},{'ok' if row % 3 else 'sick'}\n" for row in range(40))
    (tmp_path / "rows.csv").write_text("x,state\n" + rows)
    with pytest.raises(InputError, match="no label 2; accepted: 0=ok, 1=sick"):
        open_source(f"table:{tmp_path}/rows.csv?label=state", keep=(2,))


@pytest.mark.slow
def test_the_program_takes_one_label_or_several_and_refuses_in_one_line(tmp_path):
    words = [sys.executable, "-m", "launch.train", "--config=dense", f"--workdir={tmp_path}/run"]
    for value, code, text in (
        ("3,5", 0, "303 training rows"),
        ("3", 0, "150 training rows"),
        ("77", 2, "error: data.source=digits: config.data.keep_labels=77"),
    ):
        found = subprocess.run(
            [*words, f"--config.data.keep_labels={value}", "--dry_run", "--config.batch_size=64"],
            capture_output=True,
            text=True,
        )
        assert found.returncode == code, found.stderr
        assert text in (found.stderr if code else found.stdout)


def test_some_of_each_class_in_their_shares():
    label = np.repeat([0, 1, 2], [600, 300, 100])
    label = np.random.RandomState(3).permutation(label)
    source = Arrays(np.arange(1000, dtype=np.float32)[:, None], label, None)
    few, more = (some_of_each(source, labels, 0)[:] for labels in ("5%", "200"))
    assert np.bincount(few.label).tolist() == [30, 15, 5]
    assert np.bincount(more.label).tolist() == [120, 60, 20]
    assert set(few.x[:, 0]) < set(more.x[:, 0]) and np.all(np.diff(few.x[:, 0]) > 0)
    np.testing.assert_array_equal(few.label, label[few.x[:, 0].astype(int)])
    other = some_of_each(source, "5%", 1)[:]
    assert set(other.x[:, 0]) != set(few.x[:, 0])
    assert some_of_each(source, "", 0) is source
    with pytest.raises(InputError, match=r"config.data.labels=0.01%: 0 rows; must be from 1 to 10"):
        some_of_each(source, "0.01%", 0)
    with pytest.raises(InputError, match=r"config.data.labels=1001: 1001 rows"):
        some_of_each(source, "1001", 0)
    with pytest.raises(ValueError, match="labels=many: must be a share such as 1%, or a number"):
        Data(labels="many")
