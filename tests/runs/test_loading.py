"""Models from the folder of a run that goes on, and paths that cannot be read."""

import os
import shutil

import numpy as np
import pytest

import aejax
from aejax.config import Checkpoint, Evaluation
from aejax.runs import checkpoint, manifests
from tests.training.runs import small, train


@pytest.fixture
def run(tmp_path) -> str:
    """A run of 20 steps with checkpoints of steps 10 and 20."""
    place = str(tmp_path / "run")
    config = small(
        duration="20 steps",
        evaluation=Evaluation(every="10 steps"),
        checkpoint=Checkpoint(every="10 steps", keep=5),
    )
    train(config, place)
    return place


def _remove(run: str, step: int) -> None:
    """As a run removes what `keep` does not hold."""
    root = manifests.step_folder(run, step)
    os.remove(root + ".json")
    shutil.rmtree(root)


@pytest.mark.parametrize("when", ["before it is verified", "before it is read"])
def test_where_a_run_removes_the_newest_step_another_is_loaded(run, monkeypatch, when):
    part = (manifests, "verify") if when == "before it is verified" else (checkpoint, "load")
    original = getattr(*part)

    def removed(workdir, step, *others, **options):
        if step == 20:
            _remove(run, 20)
        return original(workdir, step, *others, **options)

    monkeypatch.setattr(*part, removed)
    said = []
    model = aejax.load(run, say=said.append)
    assert (model.step, said) == (10, [])
    assert np.isfinite(model.encode(np.zeros((1, 8, 8, 1), np.uint8))).all()


@pytest.mark.parametrize("when", ["before it is verified", "before it is read"])
def test_a_step_that_was_asked_for_and_is_removed_is_one_line(run, monkeypatch, when):
    part = (manifests, "verify") if when == "before it is verified" else (checkpoint, "load")
    original = getattr(*part)

    def removed(workdir, step, *others, **options):
        _remove(run, 20)
        return original(workdir, step, *others, **options)

    monkeypatch.setattr(*part, removed)
    with pytest.raises(aejax.InputError, match="--step=20: (the run in .* has removed|must be)"):
        aejax.load(run, step=20)


def test_a_path_with_a_backslash_is_refused(run, tmp_path):
    with pytest.raises(aejax.InputError, match=r"w\\b has a backslash; must have none"):
        train(small(), tmp_path / "w\\b")
    assert not (tmp_path / "w\\b").exists()
    os.rename(run, tmp_path / "w\\b")
    with pytest.raises(aejax.InputError, match=r"w\\b has a backslash; must have none"):
        aejax.load(str(tmp_path / "w\\b"))
