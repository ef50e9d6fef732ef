"""Many updates in one program, and the rows of metrics that they make."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from aejax.training.state import TrainState, Window
from aejax.training.step import Constants, Step

# Log rows that one dispatch returns, at most.
ROWS = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
    """The metrics that a dispatch returns.

    Attributes:
        rows: the window at each log row, and after the last step, packed, int32 [ROWS, numbers].
        finite: whether all floating-point numbers of the state are finite, bool [].
    """

    rows: jax.Array
    finite: jax.Array


def dispatch(step: Step) -> Callable:
    """(state, constants, block, first, n, every) -> (state, Report): n steps in one program.

    `first` is the first step of the block. A log row ends at each multiple of `every`, at most ROWS
    of them in a dispatch. `n` and `every` are traced: one compilation serves every number of steps,
    and the bits do not depend on how a run is split into dispatches. The report is separate from
    the state, so that it can be read while the state is donated to the next dispatch.
    """

    def run(state: TrainState, constants: Constants, block, first, n, every):
        end = state.step + n

        def update(_, carry: tuple[TrainState, jax.Array]):
            state, sums = carry
            state, terms = step(state, constants, block, state.step - first)
            return state, sums + jnp.stack([terms[name] for name in sorted(terms)])

        def to_next_row(i: jax.Array, carry: tuple[TrainState, jax.Array]):
            state, rows = carry
            begins = state.step % every == 0
            before = jax.tree.map(lambda leaf: jnp.where(begins, 0, leaf), state.window)
            steps = jnp.minimum(end - state.step, every - state.step % every)
            # One array, whose sum is one kernel in each step; what can wait is not in the loop.
            sums = jnp.stack([before.sums[name] for name in sorted(before.sums)])
            state, sums = jax.lax.fori_loop(0, steps, update, (state, sums))
            rate = jnp.asarray(step.program.learning_rate(state.step - 1), jnp.float32)
            named = dict(zip(sorted(before.sums), sums, strict=True))
            window = Window(before.steps + steps, named, rate)
            return dataclasses.replace(state, window=window), rows.at[i].set(window.pack())

        count = (end - 1) // every - state.step // every + 1
        rows = jnp.zeros((ROWS, *state.window.pack().shape), jnp.int32)
        state, rows = jax.lax.fori_loop(0, count, to_next_row, (state, rows))
        return state, Report(rows, _finite(state))

    return run


def _finite(state: TrainState) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floats]).all()
