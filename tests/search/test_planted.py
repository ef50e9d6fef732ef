"""What planted tasks need is proved: by which slots a hidden token can reach its copy at all."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aejax.data.sources.planted import LENGTH
from aejax.models import Batch
from aejax.nn.layout import ATTENTION
from aejax.search import Search
from aejax.search import space as spaces
from aejax.search.space import Layout
from configs import search_copy, search_hop2, search_plant

WINDOW = 5


def seen(letter: str) -> np.ndarray:
    """[tokens, tokens]: whether the first can know of the second after a slot, by definition."""
    away = np.arange(LENGTH)[None] - np.arange(LENGTH)[:, None]
    return {
        "a": np.ones((LENGTH, LENGTH), bool),
        "l": away <= 0,
        "r": away >= 0,
        "w": abs(away) <= WINDOW,
    }.get(letter, away == 0)


def solves(layout: Layout) -> bool:
    """Whether each token knows of its copy, eight away, at the end."""
    steps = [seen(letter) | np.eye(LENGTH, dtype=bool) for letter in layout.encoder]
    reached = functools.reduce(lambda known, step: step.astype(int) @ known > 0, steps)
    tokens = np.arange(LENGTH)
    return bool(np.all(reached[tokens, (tokens + LENGTH // 2) % LENGTH]))


def solving(search: Search) -> list[tuple[int, ...]]:
    """The slots with attention of each layout of the space that solves the task."""
    space = search.space()
    each = itertools.product(*(range(len(letters)) for _, _, letters in space.searched))
    found = (space.layout(list(choices)) for choices in each)
    return [
        tuple(slot for slot, letter in enumerate(layout.encoder) if letter in ATTENTION)
        for layout in found
        if solves(layout)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_of_plant_one_set_of_slots_is_needed_and_enough(seed):
    search = search_plant.get_config()
    search.run.seed = seed
    parent = search.parent().encoder
    needed = tuple(slot for slot, letter in enumerate(parent) if letter in "lr")
    found = set(solving(search))
    assert needed in found and all(set(needed) <= set(slots) for slots in found)
    # The parent has four more blocks of attention than it needs.
    assert sum(letter in ATTENTION for letter in parent) == len(needed) + 4


@pytest.mark.parametrize(("config", "count"), [(search_copy, 1), (search_hop2, 2)])
def test_of_copy_and_hop2_so_many_slots_are_needed_and_any_will_do(config, count):
    found = set(solving(config.get_config()))
    least = {slots for slots in found if len(slots) == min(map(len, found))}
    assert least == set(itertools.combinations(range(6), count))


@pytest.mark.parametrize(
    "module", [search_plant, search_copy, search_hop2], ids=["plant", "copy", "hop2"]
)
def test_a_block_sees_what_it_is_said_to_see(module):
    """By the gradient of each token's output with respect to each token's input."""
    search = module.get_config()
    coder = search.run.model.coder
    for letter in sorted(search.space().letters):
        model = spaces.with_layout(search.run.model, Layout(letter, "i"))
        rows = jnp.zeros((1, LENGTH))
        built = model.init(nnx.Rngs(0), Batch(rows))
        stack = built.encoder.stack
        x = jax.random.normal(jax.random.key(1), (1, LENGTH, coder.width))
        graph, state = nnx.split(stack)

        def run(x, graph=graph, state=state):
            return nnx.merge(graph, state)(x)[0]

        slopes = jax.jacrev(run)(x)[:, :, 0]
        found = np.asarray(jnp.any(slopes != 0, axis=(1, 3)))
        assert np.array_equal(found, seen(letter)), letter
    assert coder.window == WINDOW
