"""Missing values: masked in the loss, whatever stands in their place, on any feed and devices."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

import aejax
from aejax.config import Data, Prepare
from aejax.data.sources.base import Arrays
from aejax.evaluation import reconstruction
from aejax.evaluation.rows import rescaled
from aejax.models import Autoencoder
from aejax.models.batch import Batch
from aejax.models.coders import Dense, Recurrent, Transformer
from aejax.models.likelihood import Gaussian
from aejax.optimizer import Adam
from tests.training.runs import train

from .runs import small

ROWS, SHAPE = 60, (4, 3)
STANDARD = Prepare(scale=False, centre="standardise")


def holed(scale: float = 3.0) -> Arrays:
    draw = np.random.RandomState(0)
    x = (scale * draw.standard_normal((ROWS, *SHAPE)) + 7).astype(np.float32)
    x[draw.rand(*x.shape) < 0.2] = np.nan
    return Arrays(x, None, None, missing=True)


def config(coder=None, **changes):
    model = Autoencoder(coder=coder or Dense(hidden=(8,)), latent_dim=4, likelihood=Gaussian())
    data = Data(prepare=STANDARD)
    return small(model=model, data=data, duration="10 steps", batch_size=20, **changes)


def rows_of(workdir):
    with open(workdir / "metrics.jsonl") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("missing")
    train(config(), str(workdir), (holed(), holed()), quiet=True, devices=jax.devices()[:1])
    return workdir


def test_reported_terms_are_those_of_what_is_there(run):
    source, model = holed(), aejax.load(str(run))
    real = ~np.isnan(source.x)
    mean, deviation = np.nanmean(source.x, axis=0), np.nanstd(source.x, axis=0)
    x = np.where(real, (np.float64(source.x) - mean) / deviation, 0)
    np.testing.assert_allclose(model.prepare(source.x), x, atol=1e-5)
    made = (model.reconstruct(source.x) - mean) / deviation
    square = np.where(real, np.square(x - made), 0)
    nll = (square + real * 0.5 * np.log(np.pi)).sum() / ROWS
    last = rows_of(run)[-1]
    assert last["split"] == "test"
    assert last["mse"] == pytest.approx(square.sum() / real.sum(), rel=1e-4)
    assert last["nll"] == pytest.approx(nll, rel=1e-4)
    # in units of the data, where each element has its own
    square = np.where(real, np.square(source.x - model.reconstruct(source.x)), 0)
    numbers = reconstruction.task(model, source).numbers
    assert numbers["mse"].value == pytest.approx(square.sum() / real.sum(), rel=1e-4)


def test_training_leaves_out_what_evaluation_leaves_out(tmp_path):
    """An epoch without learning has the loss of the same rows in evaluation."""
    still = dataclasses.replace(
        config(optimizer=Adam(learning_rate=0.0), log_every=3), duration="3 steps"
    )
    train(still, str(tmp_path), (holed(), holed()), quiet=True, devices=jax.devices()[:1])
    trained, evaluated = rows_of(tmp_path)
    assert (trained["split"], evaluated["split"]) == ("train", "test")
    assert trained["nll"] == pytest.approx(evaluated["nll"], rel=1e-5)


def test_another_feed_and_style_gives_the_same(tmp_path, run):
    settings = config(micro_batches=5, parallel="pmap")
    settings.data.feed = "streaming"
    train(settings, str(tmp_path), (holed(), holed()), quiet=True, devices=jax.devices()[:2])
    for row, other in zip(rows_of(run), rows_of(tmp_path), strict=True):
        for name in {"loss", "nll", "mse"} & row.keys():
            assert row[name] == pytest.approx(other[name], rel=1e-5)


@pytest.mark.parametrize(
    "coder",
    [
        Dense(hidden=(8,)),
        Recurrent(hidden=(8,)),
        Transformer(width=8, heads=2, feed_forward=8, encoder_layout="af", decoder_layout="af"),
    ],
    ids=["dense", "recurrent", "transformer"],
)
def test_what_stands_in_a_missing_element_never_matters(coder):
    @jax.jit
    def loss(x, real):
        return config(coder).model.init(nnx.Rngs(0), Batch(x)).loss(Batch(x, real))[0]

    real = ~np.isnan(holed().x)
    found = [loss(np.where(real, holed().x, np.float32(value)), real) for value in (0.0, 1e6)]
    assert np.asarray(found[0]).tobytes() == np.asarray(found[1]).tobytes()


def test_a_model_of_whole_rows_takes_rows_in_which_values_are_missing(run):
    model = aejax.load(str(run))
    source, spec = holed(), dataclasses.replace(model.run.spec, missing=False)
    whole = dataclasses.replace(
        model,
        run=dataclasses.replace(model.run, spec=spec),
        preparation=dataclasses.replace(model.preparation, spec=spec),
    )
    z = rescaled(whole, source.spec).encode(source.x)
    assert np.isfinite(z).all() and z.tobytes() == model.encode(source.x).tobytes()
