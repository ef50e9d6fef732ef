"""Principal components: of codes, for pictures, and of pixels, as a baseline for codes."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from aejax import kinds
from aejax.config import Data
from aejax.data.prepare import Preparation
from aejax.data.sources import Spec, open_source
from aejax.runs.folder import Run

# The eigenvectors of a covariance of 4096 elements take half a minute; larger rows have no PCA.
MAX_ELEMENTS = 4096
# Larger splits are sampled evenly: 60,000 rows of 784 pixels, 12,700 of 3,072.
_MAX_ROWS = 60_000
_MAX_PRODUCTS = 1.2e11
_ROWS_AT_A_TIME = 2000


@dataclasses.dataclass(frozen=True)
class Components:
    """The leading principal components of some rows, in float64.

    Attributes:
        mean: [elements].
        axes: orthonormal columns [elements, components], leading first; the largest entry of each
            is positive.
        variance: along each axis [components].
        total: variance of all elements together.
        rows: number of rows that were used.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance: np.ndarray
    total: float
    rows: int

    def project(self, x: np.ndarray) -> np.ndarray:
        """x [rows, elements] -> [rows, components]."""
        return (x - self.mean) @ self.axes

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """The nearest point to each row on the components' plane, [rows, elements]."""
        return self.mean + self.project(x) @ self.axes.T


def fit(pieces: Iterable[np.ndarray], components: int) -> Components:
    """Principal components, in one pass over pieces [rows, elements].

    Args:
        pieces: at least one row altogether.
        components: how many to keep, at most the number of elements.
    """
    from scipy import linalg

    rows, shift = 0, None
    total = products = np.zeros(())
    for piece in pieces:
        x = np.asarray(piece, np.float64)
        # Shifted by the first mean: sums of squares of large values would lose the variance.
        shift = x.mean(axis=0) if shift is None else shift
        x = x - shift
        rows, total, products = rows + len(x), total + x.sum(axis=0), products + x.T @ x
    assert shift is not None
    offset = total / rows
    covariance = products / rows - np.outer(offset, offset)
    size = len(covariance)
    variance, axes = linalg.eigh(covariance, subset_by_index=[size - components, size - 1])
    variance, axes = np.maximum(variance[::-1], 0), axes[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(components)]
    axes = axes * np.where(largest < 0, -1.0, 1.0)
    return Components(shift + offset, axes, variance, float(np.trace(covariance)), rows)


def of_training_split(run: Run, components: int) -> Components:
    """Principal components of the rows that a run was trained on, in the units of `measured`.

    The result is cached for a run, since evaluations of several checkpoints use it.

    Raises:
        InputError: the training split cannot be opened.
    """
    location = run.location()
    data = dataclasses.replace(run.config.data, source=location.source, folder=location.folder)
    key = {"data": kinds.to_dict(data), "statistics": run.statistics}
    return _cached(json.dumps(key), run.spec, components)


@functools.lru_cache(maxsize=1)
def _cached(key: str, spec: Spec, components: int) -> Components:
    settings = json.loads(key)
    data = kinds.from_dict(Data, settings["data"])
    source = open_source(data.source, data.train, data.folder, keep=data.keep_labels, like=spec)
    preparation = Preparation(data.prepare, source.spec, settings["statistics"])
    elements = int(np.prod(source.spec.shape))
    most = min(_MAX_ROWS, int(_MAX_PRODUCTS / elements**2), len(source))
    index = np.linspace(0, len(source) - 1, most).round().astype(np.int64)
    prepare = jax.jit(lambda raw: preparation.measured(preparation(raw)))

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, most, _ROWS_AT_A_TIME):
            raw = source[index[start : start + _ROWS_AT_A_TIME]].x
            yield np.asarray(prepare(raw)).reshape(len(raw), -1)

    return fit(pieces(), components)
