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


def arms(job: Job, layouts: dict[str, Layout], what: str) -> dict[str, Any]:
    """Layouts found, with feed-forward blocks as wide as makes them the parent's equals."""
    found = {layouts[name] for name in ("supernet", "replacement") if name in layouts}
    out = {}
    for layout in sorted(found - {layouts["parent"]}, key=str):
        name = f"width-{what}-{layout}".replace("|", "-")
        one = job.kept(
            f"{name}.json", lambda layout=layout: _width(job, layouts["parent"], layout, what)
        )
        if wide := one["feed_forward"]:
            model = spaces.with_width(job.model(layout), wide)
            out[str(layout)] = {**one, **job.trained(f"{layout}-f{wide}", model)}
    return out


def _width(job: Job, parent: Layout, layout: Layout, what: str) -> dict[str, Any]:
    """How wide feed-forward blocks must be, and what the layout then has of `what`.

    Both grow linearly with the width; models are timed in turn. A width of 0 says that none does
    it: the layout has no feed-forward block, or costs more anyway.
    """
    if not layout.count("f"):
        return {"feed_forward": 0}
    whole, narrow = job.model(parent), job.model(layout)
    own: int = job.settings.run.model.coder.feed_forward
    goal, low, high = _sizes(job, [whole, narrow, spaces.with_width(narrow, 2 * own)], what)
    width = round(own + own * (goal - low) / max(high - low, 1e-12))
    if width < 1:
        return {"feed_forward": 0}
    goal, has = _sizes(job, [whole, spaces.with_width(narrow, width)], what)
    return {"feed_forward": width, "has": has, "parent_has": goal}


def _sizes(job: Job, models: list[Autoencoder], what: str) -> list[float]:
    """Of each model its parameters, or the seconds of a training step."""
    if what == "parameters":
        return [job.parameters(model) for model in models]
    run = job.settings.run
    times = latency.of_models(models, job.rows[: run.batch_size], run.compute)
    return [one.training for one in times]
