"""Association tests of a run's encoder, and their results as files, a table and a page."""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Sequence

import numpy as np

from aejax import files
from aejax.evaluation import plots
from aejax.evaluation.association import NOTES, Association, adjusted
from aejax.evaluation.report import render
from aejax.evaluation.result import Figure
from aejax.evaluation.rows import choose_rows, rescaled
from aejax.runs import folder
from aejax.runs.loading import load

_HEAD = ("test", "X", "Y", "A", "B", "n_t", "n_a", "d", "magnitude", "p", "q")
_COLOURS = {"large": "#bf616a", "medium": "#d08770", "small": "#ebcb8b"}


def encode_stimuli(
    workdir: str, step: int | str, stimuli: str, categories: Sequence[str]
) -> dict[str, np.ndarray]:
    """{category: codes [images, numbers]} of the pictures in the category's folder.

    Args:
        workdir: the run's folder.
        step: of its checkpoint.
        stimuli: holds a folder for each category.
        categories: their names, as paths below `stimuli`.

    Raises:
        InputError: no such run, or pictures that its model cannot take.
    """
    run = folder.read(workdir)
    # All folders are opened, and so checked, before anything is encoded.
    rows = {
        name: choose_rows(run, f"images:{os.path.join(stimuli, name)}").source
        for name in categories
    }
    model = load(workdir, step)
    out = {}
    for name, source in rows.items():
        codes = rescaled(model, source.spec).encode(source[slice(None)].x)
        out[name] = codes.reshape(len(codes), -1)
    return out


def table(
    tests: dict[str, tuple[str, str, str, str]], results: dict[str, Association]
) -> list[list[str]]:
    """Rows of text: the head, then every test."""
    rows: list[list[str]] = [list(_HEAD)]
    for (name, one), q in zip(
        results.items(), adjusted([one.p for one in results.values()]), strict=True
    ):
        sizes = ["/".join(map(str, dict.fromkeys(pair))) for pair in (one.targets, one.attributes)]
        p = f"{one.p:.4f}{'' if one.exact else ' (drawn)'}"
        rows.append([name, *tests[name], *sizes, f"{one.d:.2f}", one.magnitude, p, f"{q:.4f}"])
    return rows


def write(
    out: str,
    encoder: str,
    tests: dict[str, tuple[str, str, str, str]],
    results: dict[str, Association],
) -> str:
    """Writes association.csv, association.json and report.html to a folder; returns the table.

    Args:
        out: the folder, which is made where there is none.
        encoder: the name of the embeddings' encoder.
        tests: {test: categories X, Y, A, B}.
        results: of the tests.
    """
    os.makedirs(out, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*_HEAD[:5], "n_x", "n_y", "n_a", "n_b", "d", "p", "exact", "q"])
    q = adjusted([one.p for one in results.values()])
    for (name, one), each in zip(results.items(), q, strict=True):
        sizes = (*one.targets, *one.attributes)
        writer.writerow((name, *tests[name], *sizes, one.d, one.p, one.exact, each))
    files.write(os.path.join(out, "association.csv"), text.getvalue())
    records = {
        name: {**dataclasses.asdict(one), "d": one.d if math.isfinite(one.d) else None}
        for name, one in results.items()
    }
    data = {"encoder": encoder, "results": records}
    files.write(os.path.join(out, "association.json"), json.dumps(data, indent=1) + "\n")
    head, *rows = table(tests, results)
    page = render(
        "association.html",
        title="Association tests",
        encoder=encoder,
        notes=NOTES,
        head=head,
        rows=rows,
        figures=[_figure(results)],
    )
    files.write(os.path.join(out, "report.html"), page)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
    return "\n".join(lines)


def _figure(results: dict[str, Association]) -> Figure:
    bars = {f"{name}{' *' if one.p < 0.05 else ''}": one.d for name, one in results.items()}
    colours = [_COLOURS.get(one.magnitude, "#d8dee9") for one in results.values()]
    caption = (
        "Effect sizes d: to the right X goes with A. Red from 0.8 on (large), orange from 0.5"
        " (medium), yellow from 0.2 (small). A star: p below 0.05, not adjusted."
    )
    return Figure("association", plots.named_bars_png(bars, colours, "effect size d"), caption)
