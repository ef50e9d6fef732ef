"""Many updates in one program, and the rows of metrics that they make."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aejax.training.state import TrainState, Window
from aejax.training.step import Constants, Step

# Log rows that one dispatch returns, at most.
ROWS = 64

# Steps of the inner loop of a long run of a small model on a GPU, and which runs those are.
_INNER, _LONG, _SMALL = 16, 100_000, 1_000_000


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


def inner_steps(step: Step, platform: str, total: int) -> int:
    """How many steps a dispatch makes in an inner loop of fixed length; 1 for no inner loop.

    A GPU waits for the host before each turn of a loop of traced length, and not in one of fixed
    length. The step is then compiled twice, for the inner loop and for the steps that are left,
    which a run of many short steps makes up for.

    Args:
        step: the step, whose parameters are counted.
        platform: of the devices.
        total: steps of the run.
    """
    sizes = [leaf.size for leaf in jax.tree.leaves(step.program.abstract.params)]
    return _INNER if platform == "gpu" and total >= _LONG and sum(sizes) < _SMALL else 1


def dispatch(step: Step, inner: int = 1) -> Callable:
    """(state, constants, block, first, n, every) -> (state, Report): n steps in one program.

    `first` is the first step of the block. A log row ends at each multiple of `every`, at most ROWS
    of them in a dispatch. `n` and `every` are traced: one compilation serves every number of steps,
    and the bits do not depend on how a run is split into dispatches. The report is separate from
    the state, so that it can be read while the state is donated to the next dispatch. With `inner`
    above 1, steps are made in inner loops of so many; the bits are the same.
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
            state, sums = _repeat(update, steps, inner, (state, sums))
            rate = jnp.asarray(step.program.learning_rate(state.step - 1), jnp.float32)
            named = dict(zip(sorted(before.sums), sums, strict=True))
            window = Window(before.steps + steps, named, rate)
            return dataclasses.replace(state, window=window), rows.at[i].set(window.pack())

        count = (end - 1) // every - state.step // every + 1
        rows = jnp.zeros((ROWS, *state.window.pack().shape), jnp.int32)
        state, rows = jax.lax.fori_loop(0, count, to_next_row, (state, rows))
        return state, Report(rows, _finite(state))

    return run


def _repeat(body: Callable, times: jax.Array, inner: int, carry: Any) -> Any:
    """`fori_loop(0, times, body, carry)` of a body that takes no number, in turns of `inner`."""
    if inner > 1:
        turn = functools.partial(jax.lax.fori_loop, 0, inner, body)
        carry = jax.lax.fori_loop(0, times // inner, lambda _, carry: turn(carry), carry)
        times = times % inner
    return jax.lax.fori_loop(0, times, body, carry)


def _finite(state: TrainState) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floats]).all()
