"""The limit: nothing but a scan of a step written by hand (`benchmarks/bare`), one an epoch.

The permutation is drawn on the host (it costs more on the device), and the next epoch is sent off
while this one runs. No progress, no metrics, no checkpoints: what a trainer adds is the time above
this one's.

The encoder's kernel lies [code, pixels]: its gradient is then a product of two row-major matrices,
which XLA on a CPU does faster than the other way round. Parameters are a dictionary with the
decoder's first, the order in which their gradients are ready: XLA runs independent operations in
the order of the keys, and the other orders took up to 1.1 times as long on two cores.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.bare import dense, scan
from benchmarks.bare.table import Rows
from benchmarks.peers import worker

OPTIMIZERS = {
    "adadelta": optax.adadelta(1.0, rho=0.95, eps=1e-7),
    "adam": optax.adam(1e-3),
}


class BareScan:
    """The network, its optimizer and its data on the device."""

    def __init__(self, given: worker.Settings):
        self._folder, self._epochs = given["data"], given["epochs"]
        data = worker.images(self._folder, "train")
        self._data, self._steps = jax.device_put(data), len(data) // worker.BATCH_SIZE
        self._random, self._key = np.random.RandomState(given["seed"]), jax.random.key(0)
        x = Rows(data.shape[1:], 255.0, None, None, 0)
        self._loss = dense.autoencoder(dense.plain(jax.nn.relu), x)
        optimizer = OPTIMIZERS[given["optimizer"]]
        self._state = scan.start(worker.initial(given), optimizer)
        arrays = self._data, self._order(), self._key
        self._epoch = scan.compiled(self._loss, optimizer, self._state, *arrays)
        self.about = {"device": jax.devices()[0].device_kind}

    def _order(self) -> np.ndarray:
        order = self._random.permutation(len(self._data))[: self._steps * worker.BATCH_SIZE]
        return order.astype(np.int32).reshape(self._steps, worker.BATCH_SIZE)

    def train(self) -> float:
        """Trains a round; the last epoch's mean loss, nats a row."""
        loss = None
        for _ in range(self._epochs):
            self._state, loss = self._epoch(self._state, self._data, self._order(), self._key)
        return float(jax.block_until_ready((self._state, loss))[1])

    def test_loss(self) -> float:
        """Cross-entropy on the test split, nats a pixel."""
        test = worker.images(self._folder, "t10k")
        loss = jax.jit(self._loss)(self._state[0], test, None, jnp.int32(0))
        return float(loss) / test.shape[1]


if __name__ == "__main__":
    worker.run(BareScan, "jax", "optax")
