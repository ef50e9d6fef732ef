"""The supernet: what is mixed, what learns from which rows, when it begins, and its price."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.config import put
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.models import Batch
from aejax.models.batch import evaluation
from aejax.models.bottlenecks import Plain
from aejax.models.penalties import Activity
from aejax.runs import arrays
from aejax.search import imitation
from aejax.search import space as spaces
from aejax.search.supernet import Architecture, Pairs
from aejax.training.state import split
from tests.search import toys
from tests.training.processes import rows
from tests.training.runs import terms, train

COUNT = 6
PAIRS = np.stack([toys.rows(COUNT), toys.rows(COUNT, 1)], axis=1)


def by_name(tree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in arrays.flatten(tree).items()}


def test_one_candidate_alone_is_the_layout_with_that_block():
    module = toys.scrambled(toys.made(toys.supernet(), PAIRS))
    parameters = by_name(split(module)[1])
    for choices in ([0, 0, 0], [2, 1, 1], [1, 0, 1]):
        layout = toys.SPACE.layout(choices)
        alone = spaces.with_layout(toys.autoencoder(), layout)
        plain = alone.init(nnx.Rngs(1), Batch(jnp.asarray(PAIRS[:, 0])))
        graph, params, rest = split(plain)
        given = imitation.grafted(parameters, toys.SPACE, layout)
        given = {name: leaf for name, leaf in given.items() if "architecture" not in name}
        assert given.keys() == arrays.flatten(params).keys()
        plain = nnx.merge(graph, arrays.unflatten(params, given), rest["rows"], rest["other"])
        batch = Batch(jnp.asarray(PAIRS[:, 0]), index=jnp.arange(COUNT))
        mixed = spaces.mixed(module.model, spaces.chosen(toys.SPACE, choices))
        np.testing.assert_allclose(mixed.loss(batch)[0], plain.loss(batch)[0], rtol=1e-6)
        assert toys.SPACE.choices(layout) == choices


def test_a_mixture_adds_each_candidate_by_its_weight():
    module = toys.scrambled(toys.made(toys.supernet(), PAIRS))
    slot = spaces.choice_slots(module.model)[0]
    slot.mix.set_value(jnp.array([0.2, 0.7, 0.1]))
    x = jax.random.normal(jax.random.key(0), (2, 16, 8))
    attention, forward, _ = slot.candidates
    expected = x + 0.2 * (attention(x) - x) + 0.7 * (forward(x) - x)
    np.testing.assert_allclose(slot(x), expected, atol=1e-6)


def gradients_of(module):
    """(pairs, step) -> the gradient of the loss by each parameter."""
    graph, params, rest = split(module)

    def loss(params, pairs, step):
        copy = nnx.merge(graph, params, rest["rows"], rest["other"])
        batch = Batch(pairs, index=jnp.arange(COUNT))
        return copy.loss(batch, toys.context(COUNT, step))[0]

    compiled = jax.jit(jax.grad(loss))
    return lambda pairs, step: by_name(compiled(params, jnp.asarray(pairs), step))


def gradients(module, pairs, step: int = 5):
    return gradients_of(module)(pairs, step)


def begun(settings):
    module = toys.scrambled(toys.made(settings, PAIRS))
    module.learned_at.set_value(jnp.int32(2))
    return module


def other_half(number: int) -> np.ndarray:
    """The pairs, with other rows in one of their halves."""
    other = PAIRS.copy()
    other[:, number] = toys.rows(COUNT, 7)
    return other


def test_blocks_learn_from_one_half_of_the_pairs_and_in_a_share_the_architecture_from_the_other():
    each = gradients_of(begun(toys.supernet(share=1 / 3, seed=4)))
    for step in range(2, 8):
        found = each(PAIRS, step)
        changed = [each(other_half(half), step) for half in (0, 1)]
        for name, leaf in found.items():
            own = int(name.startswith("architecture"))
            learns = not own or (step - 2) % 3 == 2
            assert np.any(leaf != 0) == learns, (step, name)
            assert np.array_equal(leaf, changed[1 - own][name]), (step, name)
            assert np.array_equal(leaf, changed[own][name]) != learns, (step, name)


SPARSE = dataclasses.replace(
    toys.autoencoder(), bottleneck=Plain("sigmoid"), penalty=Activity(0.1, 3.0)
)


@pytest.mark.parametrize(
    "model",
    [toys.autoencoder(), pytest.param(SPARSE, marks=pytest.mark.slow)],
    ids=["plain", "sparse"],
)
def test_gradients_are_those_of_the_mixed_model_with_the_noise_of_the_step(model):
    module, step = begun(toys.supernet(model=model, share=0.5, cost_weight=0.0)), 5
    found = gradients(module, PAIRS, step)
    graph, params, rest = split(module)
    key = jax.random.fold_in(jax.random.key(3), step)
    heat = 0.1 ** ((step - 2) / 10)

    def loss(params, half):
        copy = nnx.merge(graph, params, rest["rows"], rest["other"])
        weights = [
            jax.nn.softmax(
                (each + jax.random.gumbel(jax.random.fold_in(key, n), each.shape)) / heat
            )
            for n, each in enumerate(copy.logits())
        ]
        rows = np.arange(0, COUNT, half + 1)  # every second one judges
        batch = Batch(jnp.asarray(PAIRS[rows, half]), index=jnp.asarray(rows))
        context = toys.context(COUNT, step)
        assert context.keys is not None
        context = dataclasses.replace(context, keys=context.keys[rows])
        return spaces.mixed(copy.model, weights).loss(batch, context)[0]

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    exact = [by_name(gradient(params, half)) for half in (0, 1)]
    for name, leaf in found.items():
        other = exact[name.startswith("architecture")][name]
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-6)


def test_before_it_has_learned_blocks_alone_learn_and_nothing_costs():
    module = toys.scrambled(toys.made(toys.supernet(cost_weight=50.0), PAIRS))
    found = gradients(module, PAIRS)
    for name, leaf in found.items():
        assert np.any(leaf != 0) != name.startswith("architecture"), name


@pytest.mark.slow
def test_the_price_is_linear_in_what_blocks_are_expected_to_cost():
    """Its gradient against softmax's in double precision, by two weights of the price."""
    dear, free = (begun(toys.supernet(cost_weight=weight)) for weight in (3.0, 0.0))
    found, without = gradients(dear, PAIRS), gradients(free, PAIRS)
    for slot, (_, _, letters) in enumerate(toys.SPACE.searched):
        name = f"architecture/{slot}"
        logits = np.float64(dear.architecture[slot][...]) * 30.0
        share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        price = np.array([toys.PRICES[letter] for letter in letters])
        exact = 3.0 * 30.0 * share * (price - share @ price)
        np.testing.assert_allclose(found[name] - without[name], exact, rtol=2e-3, atol=2e-3)


def test_the_search_begins_once_the_average_loss_is_low_and_not_before():
    module = toys.made(toys.supernet(learned=1e9, warmup=3), PAIRS)
    batch = Batch(jnp.asarray(PAIRS), index=jnp.arange(COUNT))
    run = nnx.jit(lambda module, step: module.loss(batch, toys.context(COUNT, step))[0])
    for step in range(6):
        run(module, jnp.int32(step))
        assert int(module.learned_at[...]) == (4 if step >= 3 else -1)
    never = toys.made(toys.supernet(learned=0.5), PAIRS)
    losses = []
    for step in range(4):
        run(never, jnp.int32(step))
        losses.append(float(never.average[...]))
    assert int(never.learned_at[...]) == -1
    assert min(losses) > 0.5


def test_in_evaluation_the_layout_with_the_largest_weights_counts():
    module = begun(toys.supernet())
    batch = Batch(jnp.asarray(PAIRS), index=jnp.arange(COUNT))
    best = [int(np.argmax(each)) for each in module.logits()]
    alone = spaces.mixed(module.model, spaces.chosen(toys.SPACE, best))
    own = alone.loss(Batch(jnp.asarray(PAIRS[:, 0]), index=batch.index), evaluation(None))
    assert float(module.loss(batch)[0]) == float(own[0])


def test_pairs_are_rows_of_both_sources():
    learning = Arrays(np.arange(10)[:, None], None, None)
    judging = Arrays(100 + np.arange(3)[:, None], None, None)
    pairs = Pairs(learning, judging)
    assert len(pairs) == 10 and pairs.spec.shape == (2, 1)
    assert pairs[np.array([1, 7])].x[:, :, 0].tolist() == [[1, 101], [7, 101]]
    assert pairs[8:].x[:, :, 0].tolist() == [[8, 102], [9, 100]]


def test_architecture_weights_are_parameters_of_their_own_kind():
    module = toys.made(toys.supernet(), PAIRS)
    kinds = [type(leaf) for leaf in module.architecture]
    assert kinds == [Architecture] * len(toys.SPACE.searched)
    assert dataclasses.is_dataclass(module.settings)


@pytest.mark.slow
def test_what_a_target_allows_costs_nothing():
    """PLANER's hinge: below the target no price, above it the linear one."""
    settings = [toys.supernet(cost_weight=3.0, target=target) for target in (0.0, 0.1, 4.0)]
    linear, above, below = (gradients(begun(each), PAIRS) for each in settings)
    free = gradients(begun(toys.supernet(cost_weight=0.0)), PAIRS)
    for name in linear:
        np.testing.assert_array_equal(above[name], linear[name])
        np.testing.assert_allclose(below[name], free[name], rtol=1e-5, atol=1e-6)


WAYS = (
    (8, {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}),
    (4, {"parallel": "pmap", "micro_batches": 2, "data.feed": "streaming"}),
)


@pytest.mark.slow
def test_a_supernet_learns_alike_on_any_devices(tmp_path):
    """One and eight, in both styles, both feeds, in pieces; before it has learned and after."""
    one, model = spaces.Space(("afi",), ("f",)), toys.autoencoder("a", "f")
    settings = toys.supernet(model=model, space=one, learned=1e9, share=1 / 3, warmup=6)
    source = Arrays(toys.rows(64), None, None)
    pairs = Pairs(source, source), Pairs(source, source)

    def config(**changes):
        own = toys.config(settings)
        own.duration, own.log_every, own.batch_size = "24 steps", 1, 16
        for name, value in changes.items():
            put(own, name, value)
        return own

    train(config(), tmp_path, pairs)
    written = [row for row in rows(tmp_path) if row["split"] == "train"]
    alone = terms(config(), 24, sources=pairs)
    assert [row["loss"] for row in written] == [each["loss"] for each in alone[0]]
    weights = [each["encoder_0_a"] for each in alone[0]]
    assert weights[0] == pytest.approx(1 / 3) and abs(weights[-1] - 1 / 3) > 0.01
    for devices, changes in WAYS:
        found, _ = terms(config(**changes), 24, devices, alone[1], pairs)
        for name, rtol in (("loss", 1e-4), ("encoder_0_a", 1e-3)):
            values, wanted = ([each[name] for each in run] for run in (found, alone[0]))
            np.testing.assert_allclose(values, wanted, rtol=rtol)


def test_what_averages_over_the_batch_needs_it_whole():
    module = begun(toys.supernet(model=SPARSE))
    with pytest.raises(InputError, match="config.run.micro_batches=1"):
        module.loss(Batch(jnp.asarray(PAIRS[: COUNT // 2])), toys.context(COUNT // 2))
