"""An evaluation shares the rows of recurrent models among the devices, with the same metrics."""

import jax
import numpy as np
import pytest
from flax import nnx

from aejax.config import Config, Evaluation, Mesh
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Arrays
from aejax.mesh import all_rows, replicated_over
from aejax.models import Autoencoder, Classifier
from aejax.models.bottlenecks import Plain, Variational
from aejax.models.coders import Recurrent
from aejax.models.likelihood import Gaussian
from aejax.models.penalties import Activity
from aejax.runs.loading import Model, abstract_batch
from aejax.training.setup import setup
from tests.training.runs import small

ROWS, STEPS, SIZE = 100, 4, 8
MESHES = [(8, 1, 1), (4, 2, 1)]


def sequences(missing: bool = False) -> Arrays:
    """Rows of several lengths, or with missing values; labelled."""
    draw = np.random.RandomState(0)
    x = draw.standard_normal((ROWS, STEPS, SIZE)).astype(np.float32)
    label, length = draw.randint(0, 3, ROWS), draw.randint(1, STEPS + 1, ROWS)
    if not missing:
        return Arrays(x, label.astype(np.int32), None, length.astype(np.int32))
    x[draw.random_sample(x.shape) < 0.3] = np.nan
    return Arrays(x, label.astype(np.int32), missing=True)


def coupled() -> Autoencoder:
    """A penalty, and an mse, that are no means over rows."""
    code, penalty = Plain("sigmoid"), Activity()
    return Autoencoder(Recurrent(hidden=(16,)), 4, code, likelihood=Gaussian(), penalty=penalty)


def free_bits() -> Autoencoder:
    code = Variational(free_bits=0.1)
    return Autoencoder(Recurrent(hidden=(16,)), 4, code, likelihood=Gaussian())


def classifier() -> Classifier:
    return Classifier(coder=Recurrent(hidden=(16,)), classes=3, dropout=0.5, input_dropout=0.1)


def config(model, **changes) -> Config:
    """Batches of 24, the last of which has 4 rows: some devices have none."""
    metric = Evaluation(every="50 steps", batch_size=24, metric="loss")
    return small(**{"model": model, "batch_size": 32, "evaluation": metric, **changes})


def metrics(settings: Config, source: Arrays, devices=None) -> dict[str, float]:
    run_setup = setup(settings, (source, source), devices=devices)
    state = run_setup.init()
    return run_setup.validation()(state.params, state.model_state)


@pytest.mark.parametrize("model", [coupled, free_bits, classifier], ids=lambda each: each.__name__)
def test_metrics_of_padded_rows_are_those_of_one_device(model):
    alone = metrics(config(model()), sequences(), jax.devices()[:1])
    shared = metrics(config(model(), mesh=Mesh(4, 2, 1)), sequences())
    assert shared == pytest.approx(alone, rel=1e-5)


def test_metrics_of_rows_with_missing_values_are_those_of_one_device():
    source = sequences(missing=True)
    alone = metrics(config(coupled()), source, jax.devices()[:1])
    assert metrics(config(coupled()), source) == pytest.approx(alone, rel=1e-5)


def recurrent() -> Config:
    model = Autoencoder(Recurrent(hidden=(32,)), latent_dim=8)
    return small(model=model, batch_size=512, evaluation=Evaluation(batch_size=512))


def flops(program) -> float:
    return program.cost_analysis()["flops"]


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_each_device_computes_its_share_of_a_validation(mesh):
    settings = recurrent()
    alone = setup(settings, devices=jax.devices()[:1]).validation()
    settings.mesh = Mesh(*mesh)
    shared = setup(settings).validation()
    assert 8 * flops(shared._add) == pytest.approx(flops(alone._add), rel=0.1)


def test_each_device_computes_its_share_of_an_evaluation():
    settings = recurrent()
    run = setup(settings, devices=jax.devices()[:1]).run()
    module = settings.model.init(nnx.Rngs(0), abstract_batch(settings, run.spec))
    preparation = Preparation(settings.data.prepare, run.spec, run.statistics)
    model = Model(run, 0, False, module, preparation)
    graph, state = nnx.split(model.module)
    rows = np.random.RandomState(0).randint(0, 17, (512, *model.run.spec.shape)).astype(np.uint8)

    def encode(state, raw):
        return nnx.merge(graph, state).encode(model.preparation(raw))

    one, every = jax.devices()[:1], jax.devices()
    alone, shared = jax.jit(encode), model.jit(encode)
    at_one = jax.device_put((state, rows), replicated_over(one))
    over_all = jax.device_put(state, replicated_over(every)), jax.device_put(rows, all_rows(every))
    least = flops(alone.lower(*at_one).compile())
    assert 8 * flops(shared.lower(*over_all).compile()) == pytest.approx(least, rel=0.1)
    np.testing.assert_allclose(shared(*over_all), alone(*at_one), rtol=1e-5, atol=1e-6)
