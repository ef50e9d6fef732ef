"""The convolutional autoencoder by hand, with aejax.nn's convolutions and pooling.

Both come as shifted slices on a CPU: the gradients of XLA's own take tens of times as long in a
loop there (`benchmarks/README.md`), and a comparison with them would say nothing.
"""

from collections.abc import Callable

import jax

from aejax.nn.convolution import convolve, convolve_up
from aejax.nn.pooling import max_pool
from benchmarks.bare.dense import Draw, cross_entropy, decode, encode
from benchmarks.bare.scan import Loss, Params


def autoencoder(shape: tuple[int, ...], prepare: Callable) -> Loss:
    """Two stages of convolution, relu and pooling, dense layers to the code, and mirrored back."""
    height, width = shape[:2]

    def loss(params: Params, rows: jax.Array, key: Draw, step: jax.Array) -> jax.Array:
        x = prepare(rows)
        h = x.reshape(-1, height, width, 1)
        for n in (0, 1):
            kernel, bias = (params[f"encoder/stages/{n}/{name}"] for name in ("kernel", "bias"))
            h = max_pool(jax.nn.relu(convolve(h, kernel) + bias))
        h = h.reshape(len(x), -1)
        h = decode(params, encode(params, h, jax.nn.relu), jax.nn.relu)
        h = jax.nn.relu(h)
        h = h.reshape(-1, height // 4, width // 4, params["decoder/stages/0/kernel"].shape[2])
        for n in (0, 1):
            kernel, bias = (params[f"decoder/stages/{n}/{name}"] for name in ("kernel", "bias"))
            h = convolve_up(h, kernel) + bias
            h = h if n else jax.nn.relu(h)
        return cross_entropy(h.reshape(len(x), -1), x)

    return loss
