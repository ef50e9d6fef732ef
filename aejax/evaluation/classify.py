"""Task: the errors of a classifier, its confusion matrix, and its worst rows."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from aejax import pictures
from aejax.data.sources.base import Source, Spec
from aejax.data.sources.labels import check_classes
from aejax.errors import InputError
from aejax.evaluation import plots, tiles
from aejax.evaluation.encoded import peak_of
from aejax.evaluation.result import Figure, Number, Result, Table
from aejax.evaluation.rows import stream
from aejax.models import KINDS
from aejax.runs.folder import Run
from aejax.runs.loading import Model

_CONFIDENCE = 0.95
_SIDE = 8
# Most classes in the table of errors and in the picture of the confusion matrix.
_MOST_SHOWN = 20


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    model = run.config.model
    if not model.classes:
        raise InputError(
            f"--tasks=classify: config.model is {KINDS.name(model)}; must be classifier (--tasks="
            "probe fits one to the codes of any model)"
        )
    if not spec.labelled:
        raise InputError("--tasks=classify: the rows have no labels; must have one each")


def task(model: Model, source: Source) -> Result:
    """Counts errors, and shows which classes are confused.

    Args:
        model: `rows.rescaled` to the source; with `log_prob`.
        source: rows with labels.

    Raises:
        InputError: the model is no classifier, or a label is none of its classes.
    """
    check(model.run, source.spec)
    classes = model.run.config.model.classes
    check_classes(source, classes, "--tasks=classify: the source")
    preparation = model.preparation

    def log_p(module: Any, raw: jax.Array, mask: jax.Array | None) -> jax.Array:
        return module.log_prob(preparation(raw), mask)

    batches = [(each.values, each.rows.label) for each in stream(model, source, log_p)]
    found = np.concatenate([values for values, _ in batches]).astype(np.float64)
    label = np.concatenate([label for _, label in batches if label is not None])
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (label, found.argmax(axis=1)), 1)
    names = [plots.class_name(k, source.spec.classes) for k in range(classes)]
    result = Result(_numbers(confusion, found, label), tables=[_table(confusion, names)])
    if classes <= _MOST_SHOWN:
        caption = "Rows by their label and by the class that is likeliest; the diagonal is right."
        result.figures.append(Figure("confusion", matrix_png(confusion, names), caption))
    if pictures.is_image(source.spec.shape) and (found.argmax(axis=1) != label).any():
        result.figures.append(_worst(model, source, found, label, names))
    return result


def interval(wrong: int, rows: int) -> tuple[float, float]:
    """Wilson's (1927) interval of 95 % of a share: wrong of so many rows."""
    from scipy.stats import binomtest

    found = binomtest(wrong, rows).proportion_ci(_CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def _numbers(confusion: np.ndarray, log_p: np.ndarray, label: np.ndarray) -> dict[str, Number]:
    rows = len(label)
    wrong = rows - int(np.trace(confusion))
    low, high = interval(wrong, rows)
    nll = -log_p[np.arange(rows), label].mean()
    share = f"of the {_CONFIDENCE:.0%} interval of error (Wilson), over rows alone"
    return {
        "error": Number(100 * wrong / rows, "%", "of rows get another class", main=True),
        "error_low": Number(100 * low, "%", f"lower end {share}"),
        "error_high": Number(100 * high, "%", f"upper end {share}"),
        "wrong": Number(wrong, "rows", f"of {rows} that get another class"),
        "nll": Number(float(nll), "nats per row", "-log p(label given x)"),
    }


def _table(confusion: np.ndarray, names: Sequence[str]) -> Table:
    """The errors of each class; of many classes those with most."""
    rows, total = [], confusion.sum(axis=1)
    wrong = total - np.diagonal(confusion)
    shown = range(len(names))
    if len(names) > _MOST_SHOWN:
        shown = np.argsort(-wrong, kind="stable")[:_MOST_SHOWN]
    for k in shown:
        others = np.where(np.arange(len(names)) == k, -1, confusion[k])
        taken = f"{names[int(others.argmax())]} ({others.max()})" if others.max() > 0 else ""
        share = f"{100 * wrong[k] / total[k]:.2f}" if total[k] else ""
        rows.append([names[k], str(total[k]), str(wrong[k]), share, taken])
    head = ["class", "rows", "wrong", "error in %", "most taken for"]
    return Table("Errors by class.", head, rows)


def matrix_png(confusion: np.ndarray, names: Sequence[str]) -> bytes:
    """Counts [label, predicted class] as a picture, coloured by their share of the label's rows."""
    from matplotlib.figure import Figure

    count = len(names)
    figure = Figure(
        figsize=(2 + 0.42 * count, 2 + 0.42 * count), layout="constrained", facecolor="white"
    )
    plot = figure.add_subplot()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    plot.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)  # sqrt makes rare errors visible
    for row, column in zip(*np.nonzero(confusion), strict=True):
        dark = share[row, column] > 0.3
        style = {"ha": "center", "va": "center", "fontsize": 7, "color": "w" if dark else "k"}
        plot.annotate(str(confusion[row, column]), (column, row), **style)
    places = range(count)
    plot.set_xticks(places, names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
    plot.set_yticks(places, names, fontsize=8)
    for text in (*plot.get_xticklabels(), *plot.get_yticklabels()):
        text.set_parse_math(False)  # a name with dollar signs is no formula
    plot.set_xlabel("likeliest class")
    plot.set_ylabel("label")
    plot.tick_params(length=0)
    plot.spines[:].set_visible(False)
    return plots.as_png(figure)


def _worst(
    model: Model, source: Source, log_p: np.ndarray, label: np.ndarray, names: Sequence[str]
) -> Figure:
    """The wrong rows whose label was given the least probability."""
    own = log_p[np.arange(len(label)), label]
    wrong = np.flatnonzero(log_p.argmax(axis=1) != label)
    rows = wrong[np.argsort(own[wrong], kind="stable")][: _SIDE * _SIDE]
    x = model.preparation.inverse(model.prepare(source[rows].x))
    columns = min(_SIDE, len(rows))
    grid = np.zeros((-(-len(rows) // columns) * columns, *x.shape[1:]), np.float32)
    grid[: len(rows)] = np.asarray(x) / peak_of(model, source, np.asarray(x))
    chosen = log_p[rows].argmax(axis=1)
    words = [f"{names[own]}→{names[other]}" for own, other in zip(label[rows], chosen, strict=True)]
    caption = (
        f"The {len(rows)} wrong rows whose label was given the least probability; above each its"
        " label, and behind the arrow the class that was taken for it."
    )
    png = tiles.tiles_png(grid.reshape(-1, columns, *x.shape[1:]), above=words)
    return Figure("mistakes", png, caption)
