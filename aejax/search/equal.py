"""Layouts found, made the parent's equals: with wider feed-forward blocks, trained once more.

A layout with less attention has fewer parameters and takes less time. What it could do with as many
as the parent, or in its time, is another question than what it does without.
"""

from typing import Any

from aejax.models import Autoencoder
from aejax.search import latency
from aejax.search import space as spaces
from aejax.search.job import Job
from aejax.search.space import Layout

# A size is the parent's when it is within this share of it; so many guesses of the width are made.
_NEAR, _TRIES = 0.03, 5


def arms(job: Job, layouts: dict[str, Layout], what: str) -> dict[str, Any]:
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


def _width(job: Job, parent: Layout, layout: Layout, what: str) -> dict[str, Any]:
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


def _sizes(job: Job, models: list[Autoencoder], what: str) -> list[float]:
    """Of each model its parameters, or the seconds of a training step."""
    if what == "parameters":
        return [job.parameters(model) for model in models]
    run = job.settings.run
    times = latency.of_models(models, job.rows[: run.batch_size], run.compute)
    return [one.training for one in times]
