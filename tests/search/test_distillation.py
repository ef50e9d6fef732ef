"""Distillation: its loss against an independent sum, what it trains, and what it leaves behind."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from aejax.config import put
from aejax.data.sources.base import Arrays
from aejax.models import Batch
from aejax.runs import loading
from aejax.search import imitation
from aejax.search import space as spaces
from aejax.search.space import Layout
from aejax.training.dispatch import dispatch
from aejax.training.setup import setup
from tests.search import toys
from tests.training.processes import rows as written_rows
from tests.training.runs import losses, train

ROWS = toys.rows(6)


@pytest.fixture(scope="module")
def pair():
    """A parent with random parameters, and a child of another layout that learns from it."""
    parent = toys.scrambled(toys.made(toys.autoencoder(), ROWS))
    model = spaces.with_layout(toys.autoencoder(), Layout("fw", "f"))
    settings = imitation.Distilled(model, imitation.Teacher(parent), 0.7)
    child = settings.init(nnx.Rngs(1), Batch(jnp.asarray(ROWS)))
    return parent, toys.scrambled(child)


def beside(teacher: imitation.Teacher):
    """The context of a step whose loss knows this teacher."""
    return dataclasses.replace(toys.context(len(ROWS)), loss_inputs=teacher.parameters)


def test_the_loss_is_a_share_of_the_divergence_and_a_share_of_the_datas_own(pair):
    parent, child = pair
    batch, context = Batch(jnp.asarray(ROWS)), beside(child.teacher)
    loss, terms = child.loss(batch, context)
    logits = [np.float64(each.forward(batch, context).parameters) for each in (parent, child)]
    hidden = np.asarray(child.forward(batch, context).weight)
    own, other = (special.log_softmax(each, axis=-1) for each in logits)
    divergence = np.sum(hidden[..., None] * np.exp(own) * (own - other)) / len(ROWS)
    picked = np.take_along_axis(other, ROWS[..., None].astype(int), axis=-1)[..., 0]
    nll = -np.sum(hidden * picked) / len(ROWS)
    assert 0 < hidden.mean() < 1 and divergence > 0.1
    assert terms["divergence"] == pytest.approx(divergence, rel=1e-4)
    assert terms["nll"] == pytest.approx(nll, rel=1e-4)
    assert loss == pytest.approx(0.7 * divergence + 0.3 * nll, rel=1e-4)


def test_the_parent_leaves_nothing_out(pair):
    """With dropout the parent gives what it gives without, though it is corrupted alike."""
    batch, context = Batch(jnp.asarray(ROWS)), toys.context(len(ROWS))
    given = []
    for dropout in (0.0, 0.5):
        model = toys.autoencoder()
        model.coder.dropout = dropout
        parent = toys.scrambled(toys.made(model, ROWS))
        teacher = imitation.Teacher(parent)
        given.append(teacher(teacher.parameters, batch, context).parameters)
        own = parent.forward(batch, context).parameters
        assert np.array_equal(own, given[-1]) == (dropout == 0)
    np.testing.assert_array_equal(*given)


def test_evaluated_it_is_the_autoencoder(pair):
    child = pair[1]
    plain = child.settings.init(nnx.Rngs(0), Batch(jnp.asarray(ROWS)))
    nnx.update(plain, nnx.state(child))
    batch = Batch(jnp.asarray(ROWS))
    assert child.loss(batch)[0] == plain.loss(batch)[0]
    assert set(child.loss(batch)[1]) == set(plain.loss(batch)[1])


def test_the_parent_is_no_part_of_what_is_trained(pair):
    child = pair[1]
    fresh = child.settings.init(nnx.Rngs(0), Batch(jnp.asarray(ROWS)))
    assert jax.tree.structure(nnx.state(child)) == jax.tree.structure(nnx.state(fresh))


def written(program: str) -> int:
    """Letters of the longest array whose numbers stand in a program's text."""
    return max((len(found) for found in re.findall(r"dense<([^>]*)>", program)), default=0)


def test_the_parents_numbers_are_an_argument_and_no_part_of_the_program(pair):
    numbers = np.random.RandomState(0).rand(64)
    assert written(jax.jit(lambda x: x + numbers).lower(numbers).as_text()) >= 64
    model, source = toys.autoencoder(), Arrays(toys.rows(64), None, None)
    longest = []
    for objective in (None, imitation.Distilled(model, imitation.Teacher(pair[0]), 0.5)):
        run = setup(toys.config(model), (source, source), objective=objective)
        numbers = [jax.ShapeDtypeStruct((), np.int32)] * 3
        arguments = (run.state, *run.abstract_inputs(), *numbers)
        longest.append(written(jax.jit(dispatch(run.step)).lower(*arguments).as_text()))
    assert longest[0] == longest[1]


WAYS = (
    (8, {}),
    (4, {"parallel": "pmap", "micro_batches": 2, "data.feed": "streaming"}),
)


@pytest.mark.slow
def test_a_child_comes_to_give_what_its_parent_gives_on_any_devices(tmp_path):
    """One and eight, in both styles, both feeds, in pieces; the folder is an autoencoder's own."""
    model = toys.autoencoder("f", "f")
    parent = toys.scrambled(toys.made(toys.autoencoder("a", "f"), ROWS))
    objective = imitation.Distilled(model, imitation.Teacher(parent), 1.0)
    source = Arrays(toys.rows(64), None, None)
    config = toys.config(model)
    config.duration, config.log_every = "60 steps", 1
    given = {"sources": (source, source), "objective": objective}
    train(config, tmp_path, **given)
    written = [row["loss"] for row in written_rows(tmp_path) if row["split"] == "train"]
    alone, begun = losses(config, 60, **given)
    assert written == alone
    for devices, changes in WAYS:
        other = toys.config(model)
        other.duration, other.log_every = "60 steps", 1
        for name, value in changes.items():
            put(other, name, value)
        found, _ = losses(other, 60, devices, begun, **given)
        np.testing.assert_allclose(found, alone, rtol=1e-3)
    module = loading.load(str(tmp_path)).module  # as launch.evaluate reads it
    assert type(module).__name__ == "AutoencoderModule"
    batch, context = Batch(jnp.asarray(ROWS)), toys.context(len(ROWS))

    def gap(module) -> float:
        return module.divergence(
            batch, parent.forward(batch, context), module.forward(batch, context)
        )

    assert gap(module) < 0.7 * gap(toys.made(model, ROWS))
