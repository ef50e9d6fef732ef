"""Losses of layouts put together from trained blocks, and the choice of one by them."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.data.order import batches
from aejax.models.batch import Batch
from aejax.nn.layout import ATTENTION
from aejax.search import space as spaces
from aejax.search.space import Layout, Space

# Rows per evaluation; few enough for a block's outputs to stay in a CPU's cache.
_AT_A_TIME = 50


@dataclasses.dataclass
class Judge:
    """Loss (nats a row) of any layout, from one trained module that contains all candidate blocks.

    Attributes:
        module: an autoencoder with all candidates.
        space: its candidates.
        rows: prepared rows that layouts are judged by.
    """

    module: Any
    space: Space
    rows: np.ndarray

    def __post_init__(self):
        self.known: dict[tuple[int, ...], float] = {}

    @functools.cached_property
    def _loss(self) -> Callable:
        """One program for all layouts: (state, weights, rows, index, real) -> sum of losses."""
        graph, state = nnx.split(self.module)

        def loss(state, weights, rows, index, real):
            copy = spaces.mixed(nnx.merge(graph, state), weights)
            return copy.loss(Batch(rows, mask=real, index=index))[0] * jnp.sum(real)

        return functools.partial(jax.jit(loss), state)

    def __call__(self, choices: Sequence[int]) -> float:
        """The loss with this candidate in each searched slot."""
        key = tuple(choices)
        if key not in self.known:
            weights = spaces.chosen(self.space, list(choices))
            size = min(_AT_A_TIME, len(self.rows))
            total = 0.0
            for index, real in zip(*batches(len(self.rows), size), strict=True):
                total += float(self._loss(weights, self.rows[index], index, real))
            self.known[key] = total / len(self.rows)
        return self.known[key]


def eliminate(
    judge: Judge, choices: list[int], price: Callable[[str], float], margin: float
) -> tuple[list[int], list[tuple[list[int], float]]]:
    """Puts cheaper candidates in, one slot after the other, while the loss stays within a margin.

    Each time the replacement that costs least loss is made, and all others are scored anew: blocks
    that can each go alone need not be able to go together.

    Args:
        judge: gives losses.
        choices: the layout to begin with.
        price: of a letter.
        margin: nats a row above the loss of the first layout.

    Returns:
        The last choices, and each step's with its loss.
    """
    searched = judge.space.searched
    limit, path = judge(choices) + margin, []
    while True:
        tried = []
        for slot, (_, _, letters) in enumerate(searched):
            now = price(letters[choices[slot]])
            for other, letter in enumerate(letters):
                if price(letter) < now:
                    new = [*choices[:slot], other, *choices[slot + 1 :]]
                    tried.append((judge(new), new))
        if not tried or min(tried)[0] > limit:
            return choices, path
        loss, choices = min(tried)
        path.append((choices, loss))


def replace_one(judge: Judge, parent: list[int]) -> list[np.ndarray]:
    """How much the loss rises with another candidate in one slot of the parent: an array a slot."""
    base = judge(parent)
    return [
        np.array(
            [
                judge([*parent[:slot], other, *parent[slot + 1 :]]) - base
                for other in range(len(letters))
            ]
        )
        for slot, (_, _, letters) in enumerate(judge.space.searched)
    ]


def cheapest(
    scores: Sequence[np.ndarray], prices: Sequence[np.ndarray], budget: float
) -> list[int] | None:
    """The candidate of each slot with the least sum of scores whose prices fit the budget, exactly.

    A 0-1 program: minimise s.z with one z a slot and p.z <= budget (Puzzle, section 4).

    Args:
        scores: of each slot's candidates.
        prices: likewise.
        budget: what all blocks together may cost.

    Returns:
        A candidate a slot, or None where nothing fits.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    sizes = [len(each) for each in scores]
    one = np.zeros((len(sizes), sum(sizes)))
    for slot, (start, size) in enumerate(zip(np.cumsum([0, *sizes]), sizes, strict=False)):
        one[slot, start : start + size] = 1
    price = np.concatenate(prices)
    found = milp(
        np.concatenate(scores),
        integrality=np.ones(len(price)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one, 1, 1),
            LinearConstraint(price[None], -np.inf, budget + 1e-9),
        ],
    )
    if found.x is None:
        return None
    cut = np.split(found.x, np.cumsum(sizes)[:-1])
    return [int(np.argmax(each)) for each in cut]


def least_similar(space: Space, parent: Layout, similarities: np.ndarray, attention: int) -> Layout:
    """The parent with so many blocks of attention: those that change their input most.

    In place of the others stands a feed-forward block where it is a candidate, else the first
    candidate that is no attention.

    Args:
        space: candidates.
        parent: the layout that blocks are dropped from.
        similarities: cosine similarity of each searched slot's input and output.
        attention: how many blocks of attention are to stay.
    """
    choices, left = space.choices(parent), parent.count(ATTENTION)
    for slot in np.argsort(-similarities, kind="stable"):
        letters = space.searched[slot][2]
        others = sorted((letter for letter in letters if letter not in ATTENTION), key="f".__ne__)
        if left > attention and letters[choices[slot]] in ATTENTION and others:
            choices[slot], left = letters.index(others[0]), left - 1
    return space.layout(choices)


def budgets(prices: Sequence[np.ndarray], parent: list[int], most: int = 9) -> list[float]:
    """Sums of prices to look for layouts at: from none to the parent's, at most so many."""
    whole = float(sum(each[choice] for each, choice in zip(prices, parent, strict=True)))
    least = float(sum(each.min() for each in prices))
    steps = sorted({round(float(price), 9) for price in itertools.chain(*prices) if price > 0})
    if len(steps) == 1:  # all that cost anything cost the same: count them
        count = round((whole - least) / steps[0])
        if count < most:
            return [least + steps[0] * number for number in range(count + 1)]
    return list(np.linspace(least, whole, most))
