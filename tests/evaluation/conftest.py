"""A trained run, once for all tests of this folder, and small models that need no training."""

import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from flax import nnx

from aejax.config import Config, Data, Prepare
from aejax.data.prepare import Preparation, statistics
from aejax.data.sources import open_source
from aejax.data.sources.base import Source
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.runs.folder import Run
from aejax.runs.loading import Model
from aejax.training.setup import abstract_batch
from configs.dense import get_config
from tests.training.runs import train


class Linear(NamedTuple):
    """A linear autoencoder's matrices in float64, to compute anew what a task has computed."""

    into: np.ndarray
    into_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray

    def encode(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1).astype(np.float64) @ self.into + self.into_bias

    def decode(self, z: np.ndarray) -> np.ndarray:
        return z @ self.out + self.out_bias


class Made(NamedTuple):
    """An untrained linear autoencoder, the test split that goes with it, and its matrices."""

    model: Model
    test: Source
    train: Source
    linear: Linear


def matrices(module) -> Linear:
    (into,), (out,) = module.encoder.layers, module.decoder.layers
    parts = (into.kernel, into.bias, out.kernel, out.bias)
    return Linear(*(np.asarray(part[...], np.float64) for part in parts))


@pytest.fixture
def make(tmp_path) -> Callable[..., Made]:
    """Builds a linear autoencoder with random biases, for a source or for x_train, x_test, ..."""

    def made(
        latent_dim=3,
        likelihood=None,
        prepare=None,
        weight=1.0,
        bottleneck=None,
        source="",
        **arrays,
    ) -> Made:
        if not source:
            np.savez(tmp_path / "rows.npz", **arrays)
            source = f"npz:{tmp_path}/rows.npz"
        prepare, likelihood = prepare or Prepare(), likelihood or Bernoulli()
        bottleneck = bottleneck or Plain("linear")
        model = Autoencoder(Dense(()), latent_dim, bottleneck, likelihood)
        config = Config(model=model, data=Data(source=source, prepare=prepare))
        learned, test = (open_source(source, split) for split in ("train", "test"))
        module = model.init(nnx.Rngs(0), abstract_batch(config, learned.spec))
        random = np.random.RandomState(1)
        for layer in (*module.encoder.layers, *module.decoder.layers):
            layer.bias[...] = random.randn(*layer.bias.shape).astype(np.float32)
        out = module.decoder.layers[0].kernel
        out[...] = out[...] * weight
        found = statistics(prepare, learned)
        run = Run(config, learned.spec, found, len(learned))
        ready = Model(run, 0, False, module, Preparation(prepare, learned.spec, found))
        return Made(ready, test, learned, matrices(module))

    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> pathlib.Path:
    """A complete run of 20 steps on the digits, with EMA and the steps 10 and 20. Do not change."""
    path = tmp_path_factory.mktemp("trained") / "run"
    config = get_config()
    config.duration, config.trackers, config.optimizer.ema = "20 steps", (), 0.9
    config.evaluation.every = "50%"
    train(config, str(path), quiet=True)
    return path


@pytest.fixture
def folder(trained, tmp_path) -> pathlib.Path:
    """A copy of that run, to be written to."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
