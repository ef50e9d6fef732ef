"""What aejax's trainer runs between two rows of metrics: its compiled dispatch of many steps."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from aejax.training.setup import Setup


class Dispatch:
    """`dispatch(state, steps, first=0) -> (state, report)`: the steps from `first` on.

    The state counts its steps from there, however many it has made: draws come again as well. The
    report has one log row: `first` is a multiple of `steps`.

    Attributes:
        init: makes a fresh state.
        index: rows of each step, [steps at most, rows of a batch]; there is none beyond.
    """

    def __init__(self, run: Setup):
        self._feed = run.open_feed()
        self._block = self._feed.at(0)
        self._compiled = run.compile(self._feed)
        put = functools.partial(jax.device_put, device=run.replicated)
        self._number = functools.cache(lambda steps: put(np.int32(steps)))
        self.init, self._window = run.init, run.state.window
        self.index = np.asarray(self._block.arrays).reshape(len(self._block.arrays), -1)

    def __call__(self, state: Any, steps: int, first: int = 0) -> tuple[Any, Any]:
        block, number = self._block.arrays, self._number
        state = dataclasses.replace(state, step=number(first).copy())  # donated
        return self._compiled(state, block, number(0), number(steps), number(steps))

    def mean_loss(self, report: Any) -> float:
        """Of the steps of one dispatch; waits for it."""
        window = self._window.unpack(np.asarray(report.rows)[0])
        return float(window.sums["loss"]) / int(window.steps)


def flat(params: Any) -> dict[str, jax.Array]:
    """Nested dictionaries of arrays as one, with names like encoder/layers/0/weight."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
