"""Layouts of the same blocks, trained for real: which slots should hold those that were found?

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification"), which Li
and Talwalkar 2019 ("Random Search and Reproducibility for Neural Architecture Search") found to be
what scores by shared weights should be held against. In three rounds layouts train

    for half of the duration with one seed, to the end of it, and to the end with two seeds more,

and after each the third with the lowest losses goes on, until one is left; losses are those of all
rows that are held to choose. What goes on in the second round is the same run, longer (a schedule
of the learning rate, if there is one, is then stretched, for all alike).
"""

import functools
import itertools
import math
from typing import Any

import numpy as np

from aejax.config import steps_of
from aejax.search.job import Job
from aejax.search.space import Layout, rearranged
from aejax.training.loop import NotFinite

# Of each round: the share of the duration that its runs have, and its seeds.
_ROUNDS = ((0.5, 1), (1.0, 1), (1.0, 3))
# One of so many goes on.
_KEEP = 3


def best(job: Job, layout: Layout) -> dict[str, Any]:
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
        found = job.load_or_compute(f"trials-{number}.json", make)
        rounds.append(found)
        left = sorted(left, key=lambda each: found[str(each)])[: math.ceil(len(left) / _KEEP)]
    return {"layout": str(left[0]), "rounds": rounds}


def _round(job: Job, layouts: list[Layout], steps: int, seeds: int) -> dict[str, float]:
    """The mean loss of each layout over seeds, after so many steps."""
    job.say(f"trying {len(layouts)} layouts: {steps} steps, {seeds} seed(s)")
    first = job.settings.run.seed
    each = itertools.product(layouts, range(first, first + seeds))
    losses = job.parallel_map(lambda one: _loss(job, one[0], steps, one[1]), each)
    means = np.reshape(losses, (len(layouts), seeds)).mean(1)
    return {str(layout): float(mean) for layout, mean in zip(layouts, means, strict=True)}


def _loss(job: Job, layout: Layout, steps: int, seed: int) -> float:
    """The loss on all rows that are held to choose; infinite where it becomes no number."""
    config = job.config(job.model(layout), f"{steps} steps", seed)
    name = f"trials/{layout}-{seed}".replace("|", "-")
    try:
        return job.train(name, config, (job.learning, job.judging)).metrics["nll"]
    except NotFinite as error:
        job.say(f"{layout}: {error}")
        return math.inf
