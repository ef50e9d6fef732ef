"""Oja's five-layer network finds a curve that no principal component can follow."""

import jax
import numpy as np
import pytest

import aejax
from aejax.data.sources.base import Arrays
from configs import oja
from tests.training.runs import train


def arc(count: int, seed: int) -> np.ndarray:
    """Points of three quarters of a circle, with a little noise: [count, 2]."""
    chance = np.random.RandomState(seed)
    angle = chance.uniform(0, 1.5 * np.pi, count)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points + chance.normal(0, 0.01, points.shape)


def parabola(count: int, seed: int) -> np.ndarray:
    """Points (t, t**2, t) with a little noise: [count, 3]."""
    chance = np.random.RandomState(seed)
    t = chance.uniform(-1, 1, count)
    return np.stack([t, t**2, t], axis=1) + chance.normal(0, 0.01, (count, 3))


def beside_one_component(train_rows: np.ndarray, rows: np.ndarray) -> float:
    """Mean squared distance an element from the first principal component's line, float64."""
    mean = train_rows.mean(0)
    line = np.linalg.svd(train_rows - mean, full_matrices=False)[2][0]
    centred = rows - mean
    return float(np.mean(np.square(centred - np.outer(centred @ line, line))))


@pytest.mark.parametrize("curve", [arc, parabola])
def test_one_number_follows_a_curve_far_closer_than_one_principal_component(tmp_path, curve):
    rows = [curve(count, seed).astype(np.float32) for seed, count in enumerate((1000, 300))]
    sources = tuple(Arrays(x, None, None) for x in rows)
    config = oja.get_config()
    config.data.prepare.scale, config.trackers, config.evaluation.every = False, (), ""
    config.model.latent_dim, config.model.coder.hidden = 1, (32,)
    config.optimizer.learning_rate, config.duration = 1e-2, "3000 steps"
    device = jax.devices()[:1]
    outcome = train(config, str(tmp_path), sources=sources, quiet=True, devices=device)
    linear = beside_one_component(*[x.astype(np.float64) for x in rows])
    assert outcome.metrics["mse"] < linear / 100
    model = aejax.load(str(tmp_path))
    error = np.mean(np.square(model.reconstruct(rows[1]).astype(np.float64) - rows[1]))
    assert error == pytest.approx(outcome.metrics["mse"], rel=1e-4)
