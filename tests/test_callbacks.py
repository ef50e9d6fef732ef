"""What is told of a run while it trains, and what can stop it."""

import contextlib
import json
import sqlite3
import types

import jax
import numpy as np
import pytest

import aejax
from aejax.callbacks import Callback, LivePlot, StopWhen, as_callbacks
from aejax.config import Checkpoint, Evaluation
from aejax.runs import manifests
from aejax.training.loop import NotFinite
from tests.training.runs import FailsAt, small, train


class Notes(Callback):
    def __init__(self):
        self.told = []

    def on_start(self, start):
        self.told.append(("start", start.step, start.total, start.settings["seed"]))

    def on_row(self, row):
        self.told.append(("row", row["step"], row["split"]))

    def on_picture(self, step, picture):
        assert picture.dtype == np.uint8
        self.told.append(("picture", step))

    def on_save(self, step):
        self.told.append(("save", step))

    def on_end(self, status):
        self.told.append(("end", status))


def config(**changes):
    settings = {"duration": "20 steps", "evaluation": Evaluation(every="10 steps")}
    return small(**{**settings, "checkpoint": Checkpoint(every="10 steps"), **changes})


def test_every_moment_is_told_with_host_numbers(tmp_path):
    notes, rows = Notes(), []
    with jax.transfer_guard_device_to_host("allow"):
        outcome = train(config(), tmp_path, callbacks=[notes, rows.append])
    assert outcome.status == "done"
    wanted = [("start", 0, 20, 0)]
    for step in (10, 20):
        wanted += [("row", step, "train"), ("row", step, "test"), ("picture", step)]
    assert [one for one in notes.told if one[0] not in ("save", "end")] == wanted
    assert [one for one in notes.told if one[0] == "save"] == [("save", 10), ("save", 20)]
    assert notes.told[-1] == ("end", "done")
    assert rows == [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    again = Notes()
    assert train(config(duration="30 steps"), tmp_path, callbacks=[again]).step == 30
    assert again.told[0] == ("start", 20, 30, 0)


def test_a_row_may_be_changed_by_who_is_told(tmp_path):
    kept = []
    train(config(), tmp_path, callbacks=[lambda row: row.clear(), lambda row: kept.append(row)])
    assert len(kept) == 4 and all("loss" in row for row in kept)


def test_a_function_stops_the_run_and_it_goes_on_to_the_same_bits(tmp_path):
    whole = train(config(duration="60 steps"), tmp_path / "whole")
    stop = StopWhen(lambda row: row["step"] == 20, split="test")
    outcome = train(config(duration="60 steps"), tmp_path / "cut", callbacks=[stop])
    assert outcome.status == "stopped" and 20 <= outcome.step < 60
    assert manifests.steps(str(tmp_path / "cut"))[-1] == outcome.step
    again = train(config(duration="60 steps"), tmp_path / "cut", callbacks=[stop])
    assert (again.status, again.step) == ("stopped", outcome.step)  # the same decision
    ended = train(config(duration="60 steps"), tmp_path / "cut")
    assert ended.status == "done" and ended.metrics == whole.metrics


class Third(Callback):
    """Stops at the third evaluation, and keeps all rows; a stranger's callback."""

    def on_start(self, start):
        self.rows, self.start = [], start

    def on_row(self, row):
        self.rows.append(row)
        self.stop = [one["split"] for one in self.rows].count("test") >= 3


def third():
    """The same as a condition of rows that remembers what it saw."""
    seen = []

    def enough(row):
        seen.append(row)
        return len(seen) >= 3

    return StopWhen(enough, split="test")


class Killed(BaseException):
    """As if the process were gone."""


@pytest.mark.parametrize("make", [Third, third])
@pytest.mark.parametrize("how", ["asked to stop", "killed"])
def test_a_callback_decides_the_same_with_and_without_an_interruption(tmp_path, make, how):
    settings = config(duration="80 steps")
    whole = train(settings, tmp_path / "whole", callbacks=[make()])
    assert whole.status == "stopped" and 30 <= whole.step <= 40
    asked = []

    def interrupt(row):
        if (row["step"], row["split"]) == (20, "test"):
            if how == "killed":
                raise Killed
            asked.append(row)

    with contextlib.suppress(Killed):
        outcome = train(
            settings, tmp_path / "cut", callbacks=[make(), interrupt], stop=lambda: bool(asked)
        )
        assert outcome.status == "stopped" and 20 <= outcome.step < 40
    ended = train(settings, tmp_path / "cut", callbacks=[make()])
    assert ended.status == "stopped" and 30 <= ended.step <= 40


def test_a_run_that_goes_on_gives_its_earlier_rows_again_but_not_to_plain_functions(tmp_path):
    told, plain, plot = Third(), [], LivePlot()
    for duration in ("20 steps", "30 steps"):
        train(config(duration=duration), tmp_path, callbacks=[told, plot, plain.append])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert told.start.step == 20 and [row["step"] for row in rows] == [10, 10, 20, 20, 30, 30]
    assert told.rows == rows and plain == rows
    assert [steps for steps, _ in plot._points.values()] == [[10, 20, 30]] * 2


def test_an_exception_ends_the_run_and_what_is_saved_stays(tmp_path):
    notes = Notes()

    def fails(row):
        if row["step"] == 20:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        train(config(duration="30 steps"), tmp_path, callbacks=[notes, fails])
    assert notes.told[-1] == ("end", "failed") and manifests.steps(str(tmp_path)) == [10]
    assert train(config(duration="30 steps"), tmp_path).status == "done"


def test_a_run_that_fails_is_told(tmp_path):
    failing, notes = config(), Notes()
    failing.model.penalty = FailsAt(15)
    with pytest.raises(NotFinite):
        train(failing, tmp_path, callbacks=[notes])
    assert notes.told[-1] == ("end", "failed")


@pytest.mark.parametrize("wrong", [print, "print", Callback(), [Callback], [None]])
def test_what_is_no_callback_is_refused(wrong):
    with pytest.raises(aejax.InputError, match="callbacks: "):
        as_callbacks(wrong)


def test_a_plot_draws_each_number_of_each_split(capsys):
    plot = LivePlot(["loss", "nll"], seconds=0.0)
    for step, split in ((10, "train"), (10, "test"), (20, "train")):
        plot.on_row({"step": step, "split": split, "loss": 1.0 / step, "nll": 2.0})
    lines = [[line.get_label() for line in axes.lines] for axes in plot.figure().axes]
    assert lines == [["train", "test"]] * 2
    assert plot.figure().axes[0].lines[0].get_xydata().tolist() == [[10, 0.1], [20, 0.05]]
    plot.on_end("done")
    assert capsys.readouterr().out == ""  # a script has nowhere to show it


def test_a_notebook_shows_one_plot_and_changes_it(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown, changed = [], []
    handle = types.SimpleNamespace(update=changed.append)
    monkeypatch.setattr("IPython.get_ipython", lambda: types.SimpleNamespace(kernel=None))
    monkeypatch.setattr(display, "display", lambda figure, **_: shown.append(figure) or handle)
    plot = LivePlot(seconds=0.0)
    for step in (10, 20):
        plot.on_row({"step": step, "split": "train", "loss": 1.0 / step})
    assert len(shown) == 1 and len(changed) == 1
    assert len(changed[0].axes[0].lines[0].get_xydata()) == 2


def test_history_is_columns_over_all_starts(tmp_path):
    train(config(), tmp_path)
    history = train(config(duration="30 steps"), tmp_path).history
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert history["step"].tolist() == [row["step"] for row in rows] == [10, 10, 20, 20, 30, 30]
    assert history["split"].tolist() == ["train", "test"] * 3
    assert history["loss"].tolist() == [row["loss"] for row in rows]
    assert np.isnan(history["mse"]).tolist() == [True, False] * 3
    assert {len(column) for column in history.values()} == {6}


def test_wandb_has_every_row_offline_and_the_same_run_again(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = tmp_path / "run"
    train(config(trackers=("wandb",)), run)
    name = (run / "wandb" / "id").read_text()
    train(config(trackers=("wandb",), duration="30 steps"), run)
    files = list((run / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2  # a start each, of one run
    assert sum(file.read_bytes().count(b"test/mse") for file in files) >= 3


def test_trackio_has_every_row_offline_and_the_same_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRACKIO_PROJECT", raising=False)
    pytest.importorskip("trackio")  # reads these when it is imported
    run = tmp_path / "run"
    for duration in ("20 steps", "30 steps"):
        train(config(trackers=("trackio",), duration=duration), run)
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "aejax.db")) as store:
        rows = list(store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"))
    with open(run / "metrics.jsonl") as file:
        wanted = [json.loads(line) for line in file]
    assert {name for name, _, _ in rows} == {"run"}
    assert [step for _, step, _ in rows] == [row["step"] for row in wanted]
    for (_, _, found), row in zip(rows, wanted, strict=True):
        assert json.loads(found)[f"{row['split']}/loss"] == pytest.approx(row["loss"])


def test_a_callback_that_fails_at_the_end_keeps_no_other_from_its_end(tmp_path):
    class Fails(Callback):
        def on_end(self, status):
            raise OSError("the tracker's server is gone")

    notes = Notes()
    with pytest.raises(OSError, match="server is gone"):
        train(config(), str(tmp_path), callbacks=[Fails(), notes])
    assert notes.told[-1] == ("end", "done") and manifests.steps(str(tmp_path)) == [10, 20]
