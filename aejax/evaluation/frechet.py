"""Distance between sets of rows: Frechet distance of the features of a small classifier.

This is not the FID, whose features come from a network trained on ImageNet: this classifier is
trained on the run's own rows, so that distances can only be compared on the same data.
"""

import dataclasses
import warnings
from typing import Any

import numpy as np

# Hidden layers; the last are the features, few enough to estimate a covariance from 1000 rows.
LAYERS = (128, 64)
# scikit-learn's batch size.
_BATCH = 200
# An epoch of 60,000 rows has 300 updates; small splits get more epochs.
_UPDATES, _MOST_EPOCHS = 1800, 100


@dataclasses.dataclass(frozen=True)
class Features:
    """A trained classifier, and the scale of its rows.

    Attributes:
        mean: of the training rows [elements].
        scale: their deviation, of all elements together [], or of each [elements].
        network: scikit-learn's MLPClassifier.
    """

    mean: np.ndarray
    scale: np.ndarray
    network: Any

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The last hidden layer of rows [rows, elements], float64 [rows, features]."""
        hidden = self._scaled(x)
        network = self.network
        for weight, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        return hidden.astype(np.float64)

    def accuracy(self, x: np.ndarray, label: np.ndarray) -> float:
        """The share of rows that are classified correctly."""
        return float(self.network.score(self._scaled(x), label))

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) / self.scale).astype(np.float32)


def fit(x: np.ndarray, label: np.ndarray, seed: int, each: bool = False) -> Features:
    """Trains a classifier of two hidden layers (relu, Adam) for 1,800 updates or more.

    Args:
        x: rows [rows, elements].
        label: their classes [rows], at least two.
        seed: of its parameters and of the order of rows.
        each: scale each element by its own deviation, for tables, whose columns have different
            units; else all by the same, so that elements that hardly vary stay small.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    deviation = x.std(axis=0, dtype=np.float64)
    if not each:
        deviation = np.sqrt(np.mean(np.square(deviation)))
    scale = np.where(deviation > 0, deviation, 1.0).astype(np.float32)
    updates = -(-len(x) // _BATCH)
    network = MLPClassifier(
        LAYERS,
        max_iter=min(_MOST_EPOCHS, -(-_UPDATES // updates)),
        random_state=seed,
    )
    features = Features(x.mean(axis=0, dtype=np.float64).astype(np.float32), scale, network)
    # More threads are slower for batches of this size, and results depend on their number.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(features._scaled(x), label)
    return features


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The squared Frechet distance of two normals with the moments of two sets of features.

    Heusel et al. 2017, equation 6 (the distance of normals is that of Dowson and Landau 1982):

        |m - m'|^2 + Tr(C + C' - 2 (C C')^(1/2))

    Tr (C C')^(1/2) is computed as the sum of the singular values of C^(1/2) C'^(1/2). This needs no
    root of a non-symmetric matrix, and is exact for singular covariances.

    Args:
        first: [rows, features], at least two rows.
        second: [other rows, features], at least two.
    """
    away = first.mean(axis=0) - second.mean(axis=0)
    covariances = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (first, second)]
    cross = np.linalg.norm(_root(covariances[0]) @ _root(covariances[1]), "nuc")
    total = sum(float(np.trace(each)) for each in covariances)
    return max(float(away @ away + total - 2 * cross), 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a positive semi-definite matrix; rounding below 0 is clipped."""
    values, axes = np.linalg.eigh(covariance)
    return (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
