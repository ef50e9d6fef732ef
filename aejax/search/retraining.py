"""Layouts of the same blocks, trained for real: which slots should hold those that were found?

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification"), which Li
and Talwalkar 2019 ("Random Search and Reproducibility for Neural Architecture Search") found to be
what scores by shared weights should be held against. In three rounds layouts train

    for half of the duration with one seed, to the end of it, and to the end with two seeds more,

and after each the third with the lowest losses goes on, until one is left; losses are those of all
rows that are held to choose. What goes on in the second round is the same run, longer (a schedule
of the learning rate, if there is one, is then stretched, for all layouts in the same way).

Layouts found, made the parent's equals: with wider feed-forward blocks, trained once more.

A layout with less attention has fewer parameters and takes less time. What it could do with as many
as the parent, or in its time, is another question than what it does without.
"""

import functools
import itertools
import math
from typing import Any

import numpy as np

from aejax.config import steps_of
from aejax.models import Autoencoder
from aejax.search import latency
from aejax.search import space as spaces
from aejax.search.job import SearchFolder
from aejax.search.space import Layout, rearranged
from aejax.training.loop import NotFinite

# Of each round: the share of the duration that its runs have, and its seeds.
_ROUNDS = ((0.5, 1), (1.0, 1), (1.0, 3))
# One of so many goes on.
_KEEP = 3


def successive_halving(job: SearchFolder, layout: Layout) -> dict[str, Any]:
    """The best of this layout and others of its blocks, `settings.trials` in all.

    Returns:
        layout: the best one's letters; rounds: of each round, {layout: mean loss, nats a row}.
    """
    settings, rows = job.settings, len(job.learning)
    seed, duration = settings.run.seed, settings.run.duration
    whole = steps_of("run.duration", duration, settings.run.batch_size, rows)
    left = [layout, *rearranged(settings.space(), layout, settings.trials - 1, seed)]
    if len(left) < settings.trials:
        job.say(f"config.trials={settings.trials}: {len(left)} different ones were found")
    rounds = []
    for number, (share, seeds) in enumerate(_ROUNDS, 1):
        if number > 1 and len(left) == 1:
            break
        # Written before any of its runs goes on: their losses are those of this round then.
        make = functools.partial(_round, job, left, math.ceil(share * whole), seeds)
        found = job.load_or_compute(f"trials-{number}.json", make, shared=True)
        rounds.append(found)
        left = sorted(left, key=lambda each: found[str(each)])[: math.ceil(len(left) / _KEEP)]
    return {"layout": str(left[0]), "rounds": rounds}


def _round(job: SearchFolder, layouts: list[Layout], steps: int, seeds: int) -> dict[str, float]:
    """The mean loss of each layout over seeds, after so many steps."""
    job.say(f"trying {len(layouts)} layouts: {steps} steps, {seeds} seed(s)")
    first, duration = job.settings.run.seed, f"{steps} steps"

    def folder(one: tuple[Layout, int]) -> str:
        return f"trials/{one[0]}-{one[1]}".replace("|", "-")

    def loss(one: tuple[Layout, int]) -> float:
        """On all rows that are held to choose; infinite where it becomes no number."""
        config = job.config(job.model(one[0]), duration, one[1])
        try:
            return job.train(folder(one), config, (job.learning, job.judging)).metrics["nll"]
        except NotFinite as error:
            job.say(f"{one[0]}: {error}")
            return math.inf

    each = itertools.product(layouts, range(first, first + seeds))
    losses = job.shared_map(loss, each, folder, duration)
    means = np.reshape(losses, (len(layouts), seeds)).mean(1)
    return {str(layout): float(mean) for layout, mean in zip(layouts, means, strict=True)}


# A size is the parent's when it is within this share of it; so many guesses of the width are made.
_NEAR, _TRIES = 0.03, 5


def at_equal_cost(job: SearchFolder, layouts: dict[str, Layout], what: str) -> dict[str, Any]:
    """Layouts found, with feed-forward blocks as wide as makes them the parent's equals."""
    found = {layouts[name] for name in ("supernet", "replacement", "trials") if name in layouts}
    widths, models = {}, {}
    # All widths first: they may be timed, and nothing trains beside that.
    for layout in sorted(found - {layouts["parent"]}, key=str):
        name = f"width-{what}-{layout}".replace("|", "-")
        one = job.load_or_compute(
            f"{name}.json", lambda layout=layout: _width(job, layouts["parent"], layout, what)
        )
        if wide := one["feed_forward"]:
            widths[str(layout)] = one
            models[f"{layout}-f{wide}"] = spaces.with_width(job.model(layout), wide)
    trained = job.retrain(models).values()
    return {layout: {**widths[layout], **one} for layout, one in zip(widths, trained, strict=True)}


def _width(job: SearchFolder, parent: Layout, layout: Layout, what: str) -> dict[str, Any]:
    """How wide feed-forward blocks must be, and what the layout then has of `what`.

    Parameters grow linearly with the width, time nearly so: the first guess is a straight line's,
    and each further one lies on the line between the nearest sizes below and above the parent's.
    Models are timed in turn with the parent. A width of 0 says that there is none to try: the
    layout has no feed-forward block, or as it is comes nearest.
    """
    if not layout.count("f"):
        return {"feed_forward": 0}
    whole, narrow = job.model(parent), job.model(layout)
    own: int = job.settings.run.model.coder.feed_forward
    goal, low, high = _sizes(job, [whole, narrow, spaces.with_width(narrow, 2 * own)], what)
    tried = {own: (low, goal), 2 * own: (high, goal)}
    for _ in range(_TRIES):
        width = _between({wide: has / goal for wide, (has, goal) in tried.items()})
        if width < 1 or width in tried:
            break
        goal, has = _sizes(job, [whole, spaces.with_width(narrow, width)], what)
        tried[width] = (has, goal)
        if abs(has / goal - 1) <= _NEAR:
            break
    width = min(tried, key=lambda wide: abs(tried[wide][0] / tried[wide][1] - 1))
    has, goal = tried[width]
    return {"feed_forward": 0 if width == own else width, "has": has, "parent_has": goal}


def _between(shares: dict[int, float]) -> int:
    """The width at which a line through two known shares is 1: those around it, if there are.

    0 where the line falls: times are noisy. At most four times the widest.
    """
    below = [wide for wide in shares if shares[wide] <= 1]
    above = [wide for wide in shares if shares[wide] > 1]
    nearest = sorted(shares, key=lambda wide: abs(shares[wide] - 1))[:2]
    one, other = (max(below), min(above)) if below and above else nearest
    slope = (shares[other] - shares[one]) / (other - one)
    if slope <= 0:
        return 0
    return round(min(one + (1 - shares[one]) / slope, 4 * max(shares)))


def _sizes(job: SearchFolder, models: list[Autoencoder], what: str) -> list[float]:
    """Of each model its parameters, or the seconds of a training step."""
    if what == "parameters":
        return [job.parameters(model) for model in models]
    run = job.settings.run
    times = latency.of_models(models, job.rows[: run.batch_size], run.compute)
    return [one.training for one in times]
