"""How far sets of rows lie apart: Frechet distance of features of a small classifier.

Not the FID, whose features are those of a network that was trained on ImageNet: these come from the
run's own training rows, so that distances can be compared on the same data alone.
"""

import dataclasses
import warnings
from typing import Any

import numpy as np

# A layer of features last; so few that a thousand rows tell their covariance.
LAYERS = (128, 64)
# Rows of an update in scikit-learn.
_BATCH = 200
# An epoch of 60,000 rows is 300 updates; small splits are gone through more often.
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
        """The share of rows whose class it tells."""
        return float(self.network.score(self._scaled(x), label))

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.mean) / self.scale).astype(np.float32)


def fit(x: np.ndarray, label: np.ndarray, seed: int, each: bool = False) -> Features:
    """Trains a classifier of two hidden layers (relu, Adam) for 1,800 updates or more.

    Args:
        x: rows [rows, elements].
        label: their classes [rows], at least two.
        seed: of its parameters and of the order of rows.
        each: scale each element by its own deviation, as columns of a table that have units of
            their own; else all by one, so that elements that hardly vary stay small.
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
    # Threads cost more than they give on batches of this size, and sums depend on their number.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(features._scaled(x), label)
    return features


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The squared Frechet distance of the normals that two sets of features have the moments of.

    Heusel et al. 2017, equation 6 (the distance of normals is that of Dowson and Landau 1982):

        |m - m'|^2 + Tr(C + C' - 2 (C C')^(1/2))

    Tr (C C')^(1/2) is the sum of the singular values of C^(1/2) C'^(1/2). Taken so it needs no
    root of a matrix that is not symmetric, and is exact where covariances are singular.

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
    """The symmetric root of a matrix that has no eigenvalue below 0 but by rounding."""
    values, axes = np.linalg.eigh(covariance)
    return (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
