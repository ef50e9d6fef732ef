"""Keras 3 on JAX, `fit` on arrays in memory, several steps to an execution.

Bytes in memory, scaled inside the model and the loss: faster than floats in memory, which are four
times as many bytes to gather. Its own cross-entropy on logits, with Adadelta's rate set to 1 (left
at Keras's 0.001 it hardly trains). `fit` gets the first rows that fill its batches: a last, smaller
batch would be compiled again.
"""

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


def model(given: worker.Settings, pixels: int) -> keras.Model:
    """The compiled network: bytes -> logits."""
    rows = keras.Input((pixels,), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(rows)
    code = keras.layers.Dense(worker.LATENT_DIM, activation="relu")(x)
    network = keras.Model(rows, keras.layers.Dense(pixels)(code))
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def loss(rows, logits):
        return pixels * cross_entropy(keras.ops.cast(rows, "float32") * (1 / 255), logits)

    steps = given["steps_per_execution"]
    network.compile(optimizer(given["optimizer"]), loss=loss, steps_per_execution=steps)
    start = worker.initial(given)
    encoder = [start["encoder/layers/0/weight"].T, start["encoder/layers/0/bias"]]
    decoder = [start["decoder/layers/0/kernel"], start["decoder/layers/0/bias"]]
    network.set_weights([*encoder, *decoder])
    return network


class KerasDense:
    """The network and its data."""

    def __init__(self, given: worker.Settings):
        keras.utils.set_random_seed(given["seed"])
        self._folder, self._epochs = given["data"], given["epochs"]
        data = worker.images(self._folder, "train")
        self._data = data[: len(data) // worker.BATCH_SIZE * worker.BATCH_SIZE]
        self._model = model(given, data.shape[1])
        steps = given["steps_per_execution"]
        self.about = {"device": jax.devices()[0].device_kind, "steps_per_execution": steps}

    def train(self) -> float:
        """Trains a round; the last epoch's mean loss, nats a row."""
        size = worker.BATCH_SIZE
        fit = self._model.fit(self._data, self._data, size, epochs=self._epochs, verbose=0)
        return float(fit.history["loss"][-1])

    def test_loss(self) -> float:
        """Cross-entropy on the test split, nats a pixel."""
        test = worker.images(self._folder, "t10k")
        # Not `evaluate`: it would weigh a last execution with fewer steps like a whole one.
        logits = self._model.predict(test, batch_size=worker.TEST_BATCH_SIZE, verbose=0)
        logits, x = logits.astype(np.float64), test / 255
        return float(np.mean(np.logaddexp(0, logits) - logits * x))


if __name__ == "__main__":
    worker.run(KerasDense, "keras", "jax")
