"""Activations by name."""

import jax
import jax.numpy as jnp
from flax import nnx

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
}


def activate(name: str, x: jax.Array) -> jax.Array:
    """Applies the activation called `name`, elementwise."""
    return ACTIVATIONS[name](x)


def check(setting: str, name: str) -> None:
    """Raises ValueError, naming the setting, if there is no activation called `name`."""
    if name not in ACTIVATIONS:
        raise ValueError(f"{setting}={name}: must be one of {', '.join(ACTIVATIONS)}")


def initializer(name: str) -> nnx.Initializer:
    """Initializer of a kernel whose outputs go through this activation; it keeps the variance.

    Activations that are 0 on one side get twice the variance (He et al. 2015, equation 10); the
    others start as in Glorot and Bengio 2010, equation 16.
    """
    if name in ("relu", "gelu", "silu"):
        return nnx.initializers.he_normal()
    return nnx.initializers.glorot_uniform()
