"""Pooling by reshape against `lax.reduce_window`, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from aejax.nn.pooling import max_pool, mean_pool, upsample


def _random(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.RandomState(seed).randn(*shape), jnp.float32)


def _with_gradient(function, x):
    @jax.jit
    def run(x):
        y, pull = jax.vjp(function, x)
        return y, *pull(_random(9, *y.shape).astype(y.dtype))

    return run(x)


def _max(window: int):
    shape = (1, window, window, 1)
    return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, shape, shape, "VALID")


def _mean(window: int):
    shape = (1, window, window, 1)
    return lambda x: lax.reduce_window(x, 0.0, lax.add, shape, shape, "VALID") / window**2


@pytest.mark.parametrize("shape, window", [((2, 6, 8, 1), 2), ((2, 6, 9, 3), 3), ((1, 8, 4, 5), 4)])
@pytest.mark.parametrize("pool, reference", [(max_pool, _max), (mean_pool, _mean)])
def test_pooling_and_its_gradient_are_xlas(pool, reference, shape, window):
    x = _random(0, *shape)
    expected = _with_gradient(reference(window), x)
    for a, b in zip(_with_gradient(lambda x: pool(x, window), x), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_ties_share_the_gradient():
    x = jnp.asarray([[1.0, 1.0], [0.0, 1.0]])[..., None]
    shares = jax.grad(lambda x: max_pool(x).sum())(x)[..., 0]
    np.testing.assert_allclose(shares, [[0.5, 0.25], [0.0, 0.25]])
    equal = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((2, 2, 1)))
    np.testing.assert_allclose(equal, jnp.full((2, 2, 1), 0.25))


@pytest.mark.parametrize("pool", [max_pool, mean_pool])
def test_any_number_of_leading_axes_and_bfloat16(pool):
    x = _random(0, 2, 3, 4, 6, 2)
    y = pool(x)
    assert y.shape == (2, 3, 2, 3, 2)
    np.testing.assert_array_equal(y[1, 2], pool(x[1, 2]))
    halves = pool(x.astype(jnp.bfloat16))
    assert halves.dtype == jnp.bfloat16
    np.testing.assert_allclose(halves.astype(jnp.float32), y, atol=2e-2)


def test_on_a_cpu_no_window_is_searched():
    text = str(jax.make_jaxpr(jax.grad(lambda x: max_pool(x).sum()))(_random(0, 1, 4, 4, 3)))
    assert "reduce_window" not in text
    assert "select_and" not in text


@pytest.mark.parametrize("pool", [max_pool, mean_pool])
@pytest.mark.parametrize("window", [0, 2, 5])
def test_a_window_that_does_not_divide_is_refused(pool, window):
    with pytest.raises(ValueError, match=f"window={window}: .* height 5 and width 6"):
        pool(jnp.zeros((5, 6, 1)), window)


@pytest.mark.parametrize("channels", [1, 3])
def test_upsample_repeats_and_its_gradient_sums(channels):
    x = _random(0, 2, 3, 4, channels)

    def repeated(x):
        return jnp.repeat(jnp.repeat(x, 3, axis=1), 3, axis=2)

    for a, b in zip(
        _with_gradient(lambda x: upsample(x, 3), x), _with_gradient(repeated, x), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_array_equal(mean_pool(upsample(x)), x)
