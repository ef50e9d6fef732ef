"""Codes of all evaluated rows, with the rows themselves and their labels, for tasks on codes."""

from typing import Any, NamedTuple

import jax
import numpy as np

from aejax.data.sources.base import Source
from aejax.evaluation.rows import stream
from aejax.models.batch import spread
from aejax.runs.loading import Model


class Encoded(NamedTuple):
    """Rows and their codes, in the source's order.

    Attributes:
        z: codes, float64 [rows, numbers]; a code with a shape, or tokens, as one vector.
        x: rows, float32 [rows, elements]; 0 for padding and for what is missing.
        label: int [rows], or None.
    """

    z: np.ndarray
    x: np.ndarray
    label: np.ndarray | None


def encode_rows(model: Model, source: Source, prepared: bool = False) -> Encoded:
    """Encodes every row of a source.

    Args:
        model: `rows.rescaled` to the source.
        source: [rows, *shape].
        prepared: return rows in the model's units, not in those of `preparation.inverse`.
    """
    preparation = model.preparation

    def encode(module: Any, raw: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        x = preparation(raw)
        given = x if prepared else preparation.inverse(x)
        if mask is not None:
            given = given * spread(mask, given.ndim)
        return module.encode(x, mask).reshape(len(x), -1), given.reshape(len(x), -1)

    batches = [(batch.values, batch.rows.label) for batch in stream(model, source, encode)]
    z = np.concatenate([values[0] for values, _ in batches], dtype=np.float64)
    x = np.concatenate([values[1] for values, _ in batches])
    labels = [label for _, label in batches if label is not None]
    return Encoded(z, x, np.concatenate(labels) if labels else None)


def evenly(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` rows, evenly spaced."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def peak_of(model: Model, source: Source, x: np.ndarray) -> float:
    """The value that pictures show as white: 1 if rows were scaled, else the format's maximum."""
    if model.preparation.settings.scale:
        return 1.0
    return source.spec.maximum or float(x.max()) or 1.0
