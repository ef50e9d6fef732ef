"""Differences, correlations and what is said of them, against scipy and cases made by hand."""

import numpy as np
import pytest
from scipy import stats

from aejax.search import comparing


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_interval_is_that_of_the_paired_t_test(seeds):
    draw = np.random.RandomState(seeds)
    one, other = draw.randn(seeds), draw.randn(seeds) + 0.3
    found = comparing.difference(one.tolist(), other.tolist())
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert found.mean - found.half == pytest.approx(interval.low)
    assert found.mean + found.half == pytest.approx(interval.high)


def test_what_was_not_shown_is_not_claimed():
    assert comparing.Difference(0.1, 0.1).against(0.25).startswith("within")
    assert comparing.Difference(0.1, 0.05).against(0.25) == "worse, but within the margin of 0.25"
    assert comparing.Difference(-0.1, 0.05).against(0.25) == "better"
    assert comparing.Difference(0.4, 0.1).against(0.25).startswith("worse")
    assert comparing.Difference(0.2, 0.1).against(0.25).startswith("not shown")


def test_the_correlation_is_spearmans_and_its_ceiling_is_that_between_seeds():
    draw = np.random.RandomState(0)
    true = draw.randn(30)
    losses = true[:, None] + 0.5 * draw.randn(30, 3)
    scores = np.round(true, 1)  # with ties
    found = comparing.correlation(scores.tolist(), losses)
    assert found.value == pytest.approx(stats.spearmanr(scores, losses.mean(axis=1)).statistic)
    between = [
        stats.spearmanr(losses[:, i], losses[:, j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert found.ceiling == pytest.approx(np.mean(between))
    assert found.low < found.value < found.high and found.low > 0.5
    blind = comparing.correlation(draw.randn(30).tolist(), losses)
    assert blind.low < 0 < blind.high


def found(parent, without, chosen):
    """What layouts.json holds of a parent of two blocks of attention, none, and one."""
    again = {"afaf": parent, "ffff": without, "afff": chosen}
    clock = {"afaf": 2.0, "ffff": 1.0, "afff": 1.5}
    return {
        "margin": 0.25,
        "layouts": {"parent": "afaf", "ffff": "ffff", "replacement": "afff"},
        "again": {layout: {"nll": values} for layout, values in again.items()},
        "latency": {
            layout: {"measured": {"forward": value, "training": 2 * value + 1}}
            for layout, value in clock.items()
        },
    }


def test_a_layout_stands_beside_its_parent():
    said = comparing.notes(found([1.0, 1.1, 1.2], [3.0, 3.1, 3.2], [1.1, 1.21, 1.3]))
    assert "20.0 deviations" in said[0] and "nothing" not in said[0]
    assert "afff has 1 blocks of attention for the parent's 2" in said[1]
    assert "25% less time forward and 20% less in training" in said[1]
    assert "+0.103" in said[1] and said[1].endswith("worse, but within the margin of 0.25")


def test_where_attention_does_nothing_that_is_said():
    said = comparing.notes(found([1.0, 1.1, 1.2], [1.1, 1.2, 1.3], [1.0, 1.1, 1.2]))
    assert said[0].endswith("this task says nothing about attention")


def test_one_seed_says_nothing():
    assert comparing.notes(found([1.0], [3.0], [1.1])) == []


def test_random_layouts_are_the_measure_of_choice_and_scores():
    own = found([1.0, 1.1], [3.0, 3.1], [1.1, 1.2])
    for number in range(6):
        name = "f" * number + "a" + "f" * (5 - number)
        own["layouts"][f"random {number + 1}"] = name
        own["again"][name] = {"nll": [2.0 + number, 2.0 + number + 0.01]}
        own.setdefault("scores", {})[name] = number**2
        # A trial's slots that hold nothing may stand elsewhere; one of the layouts was not tried.
        trials = own.setdefault("trials", {"rounds": [{}, {"afff": 1.0}]})
        trials["rounds"][0] |= {f"i{name}": -number} if number else {}
        times = {"forward": 1.0, "training": 4.0 + 0.1 * number}
        predicted = {"forward": 1.05 + 0.02 * number, "training": 4.0}
        own["latency"][name] = {"measured": times, "predicted": predicted}
    choice, score, trial, forward, training = comparing.notes(own)[2:]
    assert "-3.35" in choice and "the median of 6 random layouts of the same blocks" in choice
    assert "1.00 (95 %: 1.00 to 1.00); between two seeds: 1.00" in score
    assert "the first trials' losses with the losses of 5 random layouts: -1.00 (" in trial
    assert "which take 1.00 to 1.12 of its time" in choice
    assert "10% of 3 of 6 layouts' forward times, 15.0% off" in forward
    assert "10% of 5 of 6 layouts' training times, 11.1% off" in training


def test_a_layout_stands_beside_those_of_rules():
    own = found([1.0, 1.1, 1.2], [3.0, 3.1, 3.2], [1.1, 1.21, 1.3])
    own["layouts"] |= {"par:2:2": "faff", "cosine": "afff"}
    own["again"]["faff"] = {"nll": [1.5, 1.6, 1.7]}
    own["latency"]["faff"] = own["latency"]["afff"]
    (said,) = [note for note in comparing.notes(own) if "par:2:2" in note]
    assert said.startswith("afff (1 blocks of attention): -0.397") and said.endswith("better")
    assert "par:2:2, faff (1)" in said
