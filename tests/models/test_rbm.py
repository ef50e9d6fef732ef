"""Restricted Boltzmann machines against sums over all states, and their chains on any devices."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate, special
from sklearn.neural_network import BernoulliRBM

import aejax
from aejax.config import Prepare
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.models import RBM, Batch, rbm
from aejax.models.rbm import Machine, pseudo_likelihood
from aejax.runs import arrays
from aejax.training.setup import setup
from tests.training.runs import train
from tests.training.test_contracts import (
    BATCH,
    ELEMENTS,
    FARTHEST,
    SEED,
    SOURCE,
    assert_close,
    configuration,
    rows_of,
    updates,
)
from tests.training.toys import row_keys, sigmoid

HIDDEN = 4


def states(units: int) -> np.ndarray:
    """All states of binary units, [2^units, units]."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def machine(visible: int, hidden: int, size: float, settings: RBM) -> Machine:
    random = np.random.RandomState(5)
    shapes = ((visible, hidden), (visible,), (hidden,))
    parts = [size * random.standard_normal(shape).astype(np.float32) for shape in shapes]
    hidden = settings.hidden == "binary"
    return Machine(*map(jnp.asarray, parts), settings.binary, settings.scale, hidden)


def energies(one: Machine, v: np.ndarray) -> np.ndarray:
    """E(v, h) by its definition: v [rows, visible] -> [rows, 2^hidden]."""
    weight, b, c = (np.asarray(part, np.float64) for part in jax.tree.leaves(one))
    h, s = states(len(c)), one.scale
    if one.binary:
        return -(v @ b)[:, None] - h @ c - v @ weight @ h.T
    return (np.square(v - b).sum(1) / (2 * s**2))[:, None] - h @ c - v @ weight @ h.T / s


def statistics(params: dict[str, np.ndarray], v: np.ndarray) -> dict[str, np.ndarray]:
    """<v h'>, <v> and <h> over rows, with p(h = 1 given v) for h."""
    h = sigmoid(v @ params["weight"] + params["hidden_bias"])
    return {"weight": v.T @ h / len(v), "visible_bias": v.mean(0), "hidden_bias": h.mean(0)}


def difference(params: dict, data: np.ndarray, chains: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of contrastive divergence."""
    of_data, of_chains = statistics(params, data), statistics(params, chains)
    return {name: of_chains[name] - of_data[name] for name in of_data}


def sampled(params: dict, v: np.ndarray, step: int, k: int) -> np.ndarray:
    """v after k steps of Gibbs sampling, with the draws of a training step."""
    keys = row_keys(SEED, step, len(v), "gibbs")

    def coins(logits, number):
        fold, size = jax.random.fold_in, logits.shape[1:]
        draws = [np.asarray(jax.random.uniform(fold(key, number), size)) for key in keys]
        return (np.stack(draws) < sigmoid(logits)).astype(float)

    for i in range(k):
        h = coins(v @ params["weight"] + params["hidden_bias"], 2 * i)
        v = coins(h @ params["weight"].T + params["visible_bias"], 2 * i + 1)
    return v


@pytest.mark.parametrize("visible", rbm.UNITS)
def test_free_energy_is_a_sum_over_all_hidden_states(visible):
    one = machine(ELEMENTS, HIDDEN, 1.0, RBM(HIDDEN, visible, deviation=0.7))
    v = np.random.RandomState(1).standard_normal((20, ELEMENTS))
    v = (v > 0).astype(float) if one.binary else v
    wanted = -special.logsumexp(-energies(one, v), axis=1)
    np.testing.assert_allclose(one.free_energy(jnp.float32(v)), wanted, rtol=1e-5, atol=1e-5)


def test_gaussian_units_have_the_conditionals_of_the_energy():
    one = machine(1, 2, 1.0, RBM(2, "gaussian", deviation=0.6))
    hidden = states(2)
    inputs = one.visible_input(jnp.float32(hidden))
    keys = jax.random.split(jax.random.key(0), 10_000)
    for number, mean in enumerate(np.asarray(one.visible_mean(inputs))[:, 0]):

        def density(v, power, number=number):
            return v**power * np.exp(-energies(one, np.array([[v]]))[0, number])

        moments = [integrate.quad(density, -12, 12, (power,))[0] for power in range(3)]
        wanted = moments[1] / moments[0]
        deviation = np.sqrt(moments[2] / moments[0] - wanted**2)
        assert mean == pytest.approx(wanted, rel=1e-4)
        drawn = one.visible_sample(jnp.tile(inputs[number], (len(keys), 1)), keys)
        assert drawn.mean() == pytest.approx(wanted, abs=4 * deviation / np.sqrt(len(keys)))
        assert drawn.std() == pytest.approx(deviation, rel=0.03)
    v = np.linspace(-2, 2, 5)[:, None]
    wanted = special.softmax(-energies(one, v), axis=1) @ hidden
    np.testing.assert_allclose(sigmoid(np.asarray(one.hidden_input(jnp.float32(v)))), wanted, 1e-4)


def test_gaussian_hidden_units_have_the_free_energy_and_conditionals_of_the_energy():
    one = machine(ELEMENTS, 1, 0.7, RBM(1, hidden="gaussian"))
    weight, b, c = (np.asarray(part, np.float64) for part in jax.tree.leaves(one))
    keys = jax.random.split(jax.random.key(0), 10_000)
    found = []
    for v in states(ELEMENTS)[::9]:

        def density(h, power, v=v):
            energy = (h - c[0]) ** 2 / 2 - v @ b - (v @ weight)[0] * h
            return h**power * np.exp(-energy)

        moments = [integrate.quad(density, -30, 30, (power,))[0] for power in range(2)]
        found.append(-np.log(moments[0]))
        inputs = one.hidden_input(jnp.float32(v[None]))
        mean = moments[1] / moments[0]
        assert float(one.hidden_mean(inputs)[0, 0]) == pytest.approx(mean, rel=1e-4)
        drawn = one.hidden_sample(jnp.tile(inputs, (len(keys), 1)), keys)
        assert drawn.mean() == pytest.approx(mean, abs=0.04)
        assert drawn.std() == pytest.approx(1, rel=0.03)
    own = np.asarray(one.free_energy(jnp.float32(states(ELEMENTS)[::9])))
    # Up to what no v changes, (log 2 pi) / 2 here.
    np.testing.assert_allclose(own - found, np.log(2 * np.pi) / 2, atol=1e-4)


@pytest.mark.parametrize("persistent", [True, False])
def test_the_prior_draws_hidden_units_of_the_machine(persistent):
    settings = RBM(HIDDEN, persistent=persistent)
    module = settings.init(nnx.Rngs(0), Batch(jnp.zeros((10, ELEMENTS))))
    one = machine(ELEMENTS, HIDDEN, 0.8, settings)
    for name in ("weight", "visible_bias", "hidden_bias"):
        getattr(module, name).set_value(getattr(one, name))
    p = special.softmax(-energies(one, states(ELEMENTS)), axis=None).sum(axis=0)
    drawn = jax.jit(lambda key: settings.prior(module, key, (4000, HIDDEN)))(jax.random.key(3))
    place = np.asarray(drawn) @ (2.0 ** np.arange(HIDDEN)[::-1])
    share = np.bincount(place.astype(int), minlength=2**HIDDEN) / 4000
    np.testing.assert_allclose(share, p, atol=4 * np.sqrt(p.max() / 4000))


def test_pseudo_likelihood_is_that_of_each_unit_given_the_others(monkeypatch):
    one, v = machine(ELEMENTS, HIDDEN, 1.0, RBM(HIDDEN)), states(ELEMENTS)
    log_p = special.logsumexp(-energies(one, v), axis=1)
    place = {tuple(row): number for number, row in enumerate(v)}
    wanted = np.zeros(len(v))
    for i in range(ELEMENTS):
        other = log_p[[place[tuple(np.where(np.arange(ELEMENTS) == i, 1 - u, u))] for u in v]]
        wanted += log_p - np.logaddexp(log_p, other)
    rows, index = jnp.float32(v), jnp.arange(len(v))
    found = jax.jit(pseudo_likelihood)(one, rows, index)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)

    # scikit-learn changes one element of each row, drawn anew.
    peer = BernoulliRBM(random_state=0)
    peer.components_, peer.n_features_in_ = np.asarray(one.weight.T), ELEMENTS
    peer.intercept_visible_, peer.intercept_hidden_ = one.visible_bias, one.hidden_bias
    scores = peer.score_samples(np.tile(v[7], (6000, 1)))
    assert scores.mean() == pytest.approx(found[7], abs=4 * scores.std() / np.sqrt(6000))

    # Some elements of a row: right in the mean over the rows' numbers, and the same each time.
    monkeypatch.setattr(rbm, "_NUMBERS_A_ROW", 2 * HIDDEN)
    many = jnp.tile(rows[7], (6000, 1)), jnp.arange(6000)
    some = jax.jit(lambda *given: pseudo_likelihood(*given))  # traced again, with that number
    each = np.asarray(some(one, *many))
    assert len(np.unique(each.round(4))) == ELEMENTS // 2
    assert each.mean() == pytest.approx(wanted[7], abs=4 * each.std() / np.sqrt(6000))
    part = some(one, many[0][:9], many[1][50:59])
    np.testing.assert_allclose(part, each[50:59], rtol=1e-5)


def test_more_steps_come_to_the_gradient_of_the_likelihood():
    """By sums over all states; one step from the data is biased, many are not."""
    chains = 10_000
    one = machine(ELEMENTS, HIDDEN, 2.0, RBM(HIDDEN))
    params = {name: np.asarray(getattr(one, name)) for name in ("weight", "hidden_bias")}
    data = states(ELEMENTS)[[3, 60, 61, 44]]
    p = special.softmax(special.logsumexp(-energies(one, states(ELEMENTS)), axis=1))
    h = sigmoid(states(ELEMENTS) @ params["weight"] + params["hidden_bias"])
    exact = (states(ELEMENTS) * p[:, None]).T @ h - statistics(params, data)["weight"]
    rows = jnp.tile(jnp.float32(data), (chains // len(data), 1))
    keys = jax.random.split(jax.random.key(1), chains)

    @jax.jit
    def gradient(k):
        end = one.gibbs(rows, keys, k)

        def loss(changed):
            return jnp.mean(changed.free_energy(rows)) - jnp.mean(changed.free_energy(end))

        return jax.grad(loss)(one).weight

    error = {k: np.abs(gradient(k) - exact).max() for k in (1, 2, 50)}
    noise = 0.5 / np.sqrt(chains)  # at most, of a mean of values between 0 and 1
    assert error[1] > 3 * error[2] > 9 * noise and error[50] < 3 * noise


def test_a_step_of_contrastive_divergence_is_the_difference_of_statistics():
    steps = updates(RBM(HIDDEN, k=3, persistent=False), *FARTHEST[0], steps=2)
    for step, (params, gradient, sums, _) in enumerate(steps):
        data = rows_of(step)
        chains = sampled(params, data, step, 3)
        assert_close(gradient, difference(params, data, chains), 2e-5)
        parts = [params[name] for name in ("weight", "visible_bias", "hidden_bias")]
        one = Machine(*parts)
        energy = [special.logsumexp(-energies(one, v), axis=1).mean() for v in (chains, data)]
        assert sums["loss"] == pytest.approx(energy[0] - energy[1], abs=1e-5)


@pytest.fixture(scope="module")
def alone():
    return updates(RBM(HIDDEN, k=2), *FARTHEST[0], steps=3)


def test_persistent_chains_go_on_from_update_to_update(alone):
    run = setup(configuration(RBM(HIDDEN, k=2)), (SOURCE, SOURCE), devices=jax.devices()[:1])
    before = np.asarray(run.init().model_state["rows"]["chains"], np.float64)
    assert before.shape == (BATCH, ELEMENTS) and set(np.unique(before)) == {0, 1}
    for step, (params, gradient, _, state) in enumerate(alone):
        chains = state["rows/chains"]
        np.testing.assert_array_equal(chains, sampled(params, before, step, 2))
        assert_close(gradient, difference(params, rows_of(step), chains), 2e-5)
        before = chains


@pytest.mark.parametrize("layout", FARTHEST[1:], ids=str)
def test_persistent_chains_are_the_same_on_any_devices(layout, alone):
    steps = updates(RBM(HIDDEN, k=2), *layout, steps=3)
    for (_, gradient, sums, state), (_, wanted, alone_sums, alone_state) in zip(
        steps, alone, strict=True
    ):
        np.testing.assert_array_equal(state["rows/chains"], alone_state["rows/chains"])
        assert_close(gradient, wanted, 1e-5)
        assert sums["loss"] == pytest.approx(alone_sums["loss"], abs=1e-5)


def test_chains_go_on_over_a_resume_and_the_run_loads_as_an_autoencoder(tmp_path):
    config = configuration(RBM(HIDDEN))
    whole = train(config, tmp_path / "whole", (SOURCE, SOURCE))
    cut = dataclasses.replace(config, duration="3 steps")
    train(cut, tmp_path / "cut", (SOURCE, SOURCE))
    again = train(config, tmp_path / "cut", (SOURCE, SOURCE))
    assert again.metrics == whole.metrics  # free_energy_gap depends on the chains
    model = aejax.load(str(tmp_path / "whole"))
    one, chains = model.module.machine, model.module.chains[...]
    weight, b, c = (np.asarray(part, np.float64) for part in jax.tree.leaves(one))
    z = model.encode(SOURCE.x)
    np.testing.assert_allclose(z, sigmoid(SOURCE.x @ weight + c), rtol=1e-5)
    made = sigmoid(z @ weight.T + b)
    np.testing.assert_allclose(model.decode(z), made, rtol=1e-5)
    error = np.square(made - SOURCE.x).mean()
    assert model.score(SOURCE.x).mean() == pytest.approx(error, rel=1e-5)
    assert whole.metrics["mse"] == pytest.approx(error, rel=1e-5)
    x = jnp.float32(SOURCE.x)
    gap = one.free_energy(x).mean() - one.free_energy(chains).mean()
    assert whole.metrics["free_energy_gap"] == pytest.approx(float(gap), abs=1e-5)
    likely = jax.jit(pseudo_likelihood)(one, x, jnp.arange(len(x))).mean()
    assert whole.metrics["pseudo_likelihood"] == pytest.approx(float(likely), rel=1e-5)
    assert whole.metrics["loss"] == -whole.metrics["pseudo_likelihood"]


def test_gaussian_units_learn_the_directions_in_which_rows_lie(tmp_path):
    """Two clusters far apart: reconstructions come near to the rows' own."""
    random = np.random.RandomState(0)
    side = np.sign(random.standard_normal((200, 1)))
    rows = (2 * side * [1, -1, 1, -1] + random.standard_normal((200, 4))).astype(np.float32)
    config = configuration(RBM(2, "gaussian", k=2, persistent=False))
    config.data.prepare = Prepare(scale=False, centre="mean")
    config.optimizer.learning_rate, config.duration = 0.02, "200 steps"
    outcome = train(config, tmp_path, (Arrays(rows, None, None),) * 2)
    assert arrays.flatten({"metrics": outcome.metrics}).keys() >= {"metrics/loss", "metrics/mse"}
    assert outcome.metrics["loss"] == pytest.approx(4 * outcome.metrics["mse"], rel=1e-5)
    assert outcome.metrics["mse"] < 0.5 * rows.var()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 0}, r"config.model.k=0: must be at least 1"),
        ({"latent_dim": 0}, r"config.model.latent_dim=0: must be at least 1"),
        ({"visible": "grey"}, r"config.model.visible=grey: must be binary or gaussian"),
        ({"deviation": 0.0}, r"config.model.deviation=0.0: must be above 0"),
        ({"centre": "mean"}, r"config.model.visible=binary: needs data in \[0, 1\]"),
        ({"missing": True}, r"config.model: rbm takes whole rows"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, said):
    config, source = configuration(RBM(HIDDEN)), SOURCE
    for name, value in changes.items():
        if name == "centre":
            config.data.prepare.centre = value
        elif name == "missing":
            x = np.where(SOURCE.x, np.nan, 1.0).astype(np.float32)
            source = Arrays(x, None, None, missing=True)
            config.data.prepare.scale = False
            config.model.visible = "gaussian"
        else:
            setattr(config.model, name, value)
    with pytest.raises(InputError, match=said):
        setup(config, (source, source))
