"""Sweeps: what a cell trains, what is never trained twice, and what is refused."""

import csv
import dataclasses
import json
import shutil
import threading

import jax
import numpy as np
import pytest

import aejax
from aejax import cluster
from aejax.config import Evaluation
from aejax.data.fingerprint import fingerprint
from aejax.data.sources import Arrays, open_source
from aejax.data.sources.labels import keep_labels
from aejax.errors import InputError
from aejax.evaluation.principal import fit
from aejax.models import Classifier
from aejax.models.coders import Dense
from aejax.optimizer import Sgd
from aejax.pretrain import Greedy
from aejax.runs import claims, folder, manifests
from aejax.sweeps import report
from aejax.sweeps.cells import cells, with_values
from aejax.sweeps.run import SweepFolder, run_cells
from aejax.training.trainer import Trainer
from tests.pretrain.test_greedy import stacked
from tests.training.processes import assert_same_bits
from tests.training.runs import small, train

GRID = {"model.latent_dim": [4, 2], "seed": [0, 1]}


def sweep(*arguments, **options):
    return aejax.sweep(*arguments, quiet=True, devices=jax.devices()[:1], **options)


def rows_with(rows, label):
    return keep_labels(rows, (label,), "train")


def config(**changes):
    return small(**{"duration": "12 steps", "log_every": 6, **changes})


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep that has ended, and what it gave. Do not change."""
    path = tmp_path_factory.mktemp("swept")
    return path, sweep(config(), GRID, str(path))


def fits(monkeypatch) -> list[str]:
    """Names of the folders that something trains in from now on."""
    folders, fit_run = [], Trainer.fit

    def counted(self, *arguments, **options):
        folders.append(self.folder.rpartition("/")[2])
        return fit_run(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "fit", counted)
    return folders


def test_a_cell_is_the_run_that_it_would_be_alone(swept, tmp_path):
    path, found = swept
    alone = config(seed=1)
    alone.model = dataclasses.replace(alone.model, latent_dim=2)
    outcome = train(alone, tmp_path)
    assert_same_bits(path / "runs" / "latent_dim=2,seed=1", tmp_path, 12)
    (cell,) = (one for one in found["cells"] if one["name"] == "latent_dim=2,seed=1")
    assert cell["settings"] == {"model.latent_dim": 2, "seed": 1}
    assert cell["status"] == "done" and cell["metrics"] == outcome.metrics
    record = aejax.evaluate(str(tmp_path), ["reconstruction"], say=lambda line: None)
    assert cell["numbers"] == record["tasks"]


def test_the_table_has_means_and_deviations_over_seeds(swept):
    path, found = swept
    values = [one["numbers"]["reconstruction"]["mse"] for one in found["cells"]]
    by_size = {4: (values[0], values[2]), 2: (values[1], values[3])}
    head, *rows = report.table(found)
    assert head[:4] == ["latent_dim", "runs", "bce", "mse"]
    for row, (size, pair) in zip(rows, by_size.items(), strict=True):
        mean, deviation = np.mean(pair), np.std(pair, ddof=1)
        assert row[:2] == [str(size), "2"] and row[3] == f"{mean:.5g} ± {deviation:.2g}"
    page = (path / "report.html").read_text()
    assert all(cell in page for row in rows for cell in row)
    assert {one.stem for one in (path / "figures").iterdir()} == {
        *(f"sweep_{name}" for name in head[2:]),
        "learning",
        "reconstructions",
    }
    assert json.loads((path / "sweep.json").read_text()) == found


def test_a_classifiers_error_has_one_unit_with_and_without_tasks(tmp_path, monkeypatch):
    lines, each = [], config(model=Classifier(Dense(()), 16), duration="6 steps")
    monkeypatch.setattr(SweepFolder, "say", lambda self, line: lines.append(line))
    cells_of, tables = {}, {}
    for tasks in ((), ("classify",)):
        found = sweep(each, {"seed": [0]}, str(tmp_path / f"{len(tasks)}"), tasks=tasks)
        (cells_of[tasks],), tables[tasks] = found["cells"], report.table(found)
    share = cells_of[()]["metrics"]["error"]  # as metrics.jsonl has it
    words = f"{100 * share:.5g}"
    for head, row in tables.values():
        assert dict(zip(head, row, strict=True))["error in %"] == words
    assert sum(f"error {words} %" in line for line in lines) == 2


def test_pcas_curve_is_pca_of_the_training_split(swept):
    _, found = swept
    rows = [open_source("digits", split).x.reshape(-1, 64) / 16 for split in ("train", "test")]
    for one in found["cells"]:
        components = fit([rows[0]], one["settings"]["model.latent_dim"])
        error = np.square(rows[1] - components.reconstruct(rows[1])).mean()
        assert one["numbers"]["reconstruction"]["pca_mse"] == pytest.approx(error, rel=1e-5)


def test_learning_curves_are_means_of_the_rows_of_metrics_jsonl(swept):
    path, found = swept
    rows = list(csv.DictReader((path / "curves.csv").read_text().splitlines()))
    expected = []
    for split, steps in (("train", (6, 12)), ("test", (12,))):
        for size in (4, 2):
            runs = [path / "runs" / f"latent_dim={size},seed={seed}" for seed in (0, 1)]
            for step in steps:
                pair = [value_in(run, split, step) for run in runs]
                row = (np.mean(pair), min(pair), max(pair))
                expected.append((str(size), split, str(64 * step), *row))
    names = ("model.latent_dim", "split", "examples", "mean", "low", "high")
    assert [tuple(row[name] for name in names[:3]) for row in rows] == [e[:3] for e in expected]
    given = [[float(row[name]) for name in names[3:]] for row in rows]
    assert np.allclose(given, [row[3:] for row in expected], rtol=1e-12)
    assert {row["seeds"] for row in rows} == {"2"} and found["curve"] == "loss"
    assert "bands are of two seeds from the least" in (path / "report.html").read_text()


def value_in(run, split, step):
    """The loss of a row."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (row,) = (each for each in rows if (each["split"], each["step"]) == (split, step))
    return row["loss"]


def test_another_curve_of_a_sweep_that_has_ended_trains_nothing(swept, monkeypatch, tmp_path):
    path = tmp_path / "swept"
    shutil.copytree(swept[0], path)
    trained = fits(monkeypatch)
    assert sweep(config(), GRID, str(path), curve="mse")["curve"] == "mse"
    before = (path / "curves.csv").read_text()
    with pytest.raises(InputError, match="--curve=mes: no run reports it; must be one of loss, "):
        sweep(config(), GRID, str(path), curve="mes")
    assert (path / "curves.csv").read_text() == before and not trained


def test_seconds_of_each_stage_are_those_of_its_ledger(tmp_path):
    found = sweep(
        stacked(duration="4 steps", log_every=4, evaluation=Evaluation(every="")),
        {
            ("pretrain", "model.coder.activation"): [
                (Greedy("4 steps"), "sigmoid"),
                (None, "relu"),
            ]
        },
        str(tmp_path),
        tasks=(),
    )
    assert [one["name"] for one in found["cells"]] == [
        "pretrain=Greedy,activation=sigmoid",
        "pretrain=None,activation=relu",
    ]
    for one, names in zip(found["cells"], (["stage1", "stage2", "run"], ["run"]), strict=True):
        assert [*one["stages"]] == names
        for name in names:
            place = tmp_path / "runs" / one["name"] / ("" if name == "run" else name)
            manifest = json.loads((place / "checkpoints" / "000000004.json").read_text())
            seconds = sum(manifest["progress"]["ledger"]["seconds"].values())
            assert one["stages"][name] == pytest.approx(seconds, abs=1e-3) and seconds > 0
    head, first, second = report.stage_table(found)
    assert head == ["pretrain", "activation", "runs", "stage1", "stage2", "run", "total"]
    total = sum(found["cells"][0]["stages"].values())
    assert float(first[-1]) == pytest.approx(total, abs=0.01) and second[3:5] == ["-", "-"]
    assert "Seconds of each stage" in (tmp_path / "report.html").read_text()


def test_a_sweep_that_has_ended_trains_nothing(swept, monkeypatch):
    path, found = swept
    trained = fits(monkeypatch)
    assert sweep(config(), GRID, str(path)) == found
    assert not trained


def test_stopped_half_way_it_trains_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("aejax.cluster.cores", lambda: 1)
    cells_ = tmp_path / "cells"

    def stop():
        return cells_.exists() and len(list(cells_.iterdir())) >= 2

    with pytest.raises(cluster.Stopped):
        sweep(config(), GRID, str(tmp_path), tasks=(), stop=stop)
    before = {one: one.stat().st_mtime_ns for one in cells_.iterdir()}
    assert len(before) == 2 and not (tmp_path / "sweep.json").exists()
    trained = fits(monkeypatch)
    found = sweep(config(), GRID, str(tmp_path), tasks=())
    assert trained == ["latent_dim=4,seed=1", "latent_dim=2,seed=1"]
    assert before == {one: one.stat().st_mtime_ns for one in before}
    assert len(found["cells"]) == 4 and report.table(found)[0][2:] == ["loss", "mse", "nll"]


def test_each_cell_may_be_a_job_of_an_array(tmp_path):
    each = cells({"seed": [0, 1]}, lambda values: with_values(config(), values))
    for index in (1, 0):
        job = SweepFolder(str(tmp_path), (), quiet=True, devices=jax.devices()[:1])
        found = run_cells(job, each, index)
        assert manifests.steps(str(tmp_path / "runs" / f"seed={index}"))
        assert (found is None) == (index == 1)
    with pytest.raises(InputError, match="--index=2: must be from 0 to 1, of 2 runs"):
        run_cells(job, each, 2)


def test_a_cell_that_another_process_has_is_left_to_it_or_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    each = cells({"seed": [0, 1]}, lambda values: with_values(config(), values))
    job = SweepFolder(str(tmp_path), (), devices=jax.devices()[:1])
    own = claims.claim(job.claim("seed=0"))
    assert own
    with pytest.raises(InputError, match="--index=0: another process is training seed=0"):
        run_cells(job, each, 0)
    assert run_cells(job, each, leave=True) is None
    said = "1 of 2 runs are being trained by other workers; the last of them reports"
    assert said in capsys.readouterr().err
    assert [one.name for one in (tmp_path / "cells").iterdir()] == ["seed=1.json"]
    trained = fits(monkeypatch)
    threading.Timer(0.3, own.close).start()  # it dies: the cell is taken over
    found = sweep(config(), {"seed": [0, 1]}, str(tmp_path), tasks=())
    assert len(found["cells"]) == 2 and trained == ["seed=0"]


def test_rows_from_python_train_and_are_evaluated(tmp_path):
    rows = np.random.RandomState(0).rand(300, 5).astype(np.float32)
    rows[:2] = [[0], [1]]  # the range that is scaled to [0, 1]
    found = sweep(config(), {"seed": [0, 1]}, str(tmp_path), rows[:250], rows[250:])
    for one in found["cells"]:
        model = aejax.load(str(tmp_path / "runs" / one["name"]))
        error = np.square(model.reconstruct(rows[250:]) - rows[250:]).mean()
        assert one["numbers"]["reconstruction"]["mse"] == pytest.approx(error, rel=1e-5)
    with pytest.raises(InputError, match="other rows|not those"):
        sweep(config(), {"seed": [0, 1]}, str(tmp_path), rows[:240], rows[250:])


def test_labels_of_rows_from_python_are_each_cells_own(tmp_path):
    x = np.random.RandomState(0).rand(60, 4).astype(np.float32)
    label = np.repeat([3, 5], 30).astype(np.int32)
    rows = Arrays(x, label, None)
    grid = {"data.keep_labels": [(3,), (5,)]}
    sweep(config(batch_size=10), grid, str(tmp_path), rows, rows, tasks=())
    for which in (3, 5):
        run = folder.read(str(tmp_path / "runs" / f"keep_labels={which}"))
        assert run.rows == 30 and run.config.data.keep_labels == (which,)
        assert run.fingerprints["train"] == fingerprint(rows_with(rows, which))


def test_a_run_that_diverges_is_told_and_the_others_go_on(tmp_path):
    found = sweep(
        config(optimizer=Sgd(learning_rate=1e-3)),
        {"optimizer.learning_rate": [1e30, 1e-3]},
        str(tmp_path),
        tasks=(),
    )
    assert [one["status"] for one in found["cells"]] == ["diverged", "done"]
    assert report.notes(found)[1] == "the loss of learning_rate=1e+30 became no number: left out"
    assert report.table(found)[1][1:3] == ["0 of 1", "-"]


def test_what_is_wrong_with_one_cell_is_told_before_any_is_trained(tmp_path, monkeypatch):
    trained = fits(monkeypatch)
    for grid, tasks, said in (
        ({"batch_size": [64, 100_000]}, (), "config.batch_size=100000"),
        ({"seed": [0]}, ("reconstructoin",), "no task 'reconstructoin'"),
        ({"seed": [0]}, ("likelihood",), "--tasks=likelihood"),
    ):
        with pytest.raises(InputError, match=said):
            sweep(config(), grid, str(tmp_path), tasks=tasks)
    with pytest.raises(InputError, match="--curve=kl: no run reports it; must be one of loss, mse"):
        sweep(config(), {"seed": [0]}, str(tmp_path), curve="kl")
    assert not trained and not (tmp_path / "runs").exists()


def files_of(path) -> dict:
    return {one: one.read_bytes() for one in path.rglob("*") if one.is_file()}


@pytest.mark.parametrize(
    ("grid", "changes", "said"),
    [
        ({"seed": [2]}, {}, "holds a sweep with other runs (seed=0, seed=1)"),
        ({"seed": [0, 2]}, {}, "holds a sweep with other runs (seed=1)"),
        ({"seed": [0, 1], "model.latent_dim": [4]}, {}, "other runs (seed=0, seed=1)"),
        ({"seed": [2, 0, 1]}, {"batch_size": 32}, "config.batch_size: 64 -> 32"),
        ({"seed": [2, 0, 1]}, {"duration": "7 steps"}, "more than config.duration=7 steps has"),
    ],
)
@pytest.mark.parametrize("kept", [True, False], ids=["with runs", "without runs"])
def test_another_grid_in_a_folder_is_refused_and_changes_nothing(
    pair, tmp_path, monkeypatch, grid, changes, said, kept
):
    path = tmp_path / "pair"
    shutil.copytree(pair, path)
    if not kept:  # to save room
        shutil.rmtree(path / "runs")
    before, trained = files_of(path), fits(monkeypatch)
    with pytest.raises(InputError) as error:
        sweep(config(**changes), grid, str(path), tasks=())
    assert said in str(error.value) and not trained and files_of(path) == before


def test_a_grid_that_has_all_runs_of_a_folder_and_more_goes_on(pair, tmp_path, monkeypatch):
    path = tmp_path / "pair"
    shutil.copytree(pair, path)
    before, trained = files_of(path / "cells"), fits(monkeypatch)
    found = sweep(config(), {"seed": [2, 1, 0]}, str(path), tasks=())
    assert trained == ["seed=2"] and len(found["cells"]) == 3
    assert before.items() <= files_of(path / "cells").items()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder of a sweep over two seeds that has ended. Do not change."""
    path = tmp_path_factory.mktemp("pair")
    sweep(config(), {"seed": [0, 1]}, str(path), tasks=())
    return path
