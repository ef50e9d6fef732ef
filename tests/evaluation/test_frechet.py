"""Frechet distances against SciPy's roots of matrices, and on features of a classifier."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.datasets import load_digits

from aejax.evaluation import frechet

RANDOM = np.random.RandomState(0)


def reference(first: np.ndarray, second: np.ndarray) -> float:
    away = first.mean(axis=0) - second.mean(axis=0)
    one, other = np.cov(first.T), np.cov(second.T)
    return float(away @ away + np.trace(one + other - 2 * np.real(linalg.sqrtm(one @ other))))


def test_distance_is_the_formula_on_normal_features():
    for size in (2, 7, 20):
        first = RANDOM.randn(500, size) @ RANDOM.randn(size, size)
        second = RANDOM.randn(300, size) @ RANDOM.randn(size, size) + RANDOM.randn(size)
        found = frechet.distance(first, second)
        assert found == pytest.approx(reference(first, second), rel=1e-6)
        assert found == pytest.approx(frechet.distance(second, first), rel=1e-9)
        moved = first + np.arange(size)
        expected = np.square(np.arange(size)).sum()
        assert frechet.distance(first, moved) == pytest.approx(expected, rel=1e-9)


def test_equal_sets_are_at_0_where_covariances_are_singular():
    rows = RANDOM.randn(40, 3) @ RANDOM.randn(3, 64)
    scale = np.trace(np.cov(rows.T))
    assert frechet.distance(rows, rows) <= 1e-9 * scale
    few = RANDOM.randn(9, 64)
    assert frechet.distance(few, few[::-1]) <= 1e-9 * 64
    # Twice the deviation: the distance of normals in one direction is (2 s - s)^2.
    assert frechet.distance(rows, 2 * (rows - rows.mean(0)) + rows.mean(0)) == pytest.approx(scale)


def test_features_tell_digits_and_distances_grow_with_noise():
    x, label = load_digits(return_X_y=True)
    x = np.float32(x / 16)
    features = frechet.fit(x[:1200], label[:1200], seed=0)
    assert features.accuracy(x[1200:], label[1200:]) > 0.9
    predicted = features(x[:5]) @ features.network.coefs_[-1] + features.network.intercepts_[-1]
    np.testing.assert_array_equal(
        predicted.argmax(1),
        features.network.predict_proba((x[:5] - features.mean) / features.scale).argmax(1),
    )
    real = features(x[1200:])
    half, noise = x[1200:].copy(), RANDOM.uniform(size=x[1200:].shape).astype(np.float32)
    half[::2] = noise[::2]
    distances = [frechet.distance(features(each), real) for each in (x[1200:], half, noise)]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert 1 < distances[1] < distances[2]
    again = frechet.fit(x[:1200], label[:1200], seed=0)
    np.testing.assert_array_equal(again(x), features(x))


def test_columns_of_a_table_are_scaled_each():
    x = np.column_stack([RANDOM.randn(300), 1e6 * RANDOM.randn(300), np.full(300, 5.0)])
    x, label = x.astype(np.float32), (x[:, 0] > 0).astype(int)
    assert frechet.fit(x, label, 0, each=True).accuracy(x, label) > 0.95
    assert frechet.fit(x, label, 0).accuracy(x, label) < 0.9
