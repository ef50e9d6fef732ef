"""The recurrent autoencoder by hand: an LSTM over the lines of an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.bare.dense import Draw, cross_entropy
from benchmarks.bare.scan import Loss, Params


def _flat_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x [length, rows, n] @ matrix, as one product of two matrices."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:2], -1)


def _lstm(params: Params, part: str, inputs: jax.Array, state, reverse: bool):
    recurrent = params[f"{part}/layers/0/recurrent"]

    def step(state, now):
        c, h = state
        i, f, o, g = jnp.split(now + h @ recurrent, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    # Written out, 8 steps take 0.7 of the time of a loop; 28 take longer.
    return jax.lax.scan(step, state, inputs, reverse=reverse, unroll=len(inputs) <= 8)


def lines(length: int, prepare: Callable) -> Loss:
    """An LSTM reads an image line by line to a code, another writes it from the last line on."""

    def loss(params: Params, rows: jax.Array, key: Draw, step: jax.Array) -> jax.Array:
        x = prepare(rows)
        steps = x.reshape(len(x), length, -1).swapaxes(0, 1)
        inputs = _flat_product(steps, params["encoder/layers/0/kernel"])
        inputs = inputs + params["encoder/layers/0/bias"][:, None]
        zero = jnp.zeros((len(x), params["encoder/layers/0/recurrent"].shape[0]))
        state, _ = _lstm(params, "encoder", inputs, (zero, zero), False)
        both = jnp.concatenate(state, axis=-1)
        z = both @ params["encoder/code/kernel"] + params["encoder/code/bias"]
        start = z @ params["decoder/start/kernel"] + params["decoder/start/bias"]
        inputs = z @ params["decoder/layers/0/kernel"] + params["decoder/layers/0/bias"][:, None]
        _, h = _lstm(params, "decoder", inputs, tuple(jnp.split(start, 2, axis=-1)), True)
        out = _flat_product(h, params["decoder/output/kernel"]) + params["decoder/output/bias"]
        return cross_entropy(out.swapaxes(0, 1).reshape(len(x), -1), x)

    return loss
