"""Layouts of the same blocks, trained for real: which slots should hold those that were found?

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification"), which Li
and Talwalkar 2019 ("Random Search and Reproducibility for Neural Architecture Search") found to be
what scores by shared weights should be held against. In three rounds layouts train

    for half of the duration with one seed, to the end of it, and to the end with two seeds more,

and after each the third with the lowest losses goes on, on the rows that layouts are chosen by. A
run that goes on is the same run, longer.
"""

import math
from typing import Any

import numpy as np

from aejax.config import steps_of
from aejax.search.job import Job
from aejax.search.space import Layout, Space

# Tries for each layout that is drawn.
_DRAWS = 1000
# Of each round: the share of the duration that its runs have, and its seeds.
_ROUNDS = ((0.5, 1), (1.0, 1), (1.0, 3))
# One of so many goes on.
_KEEP = 3


def network(layout: Layout) -> str:
    """The layout without slots that hold nothing: where in a stack they stand is the same."""
    return str(layout).replace("i", "")


def rearranged(space: Space, layout: Layout, count: int, seed: int) -> list[Layout]:
    """Different networks of the blocks that a layout has, in other slots; fewer if there are few.

    Args:
        space: the candidates of the slots.
        layout: whose blocks are dealt out anew; it is none of those that come back.
        count: how many.
        seed: of the draws.
    """
    letters = [getattr(layout, stack)[number] for stack, number, _ in space.searched]
    draw = np.random.RandomState(seed)
    known, out = {network(layout)}, []
    for _ in range(_DRAWS * count):
        dealt = [letters[place] for place in draw.permutation(len(letters))]
        each = [candidates for _, _, candidates in space.searched]
        if all(one in candidates for one, candidates in zip(dealt, each, strict=True)):
            choices = [candidates.index(one) for one, candidates in zip(dealt, each, strict=True)]
            made = space.layout(choices)
            if network(made) not in known:
                known.add(network(made))
                out.append(made)
        if len(out) == count:
            break
    return out


def best(job: Job, layout: Layout) -> dict[str, Any]:
    """The best of this layout and others of its blocks, `settings.trials` in all.

    Returns:
        layout: the best one's letters; rounds: of each, {layout: mean loss, in nats a row}.
    """
    settings, rows = job.settings, len(job.learning)
    seed, duration = settings.run.seed, settings.run.duration
    whole = steps_of("run.duration", duration, settings.run.batch_size, rows)
    left = [layout, *rearranged(settings.space(), layout, settings.trials - 1, seed)]
    rounds = []
    for number, (share, seeds) in enumerate(_ROUNDS, 1):
        steps, tried = math.ceil(share * whole), list(left)

        def losses(steps: int = steps, seeds: int = seeds, tried: list = tried) -> dict[str, float]:
            job.say(f"trying {len(tried)} layouts: {steps} steps, {seeds} seed(s)")
            return {str(each): _loss(job, each, steps, seeds) for each in tried}

        # Written before any of its runs goes on: their losses are those of this round then.
        found = job.kept(f"trials-{number}.json", losses)
        rounds.append(found)
        left = sorted(tried, key=lambda each: found[str(each)])[: math.ceil(len(tried) / _KEEP)]
    return {"layout": str(left[0]), "rounds": rounds}


def _loss(job: Job, layout: Layout, steps: int, seeds: int) -> float:
    """The mean loss over seeds after so many steps, on the rows that layouts are chosen by."""
    losses = []
    for seed in range(job.settings.run.seed, job.settings.run.seed + seeds):
        config = job.config(job.model(layout), f"{steps} steps", seed)
        name = f"trials/{layout}-{seed}".replace("|", "-")
        losses.append(job.train(name, config, (job.learning, job.judging)).metrics["nll"])
    return float(np.mean(losses))
