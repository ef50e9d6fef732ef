"""The limit: nothing but JAX and optax, one dispatch an epoch, written by hand for this network.

Bytes on the device, the permutation drawn on the host (it costs more on the device), rows gathered
and scaled inside a `lax.scan` over the epoch's batches, the state donated, and the cheapest known
form of the cross-entropy with its gradient written out. The next epoch is sent off while this one
runs. No progress, no metrics, no checkpoints: what a trainer adds is the time above this one's.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers import worker

OPTIMIZERS = {
    "adadelta": optax.adadelta(1.0, rho=0.95, eps=1e-7),
    "adam": optax.adam(1e-3),
}


@jax.custom_vjp
def cross_entropy(z: jax.Array, x: jax.Array) -> jax.Array:
    """Sum of -log p(x | logits z)."""
    return jnp.sum(jnp.maximum(z, 0) - z * x + jnp.log1p(jnp.exp(-jnp.abs(z))))


cross_entropy.defvjp(
    lambda z, x: (cross_entropy(z, x), (z, x)),
    lambda saved, g: (g * (jax.nn.sigmoid(saved[0]) - saved[1]), None),
)


def init(file: str) -> dict[str, dict[str, jax.Array]]:
    """The common kernels and biases of zero.

    The encoder's kernel lies [code, pixels]: its gradient is then a product of two row-major
    matrices, which XLA on a CPU does faster than the other way round. Names in the order in which
    their gradients are ready keep two cores busier: XLA runs independent operations in the order
    of the dictionaries' keys (the other orders took up to 1.1 times as long).
    """
    encoder, decoder = worker.initial(file)
    return {
        "decoder": {"bias": jnp.zeros(decoder.shape[1]), "kernel": jnp.asarray(decoder)},
        "encoder": {"bias": jnp.zeros(worker.LATENT_DIM), "kernel": jnp.asarray(encoder.T)},
    }


def loss(params: dict[str, dict[str, jax.Array]], rows: jax.Array) -> jax.Array:
    """Mean cross-entropy of rows of bytes, nats a row."""
    x = rows.astype(jnp.float32) * (1 / 255)
    encoder, decoder = params["encoder"], params["decoder"]
    code = jax.nn.relu(x @ encoder["kernel"].T + encoder["bias"])
    return cross_entropy(code @ decoder["kernel"] + decoder["bias"], x) / len(x)


@functools.partial(jax.jit, static_argnames="optimizer", donate_argnums=0)
def epoch(state, data: jax.Array, order: jax.Array, optimizer: str):
    """One epoch: (params, optimizer state), bytes, order [steps, batch] -> state, mean loss.

    The losses are summed on the way: a scan that stacks them is slower by some hundredths.
    """

    def step(carry, index):
        (params, moments), total = carry
        rows = data.at[index].get(mode="promise_in_bounds")
        value, gradient = jax.value_and_grad(loss)(params, rows)
        updates, moments = OPTIMIZERS[optimizer].update(gradient, moments, params)
        return ((optax.apply_updates(params, updates), moments), total + value), None

    (state, total), _ = jax.lax.scan(step, (state, jnp.zeros(())), order)
    return state, total / len(order)


class BareScan:
    """The network, its optimizer and its data on the device."""

    def __init__(self, settings: argparse.Namespace):
        self.folder, self.optimizer = settings.data, settings.optimizer
        data = worker.images(settings.data, "train")
        self.device = jax.devices()[0].device_kind
        self.rows, self.data = len(data), jax.device_put(data)
        params = init(settings.initial)
        self.state = (params, OPTIMIZERS[self.optimizer].init(params))
        self.random = np.random.RandomState(settings.seed)

    def train(self, epochs: int) -> None:
        """Trains, and returns once the last update is made."""
        steps = self.rows // worker.BATCH_SIZE
        mean = None
        for _ in range(epochs):
            order = self.random.permutation(self.rows)[: steps * worker.BATCH_SIZE]
            order = order.astype(np.int32).reshape(steps, worker.BATCH_SIZE)
            self.state, mean = epoch(self.state, self.data, order, self.optimizer)
        jax.block_until_ready((self.state, mean))

    def test_loss(self) -> float:
        """Binary cross-entropy on the test split, nats a pixel."""
        test = worker.images(self.folder, "t10k")
        return float(jax.jit(loss)(self.state[0], test)) / test.shape[1]


if __name__ == "__main__":
    worker.run(worker.arguments(__doc__), BareScan, ("jax", "optax"))
