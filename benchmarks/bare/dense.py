"""Dense autoencoders by hand: linear, deep, Oja's, denoising, contractive, sparse, variational."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from aejax.nn import bernoulli
from benchmarks.bare.scan import Loss, Params

Draw = jax.Array | None
# (features, key, step) -> code, what is added to the loss
Code = Callable[[jax.Array, Draw, jax.Array], tuple[jax.Array, jax.Array | float]]


def identity(x: jax.Array) -> jax.Array:
    return x


def cross_entropy(logits: jax.Array, x: jax.Array) -> jax.Array:
    """-log p(x) of Bernoulli elements, nats, the mean over rows."""
    return -jnp.sum(bernoulli.log_prob(logits, x)) / len(x)


def squared_error(mean: jax.Array, x: jax.Array) -> jax.Array:
    """-log p(x) of normal elements of variance 1/2, nats, the mean over rows."""
    return jnp.sum(jnp.square(x - mean)) / len(x) + 0.5 * math.log(math.pi) * x.shape[1]


def weight(params: Params, n: int) -> jax.Array:
    """[outputs, inputs] of the encoder's layer n; a tied one's is the decoder's kernel."""
    own = params.get(f"encoder/layers/{n}/weight")
    return params["decoder/layers/0/kernel"] if own is None else own


def depth(params: Params, part: str) -> int:
    """How many dense layers a part has."""
    return sum(name.startswith(f"{part}/layers/") and name.endswith("bias") for name in params)


def encode(params: Params, x: jax.Array, hidden: Callable) -> jax.Array:
    """Through all layers, the last one linear; their weights lie [outputs, inputs]."""
    layers = depth(params, "encoder")
    for n in range(layers):
        x = x @ weight(params, n).T + params[f"encoder/layers/{n}/bias"]
        x = hidden(x) if n + 1 < layers else x
    return x


def decode(params: Params, z: jax.Array, hidden: Callable) -> jax.Array:
    """As `encode`, with kernels [inputs, outputs]."""
    layers = depth(params, "decoder")
    for n in range(layers):
        z = z @ params[f"decoder/layers/{n}/kernel"] + params[f"decoder/layers/{n}/bias"]
        z = hidden(z) if n + 1 < layers else z
    return z


def plain(activation: Callable) -> Code:
    """A code without any cost."""
    return lambda features, key, step: (activation(features), 0.0)


def autoencoder(
    code: Code,
    prepare: Callable,
    negative_log_p: Callable = cross_entropy,
    hidden: Callable = jax.nn.relu,
    corrupt: Callable = lambda x, key: x,
    penalty: Callable = lambda params, z: 0.0,
) -> Loss:
    """-log p(x given code), and what the code costs."""

    def loss(params: Params, rows: jax.Array, key: Draw, step: jax.Array) -> jax.Array:
        x = prepare(rows)
        z, cost = code(encode(params, corrupt(x, key), hidden), key, step)
        logits = decode(params, z, hidden)
        return negative_log_p(logits, x) + cost + penalty(params, z)

    return loss


def masked(x: jax.Array, key: Draw) -> jax.Array:
    """A quarter of the elements becomes 0: one byte of randomness for each."""
    if key is None:
        return x
    return jnp.where(jax.random.bits(key, x.shape, jnp.uint8) < 64, 0.0, x)


def sampled(features: jax.Array, key: Draw, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One draw of a normal code for each row, and its divergence from the prior."""
    size = features.shape[1] // 2
    mean, log_variance = features[:, :size], features[:, size:]
    variance = jnp.exp(log_variance)
    divergence = 0.5 * jnp.sum(mean**2 + variance - log_variance - 1) / len(mean)
    if key is None:
        return mean, divergence
    noise = jax.random.normal(key, mean.shape)
    return mean + jnp.exp(0.5 * log_variance) * noise, divergence


def largest(k: int, start: int, anneal_steps: int) -> Code:
    """The k largest features of each row; k falls from `start` over the first steps."""

    def code(features: jax.Array, key: Draw, step: jax.Array):
        share = jnp.minimum(step / anneal_steps, 1.0)
        now = jnp.round(start + (k - start) * share).astype(jnp.int32)
        ordered = jax.lax.top_k(jax.lax.stop_gradient(features), start)[0]
        least = jax.lax.dynamic_index_in_dim(ordered, now - 1, axis=1)
        return jnp.where(features >= least, features, 0.0), 0.0

    return code


def contraction(params: Params, z: jax.Array) -> jax.Array:
    """A tenth of the squared norm of one sigmoid layer's Jacobian."""
    squares = jnp.sum(jnp.square(weight(params, 0)), axis=1)
    return 0.1 * jnp.sum(jnp.square(z * (1 - z)) @ squares) / len(z)


def activity(params: Params, z: jax.Array) -> jax.Array:
    """3 KL(0.05 || mean activity), summed over units."""
    rate, rho = jnp.clip(jnp.mean(z, axis=0), 1e-6, 1 - 1e-6), 0.05
    on, off = rho * jnp.log(rho / rate), (1 - rho) * jnp.log((1 - rho) / (1 - rate))
    return 3.0 * jnp.sum(on + off)
