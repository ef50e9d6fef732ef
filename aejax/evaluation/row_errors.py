"""Reconstruction errors of rows, by element and by a table's columns."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from aejax.data.sources.base import Source, Spec
from aejax.evaluation.rows import real_elements, stream
from aejax.evaluation.symbols import are_symbols
from aejax.runs.loading import Model


class Errors(NamedTuple):
    """A chunk of rows.

    Attributes:
        z: codes [rows, numbers].
        error: of each element, in units of `preparation.measured` squared (of symbols, whether it
            is wrong), float64 [rows, elements].
        real: 0.0 for padding and missing values, else 1.0, [rows, elements].
    """

    z: np.ndarray
    error: np.ndarray
    real: np.ndarray


def stream_errors(model: Model, source: Source) -> Iterator[Errors]:
    """Encodes and decodes a whole source, in batches.

    Args:
        model: `rows.rescaled` to the source.
        source: [rows, *shape].
    """
    preparation, symbols = model.preparation, are_symbols(model)

    def run(module: Any, raw: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
        x = preparation(raw)
        z = module.encode(x, mask)
        pair = {"x": x, "decoded": module.decode(z, mask)}
        pair = {name: preparation.measured(value) for name, value in pair.items()}
        return {"z": z.reshape(len(z), -1), **pair}

    for batch in stream(model, source, run):
        real = real_elements(batch.rows)
        x, decoded = (batch.values[name].reshape(real.shape) for name in ("x", "decoded"))
        error = x != decoded if symbols else np.square(x - decoded, dtype=np.float64)
        yield Errors(batch.values["z"], np.where(real > 0, error, 0), real)


def by_column(error: np.ndarray, real: np.ndarray, spec: Spec) -> np.ndarray:
    """What each column of a table adds to its row's error: [rows, columns].

    The squared errors of a column's elements (a category has one for each of its values), divided
    by how many elements of the row are there. A row's sum is its mean squared error.

    Args:
        error, real: as in `Errors`.
        spec: of a table.
    """
    widths = [len(column.categories or (None,)) for column in spec.columns]
    share = np.where(real > 0, error, 0) / real.sum(axis=1, keepdims=True)
    return np.add.reduceat(share, np.cumsum([0, *widths[:-1]]), axis=1)


def column_errors(model: Model, source: Source) -> np.ndarray:
    """`by_column` of all rows of a table.

    Args:
        model: `rows.rescaled` to the source.
        source: a table's rows.
    """
    parts = [by_column(each.error, each.real, source.spec) for each in stream_errors(model, source)]
    return np.concatenate(parts)


def worst_columns(errors: np.ndarray, names: Sequence[str], count: int = 2) -> str:
    """The columns with the largest errors of one row, with these: income 0.91, age 0.22.

    Args:
        errors: of each column, [columns].
        names: of the columns.
        count: at most so many columns.
    """
    worst = np.argsort(-errors, kind="stable")[:count]
    return ", ".join(f"{names[column]} {errors[column]:.3g}" for column in worst)
