"""What a search found, as lines of text and as a page with pictures."""

import json
import os
from typing import Any

import numpy as np

from aejax import files, kinds
from aejax.evaluation import plots
from aejax.evaluation.report import aligned, render
from aejax.evaluation.result import Figure
from aejax.nn.layout import ATTENTION, BLOCKS
from aejax.runs.rows_file import read_rows
from aejax.search import comparing
from aejax.search.settings import Search

REPORT = "report.html"
_COLOURS = {letter: "#d08770" for letter in ATTENTION} | {"f": "#88c0d0", "i": "#eceff4"}


def text(found: dict[str, Any]) -> str:
    """The table of layouts, for a terminal."""
    return "\n".join([*notes(found), *aligned(table(found))])


def notes(found: dict[str, Any]) -> list[str]:
    """What was found, in sentences."""
    out = []
    if own := found.get("supernet"):
        if own["collapsed"]:
            out.append(
                f"supernet: collapsed ({own['layout']} has a loss of {own['loss']:.4g} nats a row"
                " with the supernet's blocks): no result"
            )
        else:
            out.append(
                f"supernet: {own['layout']} (by the largest weights {own['largest']}), loss"
                f" {own['loss']:.4g} nats a row with the supernet's blocks"
            )
    if own := found.get("replacement"):
        out.append(
            f"replacement: {own['layout']} of {len(own['front'])} on the front; the parent"
            f" {found['parent']}, tuned as long, has {own['parent_loss']:.4g} nats a row"
        )
    if own := found.get("trials"):
        first, *later = (str(len(each)) for each in own["rounds"])
        went = f", of which {' and '.join(later)} went on" if later else ""
        out.append(f"trials: {own['layout']}, the best of {first} layouts{went}")
    return out + comparing.notes(found)


def table(found: dict[str, Any]) -> list[list[str]]:
    """Rows of text: the head, then every layout."""
    again, latency = found.get("again", {}), found.get("latency", {})
    head = ["layout", "name", "attention"]
    head += ["parameters", "test nll", "deviation"] if again else []
    head += ["forward ms", "predicted", "training ms", "predicted"] if latency else []
    names: dict[str, list[str]] = {}
    for name, layout in found["layouts"].items():
        names.setdefault(layout, []).append(name)
    rows = []
    for layout, called in names.items():
        row = [layout, ", ".join(called), str(comparing.attention(layout))]
        if again:
            row += [str(again[layout]["parameters"]), *_losses(again[layout])]
        if latency:
            own = latency[layout]
            row += [
                f"{1e3 * own[kind][which]:.3g}" if kind in own else "-"
                for which in ("forward", "training")
                for kind in ("measured", "predicted")
            ]
        rows.append(row)
    for what, arms in found.get("equal", {}).items():
        for layout, one in arms.items():
            has = str(one["has"]) if what == "parameters" else "-"
            training = f"{1e3 * one['has']:.3g}" if what == "latency" else "-"
            row = [layout, f"f{one['feed_forward']}, equal {what}"]
            row += [str(comparing.attention(layout)), has, *_losses(one)]
            rows.append(row + (["-", "-", training, "-"] if latency else []))
    return [head, *rows]


def _losses(measured: dict[str, Any]) -> list[str]:
    """Mean and deviation over seeds."""
    values = np.array(measured["nll"])
    return [f"{values.mean():.5g}", f"{values.std(ddof=1):.4g}" if len(values) > 1 else "-"]


def write(workdir: str, settings: Search, found: dict[str, Any]) -> str:
    """Writes the page; returns its path."""
    head, *rows = table(found)
    page = render(
        "table.html",
        title=f"Search in {os.path.basename(os.path.normpath(workdir))}",
        notes=notes(found),
        heading="Layouts",
        head=head,
        rows=rows,
        tables=[],
        figures=figures(workdir, settings, found),
        all_settings=json.dumps(kinds.to_dict(settings), indent=1),
    )
    path = os.path.join(workdir, REPORT)
    files.write(path, page)
    return path


def figures(workdir: str, settings: Search, found: dict[str, Any]) -> list[Figure]:
    """The drawing of layouts, the front, losses against latency, and weights over time."""
    rows = {name: layout.replace("|", " ") for name, layout in found["layouts"].items()}
    legend = ", ".join(f"{letter} {name}" for letter, name in BLOCKS.items())
    out = [Figure("layouts", plots.boxes_png(rows, _COLOURS), f"Layouts: {legend}.")]
    if own := found.get("replacement"):
        points = {one["layout"]: (one["price"], np.array([one["loss"]])) for one in own["front"]}
        png = plots.points_png(points, (f"price ({settings.price})", "nats a row"), list(points))
        caption = (
            "The front: loss of layouts tuned from grafted blocks, on rows held out to choose."
        )
        out.append(Figure("front", png, caption))
    if (again := found.get("again")) and (latency := found.get("latency")):
        points = {
            layout: (1e3 * latency[layout]["measured"]["training"], np.array(again[layout]["nll"]))
            for layout in again
        }
        random = {each for name, each in found["layouts"].items() if name.startswith("random")}
        axes = ("ms a training step", "test nats a row")
        png = plots.points_png(points, axes, pareto(points), random)
        caption = (
            "Every layout trained again: loss against measured time; bars are one deviation, random"
            " layouts are pale, a triangle at the edge stands for a loss far above."
        )
        out.append(Figure("latency", png, caption))
    if found.get("supernet"):
        out += _weights(workdir, settings)
    return out


def pareto(points: dict[str, tuple[float, np.ndarray]]) -> list[str]:
    """Names of the points that no other beats in both, by rising x."""
    best, out = np.inf, []
    for name, (_, values) in sorted(points.items(), key=lambda item: item[1][0]):
        if values.mean() < best:
            best = values.mean()
            out.append(name)
    return out


def _weights(workdir: str, settings: Search) -> list[Figure]:
    """softmax(a) of attention in each slot, over the supernet's steps."""
    rows = read_rows(os.path.join(workdir, "supernet"))
    rows = [row for row in rows if row["split"] == "train"]
    steps = np.array([row["step"] for row in rows])
    series = {}
    for stack, number, letters in settings.space().searched:
        own = [f"{stack}_{number}_{letter}" for letter in letters if letter in ATTENTION]
        values = np.array([sum(row[name] for name in own) for row in rows])
        series[f"{stack} {number}"] = (steps, values)
    shown = dict(list(series.items())[: plots.MOST_COLOURS])
    png = plots.lines_png(shown, ("step", "weight of attention"))
    return [Figure("weights", png, "The supernet's weight of attention in each slot.")]
