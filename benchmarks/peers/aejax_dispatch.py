"""aejax's compiled dispatch of many steps, for a comparison of training steps alone.

A round is one dispatch.
"""

import jax
import jax.numpy as jnp

from aejax.models.batch import Batch
from benchmarks.dispatch import Dispatch
from benchmarks.peers import aejax_models, worker


class AejaxDispatch:
    """The network, its optimizer and its data on the device."""

    def __init__(self, given: worker.Settings):
        self._run = aejax_models.one_device(given)
        an_epoch = len(self._run.train) // self._run.config.batch_size
        self._steps = given.get("steps") or given["epochs"] * an_epoch
        self._dispatch, self._next = Dispatch(self._run), 0
        self._state = self._dispatch.init()
        self.about = {
            "device": jax.devices()[0].device_kind,
            "parameters": sum(array.size for array in jax.tree.leaves(self._state.params)),
            "first_loss": self._loss(self._run.config.batch_size),
        }

    def train(self) -> float:
        """Makes a round's updates, on rows not seen while there are such; their mean loss."""
        end = self._next + self._steps
        first = self._next if end <= len(self._dispatch.index) else 0
        self._next = first + self._steps
        self._state, report = self._dispatch(self._state, self._steps, first)
        return self._dispatch.mean_loss(jax.block_until_ready((self._state, report))[1])

    def test_loss(self) -> float:
        """Of the first 1000 rows of the training split, nats a row."""
        return self._loss(1000)

    def _loss(self, rows: int) -> float:
        model = self._run.program.merge(self._state.params, self._state.model_state)
        x = self._run.preparation(jnp.asarray(self._run.train[slice(rows)].x))
        return float(model.loss(Batch(x))[0])


if __name__ == "__main__":
    worker.run(AejaxDispatch, "jax", "flax", "optax")
