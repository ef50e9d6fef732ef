"""Choosing among scores: exact selection, and elimination where scores do not add up."""

import itertools

import numpy as np
import pytest

from aejax.search import choosing
from aejax.search.space import Layout, Space

SPACE = Space(("afi",) * 4, ("i",))
PRICES = {"a": 1.0, "f": 0.25, "i": 0.0}


@pytest.mark.parametrize("seed", range(20))
def test_selection_is_what_trying_all_layouts_finds(seed):
    draw = np.random.RandomState(seed)
    sizes = draw.randint(2, 4, 5)
    scores = [draw.randn(size) for size in sizes]
    prices = [draw.uniform(0, 1, size) for size in sizes]
    budget = draw.uniform(0.5, 3)
    found = choosing.cheapest(scores, prices, budget)
    best = None
    for choices in itertools.product(*map(range, sizes)):
        price = sum(each[c] for each, c in zip(prices, choices, strict=True))
        score = sum(each[c] for each, c in zip(scores, choices, strict=True))
        if price <= budget and (best is None or score < best[0]):
            best = (score, list(choices))
    assert found == (None if best is None else best[1])


class Redundant:
    """A model in which slot 1 or slot 2 must attend: each can go alone, not both."""

    space = SPACE

    def __call__(self, choices):
        attends = [choice == 0 for choice in choices]
        return 0.01 * sum(choices) + (0.0 if attends[1] or attends[2] else 5.0)


def test_elimination_scores_anew_after_each_replacement():
    judge = Redundant()
    choices, path = choosing.eliminate(judge, [0, 0, 0, 0], PRICES.__getitem__, 1.0)
    assert sum(choice == 0 for choice in choices) == 1
    assert choices[1] == 0 or choices[2] == 0
    assert all(loss <= 1.0 for _, loss in path)
    prices = [sum(PRICES["afi"[choice]] for choice in each) for each, _ in path]
    assert prices == sorted(prices, reverse=True)


def test_one_by_one_scores_are_blind_to_what_only_both_can_do():
    """Why a layout that was chosen by a sum of scores has to be measured."""
    scores = choosing.replace_one(Redundant(), [0, 0, 0, 0])
    each = [np.array([PRICES[letter] for letter in "afi"])] * 4
    found = choosing.cheapest(scores, each, 0.0)
    assert found is not None
    assert sum(score[c] for score, c in zip(scores, found, strict=True)) < 0.1
    assert Redundant()(found) > 5


def test_budgets_count_where_all_that_costs_costs_the_same():
    each = [np.array([1.0, 0.0, 0.0])] * 3
    assert choosing.budgets(each, [0, 0, 0]) == [0, 1, 2, 3]
    spread = choosing.budgets([np.array([1.0, 0.3, 0.0])] * 3, [0, 0, 0], most=4)
    np.testing.assert_allclose(spread, [0, 1, 2, 3])


def test_attention_that_changes_its_input_least_goes_first():
    space = Space(("afi", "fi", "wif", "ai"), ("i",))
    parent = Layout("afwa", "i")
    similar = np.array([0.9, 0.99, 0.95, 0.5])
    found = [str(choosing.least_similar(space, parent, similar, n)) for n in (3, 2, 1, 0)]
    assert found == ["afwa|i", "affa|i", "fffa|i", "fffi|i"]
