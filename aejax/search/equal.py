"""Layouts found, made the parent's equals: with wider feed-forward blocks, trained once more.

A layout with less attention has fewer parameters and takes less time. What it could do with as many
as the parent, or in its time, is another question than what it does without.
"""

from collections.abc import Callable
from typing import Any

from aejax.search import latency
from aejax.search import space as spaces
from aejax.search.job import Job, parameters, trained
from aejax.search.space import Layout


def arms(job: Job, layouts: dict[str, Layout], what: str) -> dict[str, Any]:
    """Layouts found, with feed-forward blocks as wide as makes them the parent's equals."""
    found = {layouts[name] for name in ("supernet", "replacement") if name in layouts}
    out = {}
    for layout in sorted(found - {layouts["parent"]}, key=str):
        name = f"width-{what}-{layout}".replace("|", "-")
        one = job.kept(f"{name}.json", lambda layout=layout: _width(job, layouts, layout, what))
        if one["feed_forward"]:
            model = spaces.with_layout(job.settings.run.model, layout)
            model = spaces.with_width(model, one["feed_forward"])
            named = f"{layout}-f{one['feed_forward']}"
            out[str(layout)] = {**one, **trained(job, named, model)}
    return out


def _width(job: Job, layouts: dict[str, Layout], layout: Layout, what: str) -> dict[str, Any]:
    """How wide feed-forward blocks must be, and what the layout then has of `what`.

    Both grow linearly with the width; time is measured at two widths, with the parent, in turn. A
    width of 0 says that none does it: the layout has no feed-forward block, or costs more anyway.
    """
    base, parent = job.settings.run.model, layouts["parent"]
    own: int = base.coder.feed_forward
    if layout.count("f") == 0:
        return {"feed_forward": 0}
    size = parameters
    if what == "latency":
        size = _times(job, {(parent, own), (layout, own), (layout, 2 * own)})
    goal, low, high = size(job, parent, own), size(job, layout, own), size(job, layout, 2 * own)
    width = round(own + own * (goal - low) / max(high - low, 1e-12))
    if width < 1:
        return {"feed_forward": 0}
    if what == "latency":
        size = _times(job, {(parent, own), (layout, width)})
    return {
        "feed_forward": width,
        "has": size(job, layout, width),
        "parent_has": size(job, parent, own),
    }


def _times(job: Job, wanted: set[tuple[Layout, int]]) -> Callable[[Job, Layout, int], float]:
    """Seconds of a training step of each layout with each width, measured in turn."""
    settings, order = job.settings, sorted(wanted, key=str)
    models = [
        spaces.with_width(spaces.with_layout(settings.run.model, layout), width)
        for layout, width in order
    ]
    batch = job.rows[: settings.run.batch_size]
    times = latency.of_models(models, batch, settings.run.compute)
    seen = {key: one.training for key, one in zip(order, times, strict=True)}
    return lambda job, layout, width: seen[layout, width]
