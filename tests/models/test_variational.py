"""The variational code: its divergence, its two bounds and its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

from aejax.models import Autoencoder, Batch
from aejax.models.batch import Context, evaluation
from aejax.models.bottlenecks import Variational
from aejax.models.coders import Dense
from aejax.models.interfaces import Posterior
from aejax.models.likelihood import Gaussian

ROWS, UNITS = 8, 5
RANDOM = np.random.RandomState(0)
MEAN, LOG_VARIANCE = RANDOM.randn(ROWS, UNITS), RANDOM.randn(ROWS, UNITS)
FEATURES = jnp.asarray(np.concatenate([MEAN, LOG_VARIANCE], axis=1), jnp.float32)


def training(rows: int = ROWS, seed: int = 0) -> Context:
    keys = jax.random.split(jax.random.key(seed), rows)
    return Context(keys, jnp.int32(0), lambda x: x.mean(0))


def test_the_divergence_is_the_mean_of_log_q_over_p_by_sampling():
    exact = np.asarray(
        Posterior(jnp.asarray(MEAN), jnp.asarray(LOG_VARIANCE)).divergence(), np.float64
    )
    deviation = np.exp(LOG_VARIANCE / 2)
    z = MEAN + deviation * np.random.RandomState(1).randn(40_000, ROWS, UNITS)
    ratio = stats.norm.logpdf(z, MEAN, deviation) - stats.norm.logpdf(z)
    error = ratio.std(0) / np.sqrt(len(z))
    assert (np.abs(ratio.mean(0) - exact) < 5 * error).all()
    assert np.asarray(Posterior(jnp.zeros(3), jnp.zeros(3)).divergence()) == pytest.approx(0)


def test_one_sample_costs_beta_times_the_divergence():
    for beta in (0.0, 1.0, 4.0):
        code = Variational(beta)(FEATURES, training())
        exact = np.asarray(Posterior(MEAN, LOG_VARIANCE).divergence()).sum(1)
        np.testing.assert_allclose(code.penalties["kl"], beta * exact, rtol=1e-5)
        assert code.z.shape == (1, ROWS, UNITS) and code.log_weight is None


def test_free_bits_are_a_floor_under_the_batchs_mean_of_each_unit():
    each = np.asarray(Posterior(MEAN, LOG_VARIANCE).divergence()).mean(0)
    floor = float(np.median(each))
    code = Variational(2.0, free_bits=floor)(FEATURES, training())
    exact = 2 * np.maximum(each, floor).sum()
    np.testing.assert_allclose(code.penalties["kl"], exact, rtol=1e-5)


def test_samples_have_the_codes_mean_and_deviation_and_weigh_as_densities_say():
    code = Variational(samples=20_000)(FEATURES, training())
    z, deviation = np.asarray(code.z, np.float64), np.exp(LOG_VARIANCE / 2)
    assert (np.abs(z.mean(0) - MEAN) < 5 * deviation / np.sqrt(20_000)).all()
    np.testing.assert_allclose(z.std(0), deviation, rtol=0.03)
    exact = stats.norm.logpdf(z).sum(2) - stats.norm.logpdf(z, MEAN, deviation).sum(2)
    np.testing.assert_allclose(code.log_weight, exact, rtol=1e-3, atol=2e-4)


def test_the_weighted_bound_reaches_a_known_log_likelihood():
    """A linear-Gaussian model has p(x) in closed form; the bound comes near it, from below."""
    model = Autoencoder(Dense(()), 2, Variational(samples=500), Gaussian(1.0))
    x = jnp.asarray(np.random.RandomState(3).randn(64, 4), jnp.float32)
    module = model.init(nnx.Rngs(0), Batch(x))
    kernel = np.float64(module.decoder.layers[0].kernel[...])
    covariance = kernel.T @ kernel + np.eye(4)
    weight = module.encoder.layers[0].weight
    weight[...] = 0.2 * weight[...]  # codes not far from the prior: few samples say enough
    exact = stats.multivariate_normal.logpdf(x, np.zeros(4), covariance).mean()
    bounds = {}
    for samples in (2, 500):
        module.settings = nnx.static(
            Autoencoder(Dense(()), 2, Variational(samples=samples), Gaussian(1.0))
        )
        losses = [module.loss(Batch(x), training(64, seed))[0] for seed in range(20)]
        bounds[samples] = -np.mean(losses)
    assert bounds[2] < bounds[500] - 0.02
    assert abs(bounds[500] - exact) < 0.02


def test_one_samples_loss_is_the_negative_elbo():
    model = Autoencoder(Dense(()), 3, Variational())
    x = jnp.asarray(np.random.RandomState(4).rand(ROWS, 6), jnp.float32)
    module = model.init(nnx.Rngs(0), Batch(x))
    context = training()
    features = np.float64(module.encoder(x, None, None))
    mean, log_variance = np.split(features, 2, axis=1)
    z = np.float64(Variational()(jnp.asarray(features, jnp.float32), context).z[0])
    kernel = np.float64(module.decoder.layers[0].kernel[...])
    logits = z @ kernel
    log_p = (np.asarray(x) * logits + special.log_expit(-logits)).sum(1)
    kl = np.asarray(Posterior(mean, log_variance).divergence()).sum(1)
    loss, terms = module.loss(Batch(x), context)
    np.testing.assert_allclose(loss, np.mean(kl - log_p), rtol=1e-5)
    np.testing.assert_allclose(terms["kl"], kl.mean(), rtol=1e-5)
    np.testing.assert_allclose(terms["nll"], -log_p.mean(), rtol=1e-5)


def test_evaluation_takes_the_mean_and_draws_nothing():
    code = Variational()(FEATURES, evaluation(None))
    np.testing.assert_array_equal(code.z[0], FEATURES[:, :UNITS])
    np.testing.assert_array_equal(Variational().encode(FEATURES), FEATURES[:, :UNITS])
    assert Variational().features(UNITS) == 2 * UNITS


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"beta": -1.0}, "beta=-1.0: must be at least 0"),
        ({"samples": 0}, "samples=0: must be at least 1"),
        ({"free_bits": -0.5}, "free_bits=-0.5: must be at least 0"),
        ({"samples": 5, "beta": 2.0}, "samples=5: the importance-weighted bound takes beta=1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Variational(**fields)
