"""How wide feed-forward blocks are made, so that a layout is the parent's equal."""

import jax
import pytest

from aejax.search import comparing, report, retraining
from aejax.search import space as spaces
from aejax.search.job import SearchFolder
from aejax.search.latency import Latency
from aejax.search.space import Layout
from aejax.training.setup import setup
from tests.search.test_run import settings

PARENT, FOUND = Layout("afwa", "if"), Layout("ffwa", "if")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A search in which nothing is trained."""
    own = settings(equal=("parameters", "latency"), seeds=2)
    run_setup = setup(own.run, devices=jax.devices()[:1])
    monkeypatch.setattr(
        SearchFolder, "retrain", lambda job, models: {name: {"nll": [1.0, 1.5]} for name in models}
    )
    return SearchFolder(
        own,
        str(tmp_path),
        run_setup.train,
        run_setup.train,
        run_setup.test,
        run_setup.preparation,
        {},
    )


def test_at_equal_parameters(job):
    one = retraining.at_equal_cost(job, {"parent": PARENT, "supernet": FOUND}, "parameters")[
        str(FOUND)
    ]
    # A hidden unit of its three feed-forward blocks of width 8 has 17 numbers each.
    goal = job.parameters(job.model(PARENT))
    assert abs(one["has"] - goal) <= 3 * 17 / 2 and one["parent_has"] == goal
    narrow = job.parameters(job.model(FOUND))
    assert one["has"] - narrow == 3 * 17 * (one["feed_forward"] - 8)


def test_at_equal_time_and_never_timed_twice(job, monkeypatch):
    timed = []

    def of_models(models, rows, compute):
        """A block of attention takes 7, a feed-forward block 1 and half of its hidden units."""
        timed.append(len(models))
        layouts = [(spaces.of(model), model.coder.feed_forward) for model in models]
        times = [7.0 * each.count("aw") + each.count("f") * (1 + w / 2) for each, w in layouts]
        return [Latency(0.0, time) for time in times]

    monkeypatch.setattr(retraining.latency, "of_models", of_models)
    layouts = {"parent": PARENT, "supernet": FOUND, "replacement": FOUND}
    found = retraining.at_equal_cost(job, layouts, "latency")
    # 3 x 7 + 2 x 5 against 2 x 7 + 3 x (1 + w / 2): w is 28 / 3.
    assert found[str(FOUND)]["feed_forward"] == 9 and timed == [3, 2]
    assert found[str(FOUND)]["parent_has"] == 31.0 and found[str(FOUND)]["has"] == 30.5
    assert retraining.at_equal_cost(job, layouts, "latency") == found and timed == [3, 2]


def test_a_time_that_is_no_straight_line_is_met(job, monkeypatch):
    def of_models(models, rows, compute):
        """Feed-forward blocks take as long as before up to a width of 10."""
        layouts = [(spaces.of(model), model.coder.feed_forward) for model in models]
        times = [7.0 * a.count("aw") + a.count("f") * max(w - 7, 3) for a, w in layouts]
        return [Latency(0.0, time) for time in times]

    monkeypatch.setattr(retraining.latency, "of_models", of_models)
    one = retraining.at_equal_cost(job, {"parent": PARENT, "supernet": FOUND}, "latency")[
        str(FOUND)
    ]
    # 3 x 7 + 2 x 3 against 2 x 7 + 3 x (w - 7): 11.3. The first guess is 10, which takes 23.
    assert (one["feed_forward"], one["has"], one["parent_has"]) == (11, 26.0, 27.0)


@pytest.mark.parametrize(
    ("shares", "width"),
    [
        ({256: 0.8, 512: 0.9}, 768),
        ({256: 0.8, 512: 0.9, 640: 1.1}, 576),
        ({256: 0.9, 512: 0.96, 683: 0.955}, 0),  # noise: wider and quicker
        ({400: 1.05, 512: 0.95}, 0),
        ({256: 0.5, 512: 0.5001}, 2048),  # not to millions
        ({256: 1.2, 512: 2.0}, 192),
    ],
)
def test_the_next_guess_of_a_width(shares, width):
    assert retraining._between(shares) == width


def test_a_layout_that_no_width_makes_equal_is_left_out(job):
    bare = Layout("aiwa", "ii")
    assert retraining.at_equal_cost(job, {"parent": PARENT, "supernet": bare}, "parameters") == {}


def test_arms_are_told(job):
    arms = retraining.at_equal_cost(job, {"parent": PARENT, "supernet": FOUND}, "parameters")
    again = {str(each): {"nll": [1.0, 1.4], "parameters": 1} for each in (PARENT, FOUND)}
    layouts = {"parent": str(PARENT), "supernet": str(FOUND)}
    found = {"layouts": layouts, "again": again, "equal": {"parameters": arms}, "margin": 0.1}
    wide = arms[str(FOUND)]["feed_forward"]
    assert any(
        f"blocks of {wide}, at the parent's parameters" in each for each in comparing.notes(found)
    )
    row = report.table(found)[-1]
    assert row[:4] == [str(FOUND), f"f{wide}, equal parameters", "2", str(arms[str(FOUND)]["has"])]
