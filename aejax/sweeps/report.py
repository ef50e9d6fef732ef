"""What came out of a sweep: sweep.json, and a page with tables and pictures."""

import json
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from aejax import files, kinds, pictures
from aejax.data.sources.base import Source
from aejax.errors import InputError
from aejax.evaluation import plots
from aejax.evaluation.encoded import peak_of
from aejax.evaluation.report import aligned, render
from aejax.evaluation.result import Figure, Table, shown
from aejax.evaluation.rows import choose_rows, rescaled
from aejax.runs.loading import load
from aejax.sweeps import learning
from aejax.sweeps.cells import SEED, Cell, cell_name, shortened

REPORT, FOUND = "report.html", "sweep.json"
# The setting that says how many numbers a code has; PCA is drawn beside it.
_SIZE = "model.latent_dim"
_ROWS = 10
_STAGES = "Seconds of each stage"


def write(
    workdir: str,
    each: Sequence[Cell],
    records: Sequence[dict[str, Any]],
    rows: Source | None = None,
    curve: str = "",
) -> dict[str, Any]:
    """Writes sweep.json, curves.csv, the pictures and the page; returns what sweep.json holds.

    Args:
        workdir: the sweep's folder.
        each: its cells.
        records: what came out of each.
        rows: the test split, of runs that were given it.
        curve: as `SweepFolder` has it.

    Raises:
        InputError: no run reports this term; nothing was written.
    """
    own = [  # of an earlier version without shares
        {"shares": list(cell.config.model.shares), **one}
        for cell, one in zip(each, records, strict=True)
    ]
    own = [{key: one[key] for key in one if key not in ("config", "data")} for one in own]
    found: dict[str, Any] = {"swept": list(each[0].values), "cells": own}
    learned = learning.read(workdir, groups(found), {one.name: one.config for one in each}, curve)
    found["curve"] = learned.term
    files.write(os.path.join(workdir, learning.CURVES), learning.csv_text(learned, found["swept"]))
    files.write(os.path.join(workdir, FOUND), json.dumps(found, indent=1) + "\n")
    figures = [*curves(found), *learning.figures(learned), *_pictures(workdir, each, rows)]
    for figure in figures:
        files.write(os.path.join(workdir, "figures", f"{figure.name}.png"), figure.png)
    head, *lines = table(found)
    stages = stage_table(found)
    page = render(
        "table.html",
        title=f"Sweep in {os.path.basename(os.path.normpath(workdir))}",
        notes=notes(found),
        heading="Runs",
        head=head,
        rows=lines,
        tables=[Table(_STAGES, stages[0], stages[1:])] if stages else [],
        figures=figures,
        all_settings=json.dumps(kinds.to_dict(each[0].config), indent=1),
    )
    files.write(os.path.join(workdir, REPORT), page)
    return found


class Shown(NamedTuple):
    """A number as it is shown.

    Attributes:
        value: None where it is not finite.
        percent: whether it is in %.
    """

    value: float | None
    percent: bool


def numbers_of(record: dict[str, Any], main: bool = True) -> dict[str, Shown]:
    """The numbers of a run's tasks by name; those of its last evaluation where it has no tasks.

    Args:
        record: of a cell.
        main: only those that tables show.
    """
    out: dict[str, Shown] = {}
    if not record["numbers"]:
        for name, value in record["metrics"].items():
            share = name in record.get("shares", ())
            out[name] = Shown(100 * value if share else value, share)
    for task, numbers in record["numbers"].items():
        percent = record.get("percent", {}).get(task, ())
        for name in record["main"].get(task, []) if main else numbers:
            label = name if name not in out else f"{task}.{name}"
            out[label] = Shown(numbers[name], name in percent)
    return out


def main_line(record: dict[str, Any]) -> str:
    """The main numbers of a run, in a line."""
    return "  ".join(f"{name} {shown(*number)}" for name, number in numbers_of(record).items())


def groups(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """{name: records of the runs that differ in their seeds alone}."""
    short = shortened(found["swept"])
    out: dict[str, list[dict[str, Any]]] = {}
    for one in found["cells"]:
        values = {name: value for name, value in one["settings"].items() if name != SEED}
        out.setdefault(cell_name(values, short) or "all", []).append(one)
    return out


def table(found: dict[str, Any]) -> list[list[str]]:
    """Rows of text: the head, then each group with the mean and deviation over its seeds.

    Where no setting is a number, so that there is no curve, a last row has the mean over groups.
    """
    short = shortened(found["swept"])
    settings = [name for name in found["swept"] if name != SEED]
    names = list(dict.fromkeys(name for one in found["cells"] for name in numbers_of(one)))
    head = [*(short[name] for name in settings), "runs", *(_heading(found, name) for name in names)]
    rows = []
    for records in groups(found).values():
        ended = [one for one in records if one["status"] == "done"]
        count = f"{len(ended)} of {len(records)}" if len(ended) < len(records) else f"{len(ended)}"
        row = [str(records[0]["settings"][name]) for name in settings]
        rows.append([*row, count, *(_spread(_values(ended, name)) for name in names)])
    if settings and len(rows) > 1 and _axis(found) is None:
        means = (_spread(_seed_means(found, name)) for name in names)
        blank = [""] * (len(settings) - 1)
        rows.append(["mean", *blank, str(len(found["cells"])), *means])
    return [head, *rows]


def stage_table(found: dict[str, Any]) -> list[list[str]]:
    """Rows of text: the head, then the mean seconds of each group's stages, its run, and in total.

    Empty where no run had stages. The seconds of a ledger, which `launch.train` prints too.
    """
    short = shortened(found["swept"])
    settings = [name for name in found["swept"] if name != SEED]
    every = {name for one in found["cells"] for name in one.get("stages", ())}
    stages = sorted(every - {"run"}, key=lambda name: int(name.removeprefix("stage")))
    if not stages:
        return []
    rows = [[*(short[name] for name in settings), "runs", *stages, "run", "total"]]
    for records in groups(found).values():
        timed = [one["stages"] for one in records if one.get("stages")]
        columns = [[each[name] for each in timed if name in each] for name in (*stages, "run")]
        columns.append([sum(each.values()) for each in timed])
        means = (shown(round(float(np.mean(each)), 2)) if each else "-" for each in columns)
        settings_of = (str(records[0]["settings"][name]) for name in settings)
        rows.append([*settings_of, str(len(timed)), *means])
    return rows


def _seed_means(found: dict[str, Any], name: str) -> np.ndarray:
    """The mean of a number over all runs of each seed [seeds], of seeds whose runs all have it."""
    by_seed: dict[Any, list[dict[str, Any]]] = {}
    for one in found["cells"]:
        by_seed.setdefault(one["settings"].get(SEED), []).append(one)
    values = [(_values(records, name), len(records)) for records in by_seed.values()]
    return np.array([each.mean() for each, count in values if len(each) == count])


def _values(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    numbers = [numbers_of(one, main=False).get(name) for one in records]
    return np.array([one.value for one in numbers if one and one.value is not None], np.float64)


def _heading(found: dict[str, Any], name: str) -> str:
    """A number's name, with its unit where that is %."""
    numbers = (numbers_of(one, main=False).get(name) for one in found["cells"])
    return learning.heading(name, any(one is not None and one.percent for one in numbers))


def _spread(values: np.ndarray) -> str:
    if not len(values):
        return "-"
    mean = shown(float(values.mean()))
    return f"{mean} ± {values.std(ddof=1):.2g}" if len(values) > 1 else mean


def text(found: dict[str, Any]) -> str:
    """The tables, for a terminal."""
    stages = stage_table(found)
    below = ["", f"{_STAGES}:", *aligned(stages)] if stages else []
    return "\n".join([*notes(found), *aligned(table(found)), *below])


def notes(found: dict[str, Any]) -> list[str]:
    """What the table says, in sentences."""
    out = [f"{len(found['cells'])} runs; numbers as mean ± standard deviation over seeds"]
    if lost := [one["name"] for one in found["cells"] if one["status"] != "done"]:
        out.append(f"the loss of {', '.join(lost)} became no number: left out")
    return out


def curves(found: dict[str, Any]) -> list[Figure]:
    """The first number of each task, and PCA's beside it, against the first numeric setting."""
    axis = _axis(found)
    if axis is None:
        return []
    done = [one for one in found["cells"] if one["status"] == "done"]
    short, out = shortened(found["swept"]), []
    apart = {SEED, axis, *_following(found, axis)}
    for name in dict.fromkeys(name for one in done for name in numbers_of(one)):
        series: dict[str, list[dict[str, Any]]] = {}
        for one in done:
            rest = {k: v for k, v in one["settings"].items() if k not in apart}
            series.setdefault(cell_name(rest, short) or name, []).append(one)
        lines = {label: _curve(records, axis, name) for label, records in series.items()}
        beside = f"pca_{name}"
        if axis == _SIZE and any(len(_values([one], beside)) for one in done):
            lines["PCA"] = _curve(done, axis, beside)
        heading = _heading(found, name)
        png = plots.curves_png(lines, (short[axis], heading))
        caption = f"{heading} against {axis}; bars are one standard deviation over seeds."
        out.append(Figure(f"sweep_{name}", png, caption))
    return out


def _axis(found: dict[str, Any]) -> str | None:
    """The setting that curves are drawn against, a number: one that is crossed, else the first."""
    names = [name for name in found["swept"] if name != SEED and _numeric(found, name)]
    return next((name for name in names if _crossed(found, name)), names[0] if names else None)


def _crossed(found: dict[str, Any], axis: str) -> bool:
    """Whether each of its values stands with the same values of the other settings."""
    apart, others = {axis, *_following(found, axis)}, dict[Any, set[Any]]()
    for one in found["cells"]:
        rest = tuple(value for name, value in one["settings"].items() if name not in apart)
        others.setdefault(one["settings"][axis], set()).add(rest)
    return all(each == next(iter(others.values())) for each in others.values())


def _following(found: dict[str, Any], axis: str) -> list[str]:
    """Settings that change with the axis alone: they tell no curves apart."""
    out = []
    for name in found["swept"]:
        pairs = {(one["settings"][axis], one["settings"][name]) for one in found["cells"]}
        several = len({value for _, value in pairs}) > 1
        if name != SEED and several and len(pairs) == len({x for x, _ in pairs}):
            out.append(name)
    return out


def _numeric(found: dict[str, Any], name: str) -> bool:
    values = {one["settings"][name] for one in found["cells"]}
    return len(values) > 1 and all(_number(value) is not None for value in values)


def _number(value: Any) -> float | None:
    """A setting's value as a number, a share such as 1% too; None where it is none."""
    if type(value) in (int, float):
        return float(value)
    share = re.fullmatch(r"([0-9.]+)%", value) if isinstance(value, str) else None
    return float(share[1]) if share else None


def _curve(
    records: Sequence[dict[str, Any]], axis: str, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, mean and deviation [points]."""
    points = []
    numbers = {one["settings"][axis]: _number(one["settings"][axis]) or 0.0 for one in records}
    for value, x in sorted(numbers.items(), key=lambda pair: pair[1]):
        values = _values([one for one in records if one["settings"][axis] == value], name)
        if len(values):
            points.append((x, values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0))
    x, mean, deviation = np.array(points, np.float64).reshape(-1, 3).T
    return x, mean, deviation


def _pictures(workdir: str, each: Sequence[Cell], given: Source | None) -> list[Figure]:
    """The first test rows, and below them what the first run of each group makes of them."""
    first: dict[str, Cell] = {}
    short = shortened(list(each[0].values))
    for cell in each:
        first.setdefault(cell_name(cell.group, short) or "all", cell)
    lines: list[np.ndarray] = []
    names: list[str] = []
    for name, cell in first.items():
        try:
            model = load(os.path.join(workdir, "runs", cell.name), say=lambda line: None)
            rows = given or choose_rows(model.run).source
        except InputError:  # a run without a checkpoint
            continue
        if not model.run.config.model.decodes or not pictures.is_image(rows.spec.shape):
            return []
        if lines and rows.spec.shape != lines[0].shape[1:]:
            continue
        model, some = rescaled(model, rows.spec), rows[slice(0, _ROWS)].x
        peak = peak_of(model, rows, some)
        if not lines:
            lines, names = [model.preparation.inverse(model.prepare(some)) / peak], ["test rows"]
        lines.append(model.reconstruct(some) / peak)
        names.append(name)
    if not lines:
        return []
    png = plots.grid_png(np.stack(lines))
    caption = f"From above: {'; '.join(names)} (of seeds the first)."
    return [Figure("reconstructions", png, caption)]
