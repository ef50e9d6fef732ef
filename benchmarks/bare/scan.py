"""The limit that a trainer is measured against: a scan of one hand-written step, and nothing else.

Bytes on the device, rows gathered by the indices that are given, one `lax.scan` over the steps with
the state donated, and the losses summed on the way (a scan that stacks them is slower). No terms,
no window, no keys of rows, no metrics, no checkpoints.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Params = dict[str, jax.Array]
# (params, rows as stored [rows, elements], key, step []) -> mean loss in nats a row; with the key
# None nothing is drawn.
Loss = Callable[[Params, jax.Array, jax.Array | None, jax.Array], jax.Array]


def compiled(loss: Loss, optimizer: optax.GradientTransformation, state: Any, *arrays: Any):
    """Compiles (state, data [N, elements], index [steps, rows], key) -> (state, mean loss)."""

    def run(state: Any, data: jax.Array, index: jax.Array, key: jax.Array):
        def step(carry, now):
            (params, moments, number), total = carry
            rows = data.at[now].get(mode="promise_in_bounds")
            own = jax.random.fold_in(key, number)
            value, gradient = jax.value_and_grad(loss)(params, rows, own, number)
            updates, moments = optimizer.update(gradient, moments, params)
            params = optax.apply_updates(params, updates)
            return ((params, moments, number + 1), total + value), None

        (state, total), _ = jax.lax.scan(step, (state, jnp.zeros(())), index)
        return state, total / len(index)

    return jax.jit(run, donate_argnums=0).lower(state, *arrays).compile()


def start(params: Params, optimizer: optax.GradientTransformation) -> Any:
    """The state before the first step: copies of these parameters, fresh moments, step 0."""
    params = jax.tree.map(jnp.array, params)
    return params, optimizer.init(params), jnp.zeros((), jnp.int32)
