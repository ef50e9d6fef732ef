"""The latency table: sums of what it holds, and that what is timed is the layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.models.batch import Batch, Context
from aejax.search import latency
from aejax.search import space as spaces
from aejax.search.latency import Latency, Table
from aejax.search.space import Layout, Space
from aejax.training import step
from tests.search import toys


def test_a_prediction_is_the_empty_model_and_each_slots_block():
    blocks = {"a": Latency(3.0, 9.0), "f": Latency(1.0, 2.0), "w": Latency(2.0, 5.0)}
    table = Table(Latency(10.0, 20.0), {**blocks, "i": Latency(0.0, 0.0)})
    # Slot 1 of the encoder and slot 0 of the decoder are not searched: they are in the empty model.
    space = Space(("afi", "f", "wf", "ai"), ("i", "fi"))
    found = table.predicted(Layout("afwi", "if"), space)
    assert found == Latency(10.0 + 3 + 2 + 0 + 1, 20.0 + 9 + 5 + 0 + 2)
    # Of what is no layout of the space there is none, whether the slot is searched or not.
    for other in (Layout("wfwi", "if"), Layout("aawi", "if"), Layout("afwi", "ff")):
        assert table.predicted(other, space) is None


# Fewer blocks than the toys' have: each letter and layout is a program, and so is its gradient.
SPACE, PARENT = Space(("afi", "wf"), ("i",)), Layout("aw", "i")


@pytest.fixture
def quick(monkeypatch):
    """Rounds as short as can be: what is timed counts here, not how well."""
    monkeypatch.setattr(latency, "_SECONDS", 1e-4)


def model():
    return spaces.with_layout(toys.autoencoder(), PARENT)


@pytest.mark.usefixtures("quick")
def test_every_letter_and_layout_is_timed_in_the_runs_own_type(monkeypatch):
    types = set()

    def cast(leaf, dtype):
        types.add((made := step.cast(leaf, dtype)).dtype)
        return made

    monkeypatch.setattr(latency, "cast", cast)
    rows = toys.rows(8)
    table = latency.table(model(), SPACE, rows, "bfloat16", rounds=1)
    assert set(table.blocks) == {"a", "w", "f", "i"}
    seen = latency.measure(model(), [PARENT], rows, "bfloat16", rounds=1)
    assert set(seen) == {PARENT} and types == {np.dtype("bfloat16")}
    one = seen[PARENT]
    assert np.isfinite([one.forward, one.training]).all() and min(one.forward, one.training) > 0


def test_forward_is_the_loss_and_training_descends_its_gradient(monkeypatch):
    monkeypatch.setattr(latency, "_RATE", 0.1)
    own, rows = model(), toys.rows(8)
    batch = Batch(jnp.asarray(rows), index=jnp.arange(len(rows)))
    module = own.init(nnx.Rngs(0), batch)
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def loss(params, number):
        keys = step.row_keys(jax.random.key(0), jnp.int32(number), jnp.arange(8, dtype=jnp.uint32))
        context = Context(keys, jnp.int32(number), lambda each: jnp.mean(each, axis=0))
        return nnx.merge(graph, params, rest).loss(batch, context)[0]

    programs, slope = latency._programs(own, rows, "float32"), jax.jit(jax.grad(loss))
    assert programs[0](3) == pytest.approx(
        float(jax.jit(lambda: module.loss(batch)[0])()), rel=1e-5
    )
    by_hand = params
    for count in (1, 2):
        by_hand = jax.tree.map(lambda p, g: p - 0.1 * g, by_hand, slope(by_hand, count - 1))
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5),
            programs[1](count),
            by_hand,
        )


def test_times_are_of_one_batch_and_the_lower_quartile_of_the_rounds(monkeypatch):
    programs = latency._programs(model(), toys.rows(8), "float32")
    # One of each to begin with; then five rounds, of which two are disturbed and one is a burst.
    forward, training = iter([7.0, 1.2, 9.0, 0.1, 1.0, 8.0]), iter([7.0, 3.0, 30.0, 3.1, 0.2, 20.0])
    seconds, counts = dict(zip(programs, (forward, training), strict=True)), []

    def timed(run, count):
        counts.append(count)
        return next(seconds[run])

    monkeypatch.setattr(latency, "_programs", lambda *arguments: programs)
    monkeypatch.setattr(latency, "_seconds", timed)
    found = latency.of_models([model()], toys.rows(8), "float32", rounds=5)
    assert found == [Latency(1.0, 3.0)]
    # A batch is long enough forward, and steps are many to a loop.
    assert counts == [1, 1, *([1, 4] * 5)]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_layouts_are_timed_in_the_rounds_that_make_the_table():
    """The empty model is timed once, for the table and as a layout."""
    space = Space(("afi", "fi", "w"), ("i",))
    layouts = [Layout("aiw", "i"), Layout("afw", "i"), space.filled("i")]
    table, seen = latency.compared(model(), space, layouts, toys.rows(4), rounds=2)
    assert list(seen) == layouts
    for kind in ("forward", "training"):
        empty = getattr(seen[layouts[2]], kind)
        assert getattr(table.empty, kind) == empty
        predicted = table.predicted(layouts[0], space)
        assert predicted is not None
        added = getattr(table.blocks["a"], kind)
        assert getattr(predicted, kind) == pytest.approx(empty + added, rel=1e-9)
