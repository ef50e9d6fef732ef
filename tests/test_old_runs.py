"""Folders that earlier versions wrote load, resume and evaluate.

8bd8ef6: python -m launch.train --config=variational --config.model.latent_dim=4
    --config.model.coder.hidden=16 --config.optimizer.ema=0.9 --config.duration=40
    --config.log_every=20 --config.evaluation.every=20 --config.checkpoint.every=20
    --config.compilation_cache= --config.tensorboard=False
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import aejax
from aejax.data.sources import open_source
from aejax.evaluation import checkpoints
from aejax.runs import folder, manifests
from tests.training.runs import train

OLD = Path(__file__).parent / "old_runs"


@pytest.fixture(params=sorted(path.name for path in OLD.iterdir()))
def old(request, tmp_path):
    """A copy of a run's folder, and the numbers of its last evaluation."""
    shutil.copytree(OLD / request.param, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    return str(tmp_path / "run"), rows[-1]


def test_it_loads_and_gives_the_numbers_that_it_gave(old):
    workdir, last = old
    model = aejax.load(workdir)
    assert model.step == 40 and model.averaged and "variational" in repr(model)
    rows = open_source("digits", "test")[:]
    assert model.encode(rows.x).shape == (len(rows.x), 4)
    assert model.score(rows.x).mean() == pytest.approx(last["mse"], rel=1e-5)
    request = checkpoints.check_request(workdir, ["reconstruction"])
    checkpoints.evaluate_request(request, "latest", lambda line: None)
    found = json.loads((Path(workdir) / "evaluation.json").read_text())
    assert json.dumps(found).count('"reconstruction"')


def test_it_goes_on_as_one_run_that_was_never_old(old, tmp_path):
    workdir, last = old
    config = folder.read(workdir).config
    assert config.trackers == ()
    config.duration = "60 steps"
    outcome = train(config, workdir)
    assert outcome.status == "done" and manifests.steps(workdir)[-1] == 60
    whole = train(config, tmp_path / "whole")
    history, fresh = outcome.history, whole.history
    np.testing.assert_array_equal(history["step"], fresh["step"])
    np.testing.assert_allclose(history["loss"], fresh["loss"], rtol=1e-5)
    assert last["loss"] == history["loss"][-3]


def test_another_setting_is_refused(old):
    config = folder.read(old[0]).config
    config.model.bottleneck.beta = 50.0
    with pytest.raises(aejax.InputError, match=r"config.model.bottleneck.beta: 1.0 -> 50.0"):
        train(config, old[0])
