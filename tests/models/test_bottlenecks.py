"""What a code is, against NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from aejax.models.batch import Context, evaluation
from aejax.models.bottlenecks import KINDS, KSparse, Plain
from aejax.nn.activation import ACTIVATIONS

FEATURES = np.random.RandomState(1).randn(40, 32).astype(np.float32)
TRAINING = Context(jax.random.split(jax.random.key(0), 40), jnp.int32(0), lambda x: x.mean(0))

IN_NUMPY = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    # the tanh form of Hendrycks and Gimpel (2016)
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0),
    "silu": lambda x: x * special.expit(x),
}


def largest(features: np.ndarray, k: int) -> np.ndarray:
    """Keeps the k largest of each row, one row and one feature at a time."""
    out = np.zeros_like(features)
    for row, values in enumerate(features):
        for i in sorted(range(len(values)), key=lambda i: -values[i])[:k]:
            out[row, i] = values[i]
    return out


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_plain_code_is_the_activation_of_the_features(name):
    bottleneck = Plain(name)
    code = bottleneck(jnp.asarray(FEATURES), TRAINING)
    exact = IN_NUMPY[name](np.float64(FEATURES))
    np.testing.assert_allclose(code.z[0], exact, rtol=1e-5, atol=1e-6)
    assert code.z.shape == (1, *FEATURES.shape)
    assert code.log_weight is None and code.penalties == {}
    assert np.array_equal(bottleneck.encode(FEATURES), code.z[0])
    assert bottleneck.features(7) == 7


def test_an_unknown_activation_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="activation=rleu: must be one of linear, relu, gelu"):
        Plain("rleu")


@pytest.mark.parametrize("k", [1, 5, 25, 32])
def test_k_sparse_keeps_exactly_the_k_largest(k):
    code = KSparse(k)(jnp.asarray(FEATURES), TRAINING)
    assert np.array_equal(code.z, largest(FEATURES, k)[None])
    assert ((code.z[0] != 0).sum(axis=1) == k).all()
    assert code.log_weight is None and code.penalties == {}


@pytest.mark.parametrize("k", [1, 4, 9])
def test_k_sparse_keeps_exactly_k_also_of_equal_features_and_then_the_first(k):
    features = np.random.RandomState(3).randint(1, 4, (50, 12)).astype(np.float32)
    assert np.array_equal(KSparse(k).encode(features), largest(features, k))
    assert np.array_equal(KSparse(k).encode(np.ones((2, 12), np.float32)).sum(1), [k, k])


@pytest.mark.parametrize(("step", "kept"), [(0, 20), (25, 16), (50, 12), (100, 4), (1000, 4)])
def test_k_falls_in_a_line_from_start_to_k(step, kept):
    bottleneck = KSparse(4, start=20, anneal_steps=100)
    context = Context(TRAINING.keys, jnp.int32(step), TRAINING.mean)
    assert np.array_equal(bottleneck(FEATURES, context).z[0], largest(FEATURES, kept))
    assert np.array_equal(bottleneck.encode(FEATURES), largest(FEATURES, 4))


def test_k_sparse_keeps_negative_features_where_they_are_the_largest():
    features = -np.abs(FEATURES)
    assert np.array_equal(KSparse(3).encode(features), largest(features, 3))


def test_the_gradient_goes_through_the_kept_features_alone():
    weight = np.random.RandomState(2).randn(*FEATURES.shape).astype(np.float32)
    gradient = jax.grad(lambda f: jnp.sum(weight * KSparse(5)(f, TRAINING).z))(FEATURES)
    assert np.array_equal(gradient, np.where(largest(FEATURES, 5) != 0, weight, 0))


@pytest.mark.parametrize(("k", "scale", "kept"), [(5, 1.0, 5), (5, 2.0, 10), (4, 1.5, 6)])
def test_encoding_keeps_test_scale_times_as_many(k, scale, kept):
    bottleneck = KSparse(k, scale)
    assert np.array_equal(bottleneck.encode(FEATURES), largest(FEATURES, kept))
    code = bottleneck(jnp.asarray(FEATURES), evaluation(None))
    assert np.array_equal(code.z, largest(FEATURES, kept)[None])
    code = bottleneck(jnp.asarray(FEATURES), TRAINING)
    assert np.array_equal(code.z, largest(FEATURES, k)[None])


@pytest.mark.parametrize(
    ("k", "scale", "latent_dim", "kept"), [(33, 1.0, 32, 33), (20, 2.0, 32, 40), (1, 3.0, 2, 3)]
)
def test_a_code_smaller_than_what_is_kept_is_refused(k, scale, latent_dim, kept):
    said = rf"k={k} \(test_scale={scale}\) keeps {kept} features of latent_dim={latent_dim}"
    with pytest.raises(ValueError, match=said):
        KSparse(k, scale).features(latent_dim)
    assert KSparse(k, scale).features(kept) == kept


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"k": 0}, "k=0: must be at least 1"),
        ({"test_scale": 0.5}, "test_scale=0.5: must be"),
        ({"test_scale": math.nan}, "test_scale=nan: must be"),
        ({"test_scale": math.inf}, "test_scale=inf: must be"),
    ],
)
def test_k_sparse_refuses_what_it_cannot_keep(fields, said):
    with pytest.raises(ValueError, match=said):
        KSparse(**fields)


def test_features_that_are_not_a_number_do_not_become_a_code():
    """Else a model that broke would go on with a loss that looks well."""
    features = jnp.asarray(FEATURES).at[3].set(jnp.nan)
    z = np.asarray(KSparse(5)(features, TRAINING).z[0])
    assert np.isnan(z[3]).any()
    assert np.array_equal(np.delete(z, 3, 0), np.delete(largest(FEATURES, 5), 3, 0))


@pytest.mark.parametrize("name", KINDS)
def test_every_bottleneck_gives_the_code_that_it_encodes(name):
    bottleneck = KINDS[name]() if name != "k_sparse" else KSparse(4, 2.0)
    code = bottleneck(jnp.asarray(FEATURES), evaluation(None))
    if len(code.z) == 1:
        assert np.array_equal(code.z[0], bottleneck.encode(FEATURES))
