"""log Z and log p(v) of small machines against sums over all states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate, special

from aejax.config import Config, Data, Prepare
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.evaluation import partition, rbm
from aejax.models import RBM
from aejax.runs.folder import Run
from aejax.runs.loading import Model
from aejax.training.setup import abstract_batch
from tests.models.test_rbm import energies, machine, states

SHAPE, HIDDEN = (4, 3, 1), 5
GREY = np.random.RandomState(3).randint(0, 256, (30, *SHAPE)).astype(np.uint8)


def one_device(one):
    return jax.device_put(one, jax.devices()[0])


@pytest.mark.parametrize(("visible", "hidden"), [(7, 3), (3, 7)])
def test_log_z_is_a_sum_over_all_states_of_the_smaller_layer(visible, hidden, monkeypatch):
    monkeypatch.setattr(partition, "_STATES_AT_A_TIME", 4)
    one = one_device(machine(visible, hidden, 2.0, RBM(hidden)))
    wanted = special.logsumexp(-energies(one, states(visible)))
    assert partition.exact(one) == pytest.approx(wanted, rel=1e-6)
    monkeypatch.setattr(partition, "MOST_UNITS", 2)
    assert partition.exact(one) is None


def test_log_z_of_gaussian_units_is_an_integral():
    one = one_device(machine(1, 3, 1.5, RBM(3, "gaussian", deviation=0.6)))
    density = lambda v: np.exp(-energies(one, np.array([[v]]))).sum()  # noqa: E731
    wanted = np.log(integrate.quad(density, -30, 30, limit=200)[0])
    assert partition.exact(one) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("visible", "size"), [("binary", 1.0), ("gaussian", 0.5)])
def test_annealing_finds_log_z_within_its_own_error(visible, size):
    one = one_device(machine(12, HIDDEN, size, RBM(HIDDEN, visible, deviation=1.5)))
    exact = partition.exact(one)
    means = np.random.RandomState(0).uniform(0.2, 0.8, 12)
    found = [partition.annealed(one, means, 100, 200, seed) for seed in range(5)]
    away = [(each.log_z - exact) / each.error for each in found]
    assert np.abs(away).max() < 4 and np.sqrt(np.mean(np.square(away))) < 2
    assert all(0.001 < each.error < 0.2 for each in found)
    assert all(each.low < each.log_z < each.high for each in found)
    # With fewer temperatures the weights differ more, and it says so.
    coarse = partition.annealed(one, means, 100, 5)
    assert coarse.error > 2 * found[0].error and coarse.effective < found[0].effective
    assert abs(coarse.log_z - exact) < 4 * coarse.error


@pytest.mark.parametrize("visible", ["binary", "gaussian"])
def test_devices_share_the_samples_of_annealing(visible, monkeypatch):
    one, given = machine(12, HIDDEN, 0.5, RBM(HIDDEN, visible, deviation=1.5)), []
    compute = partition._log_weights

    def spy(*arguments):
        given.append(compute(*arguments))
        return given[-1]

    monkeypatch.setattr(partition, "_log_weights", spy)
    shared = partition.annealed(one_device(one), np.full(12, 0.4), 20, 50)
    devices = jax.devices()
    monkeypatch.setattr(jax, "local_devices", lambda: devices[:1])
    alone = partition.annealed(one_device(one), np.full(12, 0.4), 20, 50)
    assert shared == pytest.approx(alone, rel=1e-5)
    assert [len(shard.data) for shard in given[0].addressable_shards] == [3] * 8
    np.testing.assert_allclose(given[0][:20], given[1], rtol=1e-5)


def test_an_estimate_is_the_mean_of_its_draws():
    draws = np.log([1.0, 2.0, 3.0, 6.0]) + 1000
    found = partition.estimate(draws)
    error = np.std([1, 2, 3, 6], ddof=1) / 2
    assert found.log_z == pytest.approx(1000 + np.log(3))
    assert found.error == pytest.approx(error / 3)
    assert found.high == pytest.approx(1000 + np.log(3 + 3 * error))
    assert found.low == -np.inf  # three errors are more than the mean
    assert found.effective == pytest.approx(144 / 50)


def test_temperatures_are_spaced_as_published():
    t = partition.temperatures(partition.TEMPERATURES)
    assert t[0] == 0 and t[-1] == 1 and (np.diff(t) > 0).all()
    assert [(t <= end).sum() - 1 for end in (0.5, 0.9, 1.0)] == [500, 4500, 14_500]


def model(settings: RBM, source: Arrays, **prepare) -> Model:
    """A machine of random parameters."""
    config = Config(model=settings, data=Data(prepare=Prepare(**prepare)), batch_size=8)
    module = settings.init(nnx.Rngs(0), abstract_batch(config, source.spec))
    random = np.random.RandomState(2)
    for array in (module.weight, module.visible_bias, module.hidden_bias):
        array[...] = jnp.asarray(random.standard_normal(array.shape), jnp.float32)
    run = Run(config, source.spec, {}, len(source))
    return Model(run, 0, False, module, Preparation(config.data.prepare, source.spec, {}))


def test_rows_have_the_log_likelihood_of_a_sum_over_all_states(monkeypatch):
    monkeypatch.setattr(rbm, "_SHOWN", (1, 3))
    rows = Arrays(GREY, None, 255.0)
    one = model(RBM(HIDDEN), rows, binarise="threshold")
    found = rbm.task(one, rows, rows, chains=50, temperatures=100)
    joint = one.module.machine
    v = (GREY.reshape(len(GREY), -1) > 127).astype(float)
    log_z = special.logsumexp(-energies(joint, states(12)))
    log_p = special.logsumexp(-energies(joint, v), axis=1) - log_z
    numbers = found.values()
    assert numbers["log_likelihood"] == pytest.approx(log_p.mean(), rel=1e-4)
    assert numbers["standard_error"] == pytest.approx(log_p.std(ddof=1) / np.sqrt(30), rel=1e-3)
    assert numbers["log_z_exact"] == pytest.approx(log_z, rel=1e-5)
    assert abs(numbers["log_z"] - log_z) < 4 * numbers["log_z_error"]
    assert [figure.name for figure in found.figures] == ["rbm_samples", "rbm_chains", "rbm_weights"]
    assert numbers["chains"] == 50 and numbers["temperatures"] == 100


def test_a_machine_too_large_to_sum_over_has_an_estimate(monkeypatch):
    monkeypatch.setattr(partition, "MOST_UNITS", 2)
    rows = Arrays(GREY.reshape(30, 12), None, 255.0)
    one = model(RBM(HIDDEN, persistent=False), rows, binarise="sampled")
    found = rbm.task(one, rows, rows, chains=20, temperatures=50)
    numbers = found.values()
    assert "log_z_exact" not in numbers
    wanted = -numbers["free_energy"] - numbers["log_z"]
    assert numbers["log_likelihood"] == pytest.approx(wanted, rel=1e-6)
    assert any("Pixels are drawn once" in note for note in found.notes)
    assert any("--temperatures=14500" in note for note in found.notes)
    assert not found.figures and any("are not images" in note for note in found.notes)
    # What is drawn depends on the seed, and on no devices.
    monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
    again = rbm.task(one, rows, rows, chains=20, temperatures=50).values()
    assert again == pytest.approx(numbers, rel=1e-5)


def test_what_cannot_be_is_refused():
    rows = Arrays(GREY, None, 255.0)
    with pytest.raises(InputError, match="--chains=1: must be at least 2"):
        rbm.check(model(RBM(HIDDEN), rows).run, rows.spec, chains=1)
    with pytest.raises(InputError, match="config.model is autoencoder; must be rbm"):
        rbm.check(Run(Config(), rows.spec, {}, 30), rows.spec)
