"""What the task `anomaly` shows of its scores: the ranking of rows, and pictures."""

import csv
import io

import jax
import numpy as np

from aejax import pictures
from aejax.data.sources.base import Source, file_rows, names
from aejax.data.sources.splits import take
from aejax.evaluation import plots
from aejax.evaluation.result import Figure, Table
from aejax.evaluation.row_errors import column_errors, worst_columns
from aejax.evaluation.rows import stream
from aejax.runs.loading import Model

RANKING = "anomaly.csv"
_WORST = 10
_MEANINGS = {
    "rank": "1 is the strangest row",
    "row": "the row's number in the evaluated split, from 0",
    "file_row": "its number in the file, from 0, where the header of a table is not counted",
    "name": "its file",
    "score": "larger is stranger",
    "worst_column": "the column with the most of the row's reconstruction error",
}


def ranking(
    model: Model, source: Source, order: np.ndarray, score: np.ndarray
) -> tuple[str, Table, str]:
    """The text of anomaly.csv, all rows by their score; a table of the first; and a note on both.

    Args:
        model: `rows.rescaled` to the source.
        source: the rows.
        order: their numbers, strangest first.
        score: of each row, [rows].
    """
    columns = [column.name for column in source.spec.columns]
    errors = column_errors(model, source)[order] if columns else np.zeros((len(order), 0))
    numbers = file_rows(source)
    values = {
        "rank": range(1, len(order) + 1),
        "row": order,
        "file_row": None if numbers is None else numbers[order],
        "name": names(source, order),
        "score": [f"{each:.6g}" for each in score[order]],
        "worst_column": [columns[each] for each in errors.argmax(axis=1)] if columns else None,
    }
    out, empty = io.StringIO(), [""] * len(order)
    table = csv.writer(out, lineterminator="\n")
    table.writerow(values)
    table.writerows(
        zip(*(empty if each is None else each for each in values.values()), strict=True)
    )
    there = {name: each[:_WORST] for name, each in values.items() if each is not None}
    meanings = "; ".join(f"{name}: {_MEANINGS[name]}" for name in there)
    if columns:
        del there["worst_column"]
        there["most error in"] = [worst_columns(each, columns) for each in errors[:_WORST]]
    rows = [list(map(str, row)) for row in zip(*there.values(), strict=True)]
    note = f"{RANKING} has all rows, strangest first. {meanings}."
    return out.getvalue(), Table(f"The {len(rows)} strangest rows", list(there), rows), note


def histogram(
    score: np.ndarray, strange: np.ndarray | None, name: str, meaning: str, limit: float | None
) -> Figure:
    """How the scores of normal and of other rows are spread, and the threshold.

    Args:
        score: [rows].
        strange: bool [rows], or None where it is not known.
        name: of the score.
        meaning: of the score, in words.
        limit: the threshold; None for none.
    """
    finite = np.isfinite(score)
    most = np.quantile(score[finite], 0.995) if finite.any() else 0.0
    values = np.minimum(np.where(finite, score, most), most)
    label = None if strange is None else strange.astype(np.int32)
    png = plots.histogram_png(values, label, name, ("normal", "anomalous"), limit)
    ends = "" if limit is None else f"; rows right of the threshold, {limit:.4g}, are flagged"
    caption = f"Scores of the rows ({meaning}){ends}; the largest 0.5 % stand at the end."
    return Figure("anomaly_scores", png, caption)


def worst_images(model: Model, source: Source, order: np.ndarray) -> list[Figure]:
    """The strangest images, their reconstructions, and where the errors are.

    Args:
        model: `rows.rescaled` to the source.
        source: the rows.
        order: their numbers, strangest first.
    """
    if not pictures.is_image(source.spec.shape):
        return []
    preparation, worst = model.preparation, order[:_WORST]

    def run(module, raw: jax.Array, mask) -> tuple[jax.Array, jax.Array]:
        x = preparation(raw)
        decoded = module.decode(module.encode(x, mask), mask)
        return preparation.measured(x), preparation.measured(decoded)

    ((x, decoded),) = [batch.values for batch in stream(model, take(source, worst), run)]
    x, decoded = (np.nan_to_num(each.reshape(-1, *source.spec.shape)) for each in (x, decoded))
    low, high = (0.0, 1.0) if preparation.settings.scale else (x.min(), x.max())
    width = (high - low) or 1.0
    error = np.square(x - decoded).mean(axis=-1, keepdims=True) * np.ones(x.shape[-1])
    lines = [(x - low) / width, (decoded - low) / width, error / (error.max() or 1.0)]
    png = plots.grid_png(np.stack(lines))
    caption = (
        f"The {len(worst)} strangest images (rows {', '.join(map(str, worst))}), what the model"
        " makes of them, and the squared error of each pixel."
    )
    return [Figure("anomaly_worst", png, caption)]
