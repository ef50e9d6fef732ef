"""Dropout (Srivastava et al. 2014): units put to 0 in training, the others scaled up."""

import jax
import jax.numpy as jnp


def check(setting: str, rate: float) -> None:
    """Raises ValueError, naming the setting, if the rate is no share below 1."""
    if not 0 <= rate < 1:
        raise ValueError(f"{setting}={rate}: must be at least 0 and below 1")


def dropout(x: jax.Array, rate: float, keys: jax.Array) -> jax.Array:
    """Sets elements of x [rows, ...] to 0 with probability `rate`, and divides others by 1 - rate.

    The expectation is x, so that evaluation needs no scaling.

    Args:
        x: values.
        rate: a share below 1.
        keys: one a row.
    """
    draws = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], jnp.float32))(keys)
    return jnp.where(draws < rate, 0, x / (1 - rate)).astype(x.dtype)
