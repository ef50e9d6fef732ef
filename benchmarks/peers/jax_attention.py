"""Attention in JAX: aejax's own, or JAX's function, as steps inside one `lax.fori_loop`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from aejax.nn.attention import attend
from benchmarks.peers import worker

FORMS = {"aejax": attend, "jax": jax.nn.dot_product_attention}
Arrays = tuple[jax.Array, ...]


class JaxAttention:
    """One form of attention, forward or with its gradients."""

    def __init__(self, given: worker.Settings):
        form, gradients = FORMS[given["form"]], given["kind"] == "gradients"
        inputs = worker.attention_inputs(given)
        self._arrays = tuple(jnp.asarray(array, given["compute"]) for array in inputs)

        def loss(*arrays: jax.Array) -> jax.Array:
            return 0.5 * jnp.sum(jnp.square(form(*arrays)))

        def results(arrays: Arrays) -> Arrays:
            return jax.grad(loss, (0, 1, 2))(*arrays) if gradients else (form(*arrays),) * 3

        def step(_, arrays: Arrays) -> Arrays:
            # All three change, or XLA would move what stays the same out of the loop.
            return tuple(a - 1e-9 * b for a, b in zip(arrays, results(arrays), strict=True))

        self._loop = jax.jit(lambda n, arrays: lax.fori_loop(0, n, step, arrays))
        self._results = jax.jit(results)
        self._steps = worker.attention_steps(self._run)
        self.about = {"device": jax.devices()[0].device_kind, "steps": self._steps}

    def _run(self, steps: int) -> None:
        jax.block_until_ready(self._loop(steps, self._arrays))

    def train(self) -> None:
        """Runs the steps of a round."""
        self._run(self._steps)

    def test_loss(self) -> float:
        """The size of what a step computes."""
        results = self._results(self._arrays)
        return worker.root_mean_square([np.asarray(array, np.float32) for array in results])


if __name__ == "__main__":
    worker.run(JaxAttention, "jax")
