"""The linear autoencoder is PCA, and the task that says so measures it right."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from aejax.errors import InputError
from aejax.evaluation import TASKS
from aejax.runs.loading import load
from configs import dense, linear
from tests.training.runs import train


@pytest.fixture(scope="module")
def linear_run(tmp_path_factory) -> str:
    workdir = str(tmp_path_factory.mktemp("linear"))
    config = linear.get_config()
    config.trackers = ()
    # 1437 rows do not divide over the 8 devices of the tests.
    import jax

    train(config, workdir, quiet=True, devices=jax.devices()[:1])
    return workdir


def test_the_linear_autoencoder_is_pca(linear_run):
    from aejax.data.sources import open_source

    model = load(linear_run)
    test = open_source("digits", "test")
    numbers = {name: n.value for name, n in TASKS["pca"].run(model, test).numbers.items()}
    assert abs(numbers["train_gap"]) < 1e-6
    assert numbers["angle"] < 1e-4
    assert abs(numbers["test_gap"]) < 1e-6
    # The same by hand: PCA from the singular vectors of the centred digits.
    digits = open_source("digits", "train")[:].x.reshape(1437, 64) / 16
    mean = digits.mean(0)
    axes = np.linalg.svd(digits - mean, full_matrices=False)[2][:8].T
    kept = (digits - mean) @ axes @ axes.T + mean
    assert numbers["train_pca_mse"] == pytest.approx(np.square(kept - digits).mean(), rel=1e-6)
    decoder = np.asarray(model.module.decoder.layers[0].kernel[...])
    assert numbers["angle"] == pytest.approx(subspace_angles(decoder.T, axes).max(), abs=1e-6)


def test_a_model_that_is_not_linear_is_refused(tmp_path):
    from aejax.data.sources import open_source

    config = dense.get_config()
    config.duration, config.trackers = "5 steps", ()
    train(config, str(tmp_path), quiet=True)
    with pytest.raises(InputError, match="the model is not linear"):
        TASKS["pca"].run(load(str(tmp_path)), open_source("digits", "test"))
