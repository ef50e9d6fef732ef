"""The fast forms of convolution and pooling give what XLA's own operations give, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from aejax.nn.convolution import chosen, convolve, convolve_up
from aejax.nn.depth_to_space import depth_to_space
from aejax.nn.pooling import max_pool, mean_pool, upsample

RANDOM = np.random.RandomState(0)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def assert_same(function, reference, *arguments, tolerance: float = 2e-5) -> None:
    """Values and the gradients to every argument agree."""
    y, back = jax.vjp(function, *arguments)
    expected, back_expected = jax.vjp(reference, *arguments)
    assert y.shape == expected.shape
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(y, expected, atol=tolerance * scale)
    cotangent = normal(*y.shape)
    for one, other in zip(back(cotangent), back_expected(cotangent), strict=True):
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one, other, atol=tolerance * scale)


@pytest.mark.parametrize("form", ["cpu", "accelerator"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "stride", "inputs", "outputs", "height", "width"),
    [
        (3, 1, 4, 8, 14, 14),
        (3, 2, 1, 16, 28, 28),
        (3, 2, 3, 5, 13, 10),
        (5, 1, 8, 1, 9, 12),
        (5, 2, 8, 4, 11, 9),
        (1, 1, 6, 3, 5, 7),
        (1, 2, 6, 3, 5, 8),
        (2, 2, 3, 4, 8, 8),
    ],
)
def test_convolution(form, padding, size, stride, inputs, outputs, height, width):
    def reference(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = normal(3, height, width, inputs), normal(size, size, inputs, outputs)
    assert_same(lambda x, k: convolve(x, k, stride, padding, form), reference, x, kernel)


@pytest.mark.parametrize("form", ["cpu", "accelerator"])
@pytest.mark.parametrize(
    ("size", "factor", "inputs", "outputs"),
    [(2, 2, 8, 4), (3, 2, 8, 4), (3, 2, 4, 16), (3, 3, 2, 1), (2, 4, 3, 3), (1, 2, 5, 2)],
)
def test_enlarging_convolution_is_the_transposed_one(form, size, factor, inputs, outputs):
    def transposed(x, kernel):
        # As the docstring says: t[f (u + 1) - 1 - a, f (v + 1) - 1 - b] = kernel[u, v, c, (a, b)].
        blocks = kernel.reshape(size, size, inputs, factor, factor, outputs)
        t = blocks[:, :, :, ::-1, ::-1].transpose(0, 3, 1, 4, 2, 5)
        t = t.reshape(factor * size, factor * size, inputs, outputs)
        return lax.conv_transpose(
            x, t, (factor, factor), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = normal(2, 7, 6, inputs), normal(size, size, inputs, factor * factor * outputs)
    assert_same(lambda x, k: convolve_up(x, k, factor, form), transposed, x, kernel)


@pytest.mark.parametrize(("window", "channels"), [(2, 1), (2, 16), (3, 3)])
def test_pooling(window, channels):
    shape, strides = (1, window, window, 1), (1, window, window, 1)

    def largest(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, shape, strides, "VALID")

    def mean(x):
        return lax.reduce_window(x, 0.0, lax.add, shape, strides, "VALID") / window**2

    x = normal(4, 6 * window, 4 * window, channels)
    assert_same(lambda x: max_pool(x, window), largest, x)
    assert_same(lambda x: mean_pool(x, window), mean, x)
    repeated = upsample(x, window)
    np.testing.assert_allclose(mean_pool(repeated, window), x, rtol=1e-6)
    np.testing.assert_array_equal(repeated, np.repeat(np.repeat(x, window, 1), window, 2))


def test_tied_pixels_share_a_gradient_that_sums_to_one():
    gradient = jax.grad(lambda x: max_pool(x, 2).sum())(jnp.ones((1, 4, 4, 3)))
    np.testing.assert_allclose(gradient.reshape(2, 2, 2, 2, 3).sum((1, 3)), 1.0)


def test_depth_to_space_puts_channels_where_it_says():
    x = np.arange(2 * 3 * 4 * 8).reshape(2, 3, 4, 8)
    y = np.asarray(depth_to_space(jnp.asarray(x), 2))
    for i, j, a, b in np.ndindex(3, 4, 2, 2):
        block = x[:, i, j, (2 * a + b) * 2 : (2 * a + b) * 2 + 2]
        np.testing.assert_array_equal(y[:, 2 * i + a, 2 * j + b], block)


def test_bfloat16_stays_bfloat16_and_the_backend_chooses():
    x, kernel = normal(2, 8, 8, 4).astype(jnp.bfloat16), normal(3, 3, 4, 8).astype(jnp.bfloat16)
    near = convolve(x, kernel)
    exact = convolve(x.astype(jnp.float32), kernel.astype(jnp.float32))
    assert near.dtype == jnp.bfloat16
    np.testing.assert_allclose(near.astype(jnp.float32), exact, atol=0.1)
    assert chosen() == "cpu"  # the tests' backend


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: max_pool(jnp.zeros((1, 5, 4, 1)), 2),
        lambda: convolve(jnp.zeros((1, 5, 4, 2)), jnp.zeros((3, 3, 1, 1))),
        lambda: convolve(jnp.zeros((1, 5, 4, 1)), jnp.zeros((3, 3, 1, 1)), stride=0),
        lambda: convolve_up(jnp.zeros((1, 5, 4, 1)), jnp.zeros((3, 3, 1, 6)), 2),
        lambda: depth_to_space(jnp.zeros((1, 2, 2, 6)), 2),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="must|multiple"):
        wrong()
