"""A run's folder goes on with the same model on the same data, or not at all."""

import dataclasses
import functools
import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import aejax
from aejax.config import Config, Evaluation
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.evaluation.rows import choose_rows
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Variational
from aejax.models.likelihood import Gaussian
from aejax.runs import checkpoint, folder, manifests
from aejax.training.setup import setup
from aejax.training.trainer import Trainer
from tests.training.runs import small, train

ROWS = np.random.RandomState(0).rand(40, 6).astype(np.float32)


def config(**changes) -> Config:
    model = Autoencoder(latent_dim=3, bottleneck=Variational())
    settings = {"model": model, "batch_size": 8, "duration": "4 steps"}
    return small(**{**settings, "evaluation": Evaluation(every="2 steps"), **changes})


def npz(path: Path, scale: float = 1.0, rows: int = 40) -> str:
    np.savez(path, x=scale * ROWS[:rows])
    return f"npz:{path}"


def on(source: str, **changes) -> Config:
    one = config(**changes)
    return dataclasses.replace(one, data=dataclasses.replace(one.data, source=source))


def contents(workdir: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    """A run of 4 steps on an npz, and the npz."""
    place = tmp_path_factory.mktemp("same")
    source = npz(place / "rows.npz")
    train(on(source), place / "run")
    return place / "run", source


@pytest.mark.parametrize("duration", ["4 steps", "8 steps"])  # complete, and to be gone on with
@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            Autoencoder(latent_dim=3, bottleneck=Variational(beta=50.0), likelihood=Gaussian()),
            r"config.model.bottleneck.beta: 1.0 -> 50.0;.*config.model.likelihood: 'bernoulli' ->"
            " 'gaussian'",
        ),
        (
            Autoencoder(latent_dim=2, bottleneck=Variational()),
            "config.model.latent_dim: 3 -> 2",
        ),
    ],
)
def test_the_model_of_a_run_cannot_be_changed(run, model, duration, said):
    workdir, source = run
    before = contents(workdir)
    with pytest.raises(InputError, match=said):
        train(on(source, model=model, duration=duration), workdir)
    assert contents(workdir) == before


def test_a_start_that_fails_leaves_config_json_as_it_was(tmp_path, monkeypatch):
    train(on(npz(tmp_path / "a.npz")), tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()

    def fails(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(checkpoint, "load", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        train(on(npz(tmp_path / "a.npz"), duration="8 steps"), tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_other_values_in_the_same_file_are_refused_or_accepted_by_name(tmp_path):
    workdir = tmp_path / "run"
    train(on(npz(tmp_path / "a.npz")), workdir)
    before = contents(workdir)
    statistics = folder.read(str(workdir)).statistics
    longer = on(npz(tmp_path / "a.npz", scale=0.5), duration="8 steps")
    with pytest.raises(InputError, match="--accept_changed_data") as error:
        train(longer, workdir)
    text = str(error.value)
    assert "config.data.train=train and config.data.test=test" in text and "\n" not in text
    assert contents(workdir) == before
    assert train(longer, workdir, accept_changed_data=True).step == 8
    after = folder.read(str(workdir))
    assert after.statistics == statistics and after.config.duration == "8 steps"
    assert train(longer, workdir).status == "complete"  # from now on these are its data


def test_an_evaluation_refuses_data_that_changed_under_the_run(tmp_path):
    train(on(npz(tmp_path / "a.npz")), tmp_path / "run")
    run = folder.read(str(tmp_path / "run"))
    assert len(choose_rows(run).source) == 4
    source = npz(tmp_path / "a.npz", scale=100.0)
    with pytest.raises(InputError, match="no longer those .* --source=npz:.* takes them"):
        choose_rows(run)
    assert len(choose_rows(run, source, "test").source) == 4


def test_rows_from_python_may_be_plain_arrays(tmp_path):
    x = (255 * ROWS).astype(np.uint8)
    assert train(config(), tmp_path, sources=(x[:32], x[32:])).status == "done"
    assert folder.read(str(tmp_path)).spec.maximum == 255


def test_fewer_rows_are_refused_and_other_shapes_always(tmp_path):
    workdir = tmp_path / "run"
    train(on(npz(tmp_path / "a.npz")), workdir)
    with pytest.raises(InputError, match=r"\(36 in training then, 27 now\)"):
        train(on(npz(tmp_path / "a.npz", rows=30)), workdir)
    np.savez(tmp_path / "a.npz", x=ROWS[:, :5])
    with pytest.raises(InputError, match="trained on rows of shape 6, float32; .* shape 5"):
        train(on(f"npz:{tmp_path / 'a.npz'}"), workdir, accept_changed_data=True)


def test_data_may_be_moved(run, tmp_path):
    workdir, _ = run
    moved = npz(tmp_path / "moved.npz")
    assert train(on(moved), workdir).status == "complete"


def test_own_arrays_are_recorded_as_arrays_and_never_opened_as_something_else(tmp_path):
    sources = Arrays(ROWS[:32], None, None), Arrays(ROWS[32:], None, None)
    train(config(), tmp_path, sources=sources)
    run = folder.read(str(tmp_path))
    assert run.config.data.source == "arrays"
    with pytest.raises(InputError, match="given its rows by a program.*--source=npz:FILE"):
        choose_rows(run)
    with pytest.raises(InputError, match="given its rows by a program"):
        train(run.config, tmp_path)
    assert train(config(), tmp_path, sources=sources).status == "complete"
    with pytest.raises(InputError, match="config.data.test=test in config.data.source=arrays"):
        train(config(), tmp_path, sources=(sources[0], Arrays(ROWS[31:39], None, None)))


def test_a_folder_without_fingerprints_goes_on_with_a_source_of_the_same_name(tmp_path):
    source = npz(tmp_path / "a.npz")
    train(on(source), tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    data = json.loads(file.read_text())
    del data["data"]["fingerprints"]
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"\(it was npz:.*a.npz\)"):
        train(on(npz(tmp_path / "b.npz")), tmp_path / "run")
    assert train(on(source, duration="6 steps"), tmp_path / "run").status == "done"
    assert set(folder.read(str(tmp_path / "run")).fingerprints) == {"train", "test"}


def test_a_public_name_is_the_same_thing_before_and_after_its_first_use():
    first = aejax.Trainer
    importlib.import_module("aejax.training.trainer")
    assert callable(first) and aejax.Trainer is first


@pytest.mark.parametrize("labelled", ["train", "test"])
def test_labels_may_be_missing_in_one_split(tmp_path, labelled):
    label = np.arange(40, dtype=np.int32)
    parts = (("train", slice(0, 32)), ("test", slice(32, 40)))
    sources = tuple(
        Arrays(ROWS[rows], label[rows] if name == labelled else None, None) for name, rows in parts
    )
    assert train(config(), tmp_path, sources=sources).status == "done"


def test_a_test_row_beyond_all_bounds_does_not_end_the_training(tmp_path, capsys):
    wild = ROWS[32:].copy()
    wild[3, 0] = 1e25
    sources = Arrays(ROWS[:32], None, None), Arrays(wild, None, None)
    outcome = train(config(), tmp_path, sources=sources, quiet=False)
    assert outcome.status == "done" and outcome.best is None
    assert manifests.steps(str(tmp_path)) == [4]
    said = capsys.readouterr().err
    where = "because of the test split's row 3, element 0: 1e+25"
    assert f"the evaluation at step 2 is not finite {where}" in said
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows if row["split"] == "test"] == [None, None]
    clean = tmp_path / "clean"
    train(config(), clean, sources=(sources[0], Arrays(ROWS[32:], None, None)))
    shapes = manifests.shapes(str(clean), 4, "params")
    one, other = (checkpoint.load(str(at), 4, {"params": shapes}) for at in (tmp_path, clean))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_value_that_leaves_nothing_of_the_range_is_told_at_the_start(tmp_path, capsys):
    wild = ROWS[:32].copy()
    wild[7, 1] = 1e30
    sources = Arrays(wild, None, None), Arrays(ROWS[32:], None, None)
    train(config(), tmp_path, sources=sources, quiet=False)
    assert (
        "hardly anything is left of the training split: row 7, element 1: 1e+30"
        in (capsys.readouterr().err.splitlines()[1])
    )


def test_those_who_set_a_run_up_name_its_data(tmp_path):
    """A stage of a search or of pre-training says itself what its rows are."""
    sources = Arrays(ROWS[:32], None, None), Arrays(ROWS[32:], None, None)
    make = functools.partial(
        setup, on("digits"), sources, str(tmp_path), False, jax.devices()[:1], None, False
    )
    Trainer.with_setup(make, str(tmp_path)).fit(quiet=True)
    assert folder.read(str(tmp_path)).config.data.source == "digits"
