"""scikit-learn's BernoulliRBM with float32 rows, as its `fit` trains them.

`fit` itself begins anew each time: here its inner step, `_fit`, is called batch by batch, so that
training goes on from round to round. Rows are in order, as in `fit`. It starts at aejax's weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neural_network import BernoulliRBM

from aejax.models.rbm import Machine, pseudo_likelihood
from benchmarks.peers import worker


class SklearnRbm:
    """The machine and its rows."""

    def __init__(self, given: worker.Settings):
        train, test = (worker.images(given["data"], split) for split in ("train", "t10k"))
        self._x, self._test = (
            (images > 127).astype(np.float32) for images in (train[: given["rows"]], test)
        )
        weight = worker.initial(given)["weight"]
        batch, rate = given["batch_size"], given["rate"]
        self._random, self._epochs = np.random.RandomState(given["seed"]), given["epochs"]
        machine = BernoulliRBM(weight.shape[1], learning_rate=rate, batch_size=batch)
        machine.components_ = np.asarray(weight.T, order="F")
        machine.intercept_hidden_ = np.zeros(weight.shape[1], np.float32)
        machine.intercept_visible_ = np.zeros(weight.shape[0], np.float32)
        machine.h_samples_ = np.zeros((batch, weight.shape[1]), np.float32)
        self._machine, self.about = machine, {"device": "cpu"}

    def train(self) -> float:
        """Trains the epochs of a round; there is no loss to tell."""
        machine, size = self._machine, self._machine.batch_size
        for _ in range(self._epochs):
            for first in range(0, len(self._x) - size + 1, size):
                machine._fit(self._x[first : first + size], self._random)
        return 0.0

    def test_loss(self) -> float:
        """The negative pseudo-likelihood of the test rows, by the same elements as aejax's."""
        machine = self._machine
        parts = machine.components_.T, machine.intercept_visible_, machine.intercept_hidden_
        one = Machine(*(jnp.asarray(part, jnp.float32) for part in parts))
        found, score = [], jax.jit(pseudo_likelihood)
        for first in range(0, len(self._test), worker.TEST_BATCH_SIZE):
            rows = self._test[first : first + worker.TEST_BATCH_SIZE]
            found.append(score(one, rows, first + np.arange(len(rows))))
        return -float(np.mean(found))


if __name__ == "__main__":
    worker.run(SklearnRbm, "scikit-learn", "numpy")
