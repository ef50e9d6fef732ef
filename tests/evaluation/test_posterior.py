"""A variational bottleneck from outside has what aejax's own has: it says so, and no task asks."""

import jax.numpy as jnp
import numpy as np
import pytest

from aejax.config import Prepare
from aejax.evaluation import anomaly, detector, drawing, generate, latent, likelihood, traversal
from aejax.evaluation.encoded import encode_rows
from aejax.models.bottlenecks import Variational
from aejax.models.likelihood import Gaussian
from tests.training.modern import Shifted

RANDOM = np.random.RandomState(0)
X = RANDOM.rand(60, 4, 4, 1).astype(np.float32)


@pytest.fixture
def one(make):
    arrays = {"x_train": X, "x_test": X[:40]}
    plain = Prepare(scale=False)
    return make(2, Gaussian(), plain, bottleneck=Shifted(), weight=0.3, **arrays)


def posterior(one) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log variance of the evaluated rows, in NumPy."""
    features = one.linear.encode(X[:40]).reshape(40, 2, 2)
    return features[..., 0] + [0.5, 1.5], 2 * np.log(np.log1p(np.exp(features[..., 1])))


def test_its_divergence_and_bound_are_measured(one):
    mean, log_variance = posterior(one)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1)
    found = likelihood.task(one.model, one.test, samples=300).values()
    assert found["kl"] == pytest.approx(kl.sum(1).mean(), rel=1e-4)
    # E of log p(x given z) in closed form: the decoder is linear and the variance is fixed.
    errors = np.square(one.linear.decode(mean) - X[:40].reshape(40, -1)).sum(1)
    errors += np.exp(log_variance) @ np.square(one.linear.out).sum(1)
    precision = 1 / np.square(Gaussian().deviation)
    nll = 0.5 * (precision * errors - 16 * np.log(precision / (2 * np.pi)))
    assert found["nll"] == pytest.approx(nll.mean(), rel=0.02)
    assert found["log_likelihood"] > found["elbo"]
    active, what = latent.activity(one.model, one.test, mean)
    assert "KL to the prior" in what
    np.testing.assert_allclose(active, kl.mean(0), rtol=1e-4)
    np.testing.assert_allclose(one.model.encode(X[:40]), mean, rtol=1e-4, atol=1e-5)


def test_it_is_drawn_from_and_travelled_as_a_variational_code(one):
    drawn = drawing.from_prior(one.model, 5)
    assert drawn is not None and drawn.origin == "the prior, a standard normal"
    rows = encode_rows(one.model, one.test)
    (figure,) = traversal.traversal(one.model, one.test, rows)
    assert "3 deviations of the prior" in figure.caption and "KL to the prior" in figure.caption
    assert "of the prior" in traversal.manifold(one.model, one.test, rows).caption
    figures = generate.task(one.model, one.test, one.train).figures
    (between,) = (each for each in figures if each.name == "interpolation")
    assert "arcs of a circle" in between.caption


def test_its_bound_is_a_score(one):
    settings = one.model.run.config.model
    assert detector.scores_of(settings) == detector.SCORES
    result = anomaly.task(one.model, one.test, one.train, score="elbo")
    scores = detector.score(one.model, one.test, detector.fit(one.model, one.train), ("elbo",))
    assert np.isfinite(scores["elbo"]).all() and len(np.unique(scores["elbo"])) == 40
    assert f"{scores['elbo'].max():.6g}" in result.texts[anomaly.RANKING]


def test_both_kinds_say_it_and_only_they():
    assert Variational.has_posterior and Shifted.has_posterior
    features = jnp.asarray(RANDOM.randn(3, 4), jnp.float32)
    found = Variational().posterior(features)
    np.testing.assert_array_equal(found.mean, features[:, :2])
    np.testing.assert_array_equal(found.log_variance, features[:, 2:])
