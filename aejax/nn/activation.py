"""Activations by name."""

import jax
import jax.numpy as jnp

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
