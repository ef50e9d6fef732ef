"""Keras 3 on JAX, `fit` on arrays in memory, several steps to an execution.

Bytes in memory, scaled inside the model and the loss: faster than floats in memory, which are four
times as many bytes to gather. Its own cross-entropy on logits, with Adadelta's rate set to 1 (left
at Keras's 0.001 it hardly trains). `fit` gets the first rows that fill its batches: a last, smaller
batch would be compiled again.
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "jax"

import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.peers import worker  # noqa: E402


def optimizer(name: str) -> keras.optimizers.Optimizer:
    """An optimizer with the settings of all competitors."""
    if name == "adam":
        return keras.optimizers.Adam(1e-3, epsilon=1e-8)
    return keras.optimizers.Adadelta(1.0, rho=0.95, epsilon=1e-7)


def model(settings: argparse.Namespace, pixels: int) -> keras.Model:
    """The compiled network: bytes -> logits."""
    rows = keras.Input((pixels,), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(rows)
    code = keras.layers.Dense(worker.LATENT_DIM, activation="relu")(x)
    network = keras.Model(rows, keras.layers.Dense(pixels)(code))
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def loss(rows, logits):
        return pixels * cross_entropy(keras.ops.cast(rows, "float32") * (1 / 255), logits)

    network.compile(
        optimizer(settings.optimizer),
        loss=loss,
        steps_per_execution=settings.steps_per_execution,
    )
    encoder, decoder = worker.initial(settings.initial)
    biases = [np.zeros(kernel.shape[1], np.float32) for kernel in (encoder, decoder)]
    network.set_weights([encoder, biases[0], decoder, biases[1]])
    return network


class KerasJax:
    """The network and its data."""

    def __init__(self, settings: argparse.Namespace):
        keras.utils.set_random_seed(settings.seed)
        self.folder, self.device = settings.data, jax.devices()[0].device_kind
        data = worker.images(settings.data, "train")
        self.data = data[: len(data) // worker.BATCH_SIZE * worker.BATCH_SIZE]
        self.model = model(settings, data.shape[1])

    def train(self, epochs: int) -> None:
        """Trains, and returns once the last update is made."""
        self._fit(self.data, epochs)

    def _fit(self, data: np.ndarray, epochs: int) -> None:
        self.model.fit(data, data, batch_size=worker.BATCH_SIZE, epochs=epochs, verbose=0)

    def test_loss(self) -> float:
        """Binary cross-entropy on the test split, nats a pixel."""
        test = worker.images(self.folder, "t10k")
        # Not `evaluate`: it would weigh a last execution with fewer steps like a whole one.
        logits = self.model.predict(test, batch_size=worker.TEST_BATCH_SIZE, verbose=0)
        logits, x = logits.astype(np.float64), test / 255
        return float(np.mean(np.logaddexp(0, logits) - logits * x))


if __name__ == "__main__":
    worker.run(worker.arguments(__doc__), KerasJax, ("keras", "jax"))
