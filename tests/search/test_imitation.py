"""The library: candidates learn what the parent's block adds, and the parent stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.models import Batch
from aejax.runs import arrays
from aejax.search import imitation
from aejax.search import space as spaces
from aejax.search.imitation import Imitation
from aejax.training.state import split
from tests.search import toys

ROWS = jnp.asarray(toys.rows(6))
BATCH = Batch(ROWS, index=jnp.arange(6))


def library():
    settings = Imitation(toys.autoencoder(), toys.SPACE, toys.PARENT)
    return toys.scrambled(settings.init(nnx.Rngs(0), BATCH))


def test_only_candidates_that_are_not_the_parents_learn():
    graph, params, rest = split(library())

    def loss(params):
        module = nnx.merge(graph, params, rest["rows"], rest["other"])
        return module.loss(BATCH, toys.context(6))[0]

    found = arrays.flatten(jax.jit(jax.grad(loss))(params))
    own = dict(
        zip(
            ((stack, str(number)) for stack, number, _ in toys.SPACE.searched),
            toys.SPACE.choices(toys.PARENT),
            strict=True,
        )
    )
    for name, leaf in found.items():
        parts = name.split("/")
        candidate = "candidates" in parts
        learns = candidate and int(parts[6]) != own[parts[1], parts[4]]
        assert bool(jnp.any(leaf != 0)) == learns, name


def test_the_loss_beside_it_is_the_parents():
    module = library()
    parameters = {name: np.asarray(x) for name, x in arrays.flatten(split(module)[1]).items()}
    parent = spaces.with_layout(toys.autoencoder(), toys.PARENT).init(nnx.Rngs(1), BATCH)
    graph, params, rest = split(parent)
    given = imitation.grafted(parameters, toys.SPACE, toys.PARENT)
    new = arrays.unflatten(params, given)
    parent = nnx.merge(graph, new, rest["rows"], rest["other"])
    np.testing.assert_allclose(module.loss(BATCH)[1]["nll"], parent.loss(BATCH)[0], rtol=1e-6)
    back = imitation.insert_params(given, toys.SPACE, toys.PARENT)
    assert all(np.array_equal(leaf, parameters[name]) for name, leaf in back.items())
    assert len(back) == len(given)


def test_an_error_is_the_share_of_what_is_missed():
    module = library()
    slot = spaces.choice_slots(module.model)[0]
    x = jax.random.normal(jax.random.key(3), (2, 16, 8))
    slot.imitating = 0
    y = slot(x)
    attention, forward, _ = slot.candidates
    np.testing.assert_allclose(y, attention(x), atol=1e-6)
    target, other = np.float64(attention(x) - x), np.float64(forward(x) - x)
    share = np.mean((target - other) ** 2) / np.mean(target**2)
    np.testing.assert_allclose(slot.error[...], [0.0, share, 1.0], rtol=1e-4, atol=1e-6)
    a, b = np.float64(x), np.float64(y)
    cosine = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    np.testing.assert_allclose(slot.similarity[...], cosine.mean(), rtol=1e-5)
