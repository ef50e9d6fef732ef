"""The transformer through a code by hand: patches of an image, pre-norm blocks, one linear code."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.bare.dense import Draw, cross_entropy
from benchmarks.bare.scan import Loss, Params


def _norm(params: Params, name: str, x: jax.Array) -> jax.Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
    return x * params[f"{name}/scale"] + params[f"{name}/bias"]


def _attention(params: Params, name: str, x: jax.Array, tokens: int, heads: int) -> jax.Array:
    """x [rows * tokens, width], with heads in front of rows for the two products."""
    width = x.shape[-1]
    size = width // heads
    made = x @ params[f"{name}/into"] + params[f"{name}/into_bias"]
    made = made.reshape(-1, tokens, heads, 3, size).transpose(3, 2, 0, 1, 4)
    scores = jnp.einsum("hrqd,hrkd->hrqk", made[0] * size**-0.5, made[1])
    weights = jax.nn.softmax(scores, axis=-1)
    seen = jnp.einsum("hrqk,hrkd->hrqd", weights, made[2])
    flat = seen.transpose(1, 2, 0, 3).reshape(-1, width)
    return flat @ params[f"{name}/out/kernel"] + params[f"{name}/out/bias"]


def _feed_forward(params: Params, name: str, x: jax.Array) -> jax.Array:
    h = jax.nn.gelu(x @ params[f"{name}/into/kernel"] + params[f"{name}/into/bias"])
    return h @ params[f"{name}/out/kernel"] + params[f"{name}/out/bias"]


def _stack(params: Params, part: str, x: jax.Array, tokens: int, heads: int) -> jax.Array:
    """Two layers, each of attention and feed-forward: x [rows * tokens, width]."""
    for layer in (0, 1):
        name = f"{part}/stack/slots/{2 * layer}"
        y = _norm(params, f"{name}/norm", x)
        x = x + _attention(params, f"{name}/block", y, tokens, heads)
        name = f"{part}/stack/slots/{2 * layer + 1}"
        x = x + _feed_forward(params, f"{name}/block", _norm(params, f"{name}/norm", x))
    return _norm(params, f"{part}/stack/norm", x)


def autoencoder(shape: tuple[int, ...], patch: int, heads: int, prepare: Callable) -> Loss:
    """Patches to tokens to one code, and back."""
    down, across = shape[0] // patch, shape[1] // patch
    tokens = down * across

    def loss(params: Params, rows: jax.Array, key: Draw, step: jax.Array) -> jax.Array:
        x = prepare(rows)
        patches = x.reshape(len(x), down, patch, across, patch).swapaxes(2, 3)
        patches = patches.reshape(len(x) * tokens, -1)
        width = params["encoder/table"].shape[1]
        h = (patches @ params["encoder/table"]).reshape(len(x), tokens, width)
        h = (h + params["encoder/positions"]).reshape(-1, width)
        h = _stack(params, "encoder", h, tokens, heads)
        z = h.reshape(len(x), -1) @ params["encoder/code/kernel"] + params["encoder/code/bias"]
        h = (z @ params["decoder/start/kernel"]).reshape(len(x), tokens, width)
        h = (h + params["decoder/positions"]).reshape(-1, width)
        h = _stack(params, "decoder", h, tokens, heads)
        h = h @ params["decoder/out/kernel"] + params["decoder/out/bias"]
        # The loss is a sum over elements: they need not go back to their places.
        return cross_entropy(h.reshape(len(x), -1), patches.reshape(len(x), -1))

    return loss
