"""The contracts hold under parts that stress them, on any devices and micro-batches."""

import itertools

import jax
import numpy as np
import pytest

from aejax.config import Config, Data, Mesh, Prepare
from aejax.data import order
from aejax.data.sources.base import Arrays
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Recurrent
from aejax.models.interfaces import Coder
from aejax.models.penalties import Activity
from aejax.optimizer import Adam, Sgd
from aejax.runs import arrays
from aejax.training.setup import setup
from tests.training import toys
from tests.training.runs import train

ROWS, ELEMENTS, BATCH, SEED = 40, 6, 16, 3
X = np.random.RandomState(0).randint(0, 2, (ROWS, ELEMENTS)).astype(np.uint8)
SOURCE = Arrays(X, None, 1.0)
# Devices, micro-batches, parallel style.
LAYOUTS = [*itertools.product((1, 8), (1, 2), ("pjit",)), (8, 1, "pmap"), (8, 2, "pmap")]

# Data, fsdp and tensor axes over which each device computes the gradient of its own rows.
BY_DEVICE = [((8, 1, 1), 2), ((1, 8, 1), 1), ((4, 2, 1), 1), ((4, 2, 1), 2)]

# What couples the rows of a batch, or keeps state of them, stands in all of these; the others in
# those that differ most.
COUPLED = ("sparse", "normalised")
FARTHEST = [LAYOUTS[0], LAYOUTS[3], LAYOUTS[5]]

TOYS = {
    "sparse": (toys.sparse, toys.sparse_loss),
    "weighted": (toys.weighted, toys.weighted_loss),
    "recurrent": (toys.recurrent, toys.recurrent_loss),
    "masked": (toys.masked, toys.masked_loss),
    "annealed": (toys.annealed, toys.annealed_loss),
    "normalised": (toys.normalised, toys.normalised_loss),
}


def configuration(model, micro_batches=1, parallel="pjit", optimizer=None, mesh=()) -> Config:
    return Config(
        model=model,
        data=Data(prepare=Prepare(scale=True)),
        optimizer=optimizer or Sgd(learning_rate=1.0),
        batch_size=BATCH,
        micro_batches=micro_batches,
        duration="8 steps",
        seed=SEED,
        parallel=parallel,
        mesh=Mesh(*mesh),
        log_every=1,
        trackers=(),
    )


def updates(model, devices: int, micro_batches: int, parallel: str, steps: int, mesh=()):
    """Plain SGD with rate 1, step by step: (parameters before, gradient, sums, model state)."""
    run_setup = setup(
        configuration(model, micro_batches, parallel, mesh=mesh),
        (SOURCE, SOURCE),
        devices=jax.devices()[:devices],
    )
    feed, state = run_setup.open_feed(), run_setup.init()
    dispatch = run_setup.compile(feed)
    out = []
    for step in range(steps):
        block = feed.at(step)
        before = host(state.params)
        numbers = [
            jax.device_put(value, run_setup.replicated)
            for value in (np.int32(block.first), np.int32(1), np.int32(1))
        ]
        state, report = dispatch(state, block.arrays, *numbers)
        after = host(state.params)
        gradient = {name: before[name] - after[name] for name in before}
        window = run_setup.state.window.unpack(np.asarray(report.rows)[0])
        out.append((before, gradient, window.sums, host(state.model_state)))
    return out


def host(tree) -> dict[str, np.ndarray]:
    return {name: np.asarray(array, np.float64) for name, array in arrays.flatten(tree).items()}


def rows_of(step: int) -> np.ndarray:
    index = order.examples(SEED, ROWS, step * BATCH, (step + 1) * BATCH)
    return X[index].astype(np.float64)


def finite_differences(loss, params, *rest) -> dict[str, np.ndarray]:
    out = {}
    for name, value in params.items():
        gradient = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = {**params, name: value.copy()}
                moved[name][place] += sign * 1e-5
                ends.append(loss(moved, *rest))
            gradient[place] = (ends[0] - ends[1]) / 2e-5
        out[name] = gradient
    return out


def assert_close(actual, expected, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    scale = max(np.abs(value).max() for value in expected.values())
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize(
    ("toy", "layout"),
    [(toy, layout) for toy in TOYS for layout in (LAYOUTS if toy in COUPLED else FARTHEST)],
    ids=str,
)
def test_gradient_is_that_of_the_global_batch(toy, layout):
    model, loss = TOYS[toy]
    for step, (params, gradient, sums, _) in enumerate(updates(model(), *layout, steps=2)):
        x = rows_of(step)
        assert sums["loss"] == pytest.approx(loss(params, x, SEED, step), rel=1e-5)
        assert_close(gradient, finite_differences(loss, params, x, SEED, step), 2e-5)


@pytest.mark.parametrize(("mesh", "micro_batches"), BY_DEVICE, ids=str)
@pytest.mark.parametrize("toy", COUPLED)
def test_gradient_by_device_is_that_of_the_global_batch(monkeypatch, toy, mesh, micro_batches):
    monkeypatch.setattr(Coder, "gradient_by_device", True)
    model, loss = TOYS[toy]
    ((params, gradient, sums, _),) = updates(model(), 8, micro_batches, "pjit", 1, mesh)
    assert sums["loss"] == pytest.approx(loss(params, rows_of(0), SEED, 0), rel=1e-5)
    assert_close(gradient, finite_differences(loss, params, rows_of(0), SEED, 0), 2e-5)


@pytest.fixture(scope="module")
def recurrent_alone():
    return updates(recurrent(), *LAYOUTS[0], steps=2)


def recurrent() -> Autoencoder:
    """Kernels that fsdp deals out, and a penalty that couples the rows of a batch."""
    code = Plain("sigmoid")
    return Autoencoder(Recurrent(hidden=(32,)), latent_dim=4, bottleneck=code, penalty=Activity())


@pytest.mark.parametrize(("mesh", "micro_batches"), BY_DEVICE, ids=str)
def test_recurrent_gradient_is_that_of_one_device(mesh, micro_batches, recurrent_alone):
    steps = updates(recurrent(), 8, micro_batches, "pjit", 2, mesh)
    for (_, gradient, sums, _), (_, expected, alone, _) in zip(steps, recurrent_alone, strict=True):
        assert sums == pytest.approx(alone, rel=1e-5)
        assert_close(gradient, expected, 2e-5)


@pytest.fixture(scope="module")
def reference():
    return updates(toys.Boltzmann(), *LAYOUTS[0], steps=3)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_boltzmann_machine_with_persistent_chains(layout, reference):
    steps = updates(toys.Boltzmann(), *layout, steps=3)
    for step, (params, gradient, _, state) in enumerate(steps):
        chains = state["rows/chains"]
        assert chains.shape == (BATCH, ELEMENTS)
        assert_close(gradient, toys.boltzmann_gradient(params, rows_of(step), chains), 2e-5)
        np.testing.assert_array_equal(chains, reference[step][3]["rows/chains"])
    assert (steps[0][3]["rows/chains"] != steps[1][3]["rows/chains"]).any()


def test_persistent_chains_with_a_gradient_by_device(monkeypatch, reference):
    monkeypatch.setattr(toys.Boltzmann, "gradient_by_device", True)
    steps = updates(toys.Boltzmann(), 8, 2, "pjit", 3, (4, 2, 1))
    for (_, gradient, _, state), (_, expected, _, alone) in zip(steps, reference, strict=True):
        np.testing.assert_array_equal(state["rows/chains"], alone["rows/chains"])
        assert_close(gradient, expected, 2e-5)


def test_annealing_changes_the_gradient_by_step():
    _, loss = TOYS["annealed"]
    for step, (params, gradient, sums, _) in enumerate(
        updates(toys.annealed(), *LAYOUTS[2], steps=6)
    ):
        x = rows_of(step)
        assert_close(gradient, finite_differences(loss, params, x, SEED, step), 2e-5)
        assert (sums["size"] == 0) == (step == 0)


@pytest.mark.parametrize("toy", [*COUPLED, "recurrent", "boltzmann"])
def test_trains_through_the_one_loop(toy, tmp_path):
    model = toys.Boltzmann if toy == "boltzmann" else TOYS[toy][0]
    losses = []
    for devices, micro_batches, parallel in (LAYOUTS[0], LAYOUTS[-1]):
        workdir = str(tmp_path / str(devices))
        outcome = train(
            configuration(model(), micro_batches, parallel, Adam(learning_rate=0.03)),
            workdir,
            (SOURCE, SOURCE),
            quiet=True,
            devices=jax.devices()[:devices],
        )
        assert outcome.status == "done" and outcome.step == 8
        losses.append(outcome.metrics["loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
