"""What all attentions are given, and the loss that is compared."""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.peers import worker

# A round takes about so many seconds, and has at most so many steps.
_SECONDS, _STEPS = 0.1, 100


def inputs(given: worker.Settings) -> list[np.ndarray]:
    """Queries, keys and values, each [rows, length, heads, size], standard normal."""
    random = np.random.RandomState(0)
    return [random.randn(*given["shape"]).astype(np.float32) for _ in range(3)]


def steps_of_a_round(run: Callable[[int], None]) -> int:
    """So many that a round, `run(steps)`, takes about a tenth of a second."""
    run(1)
    since = time.perf_counter()
    run(1)
    return max(1, min(_STEPS, round(_SECONDS / (time.perf_counter() - since))))


def size(arrays: list[np.ndarray]) -> float:
    """The root of the mean square of the output, or of the three gradients."""
    return float(np.sqrt(np.mean([np.mean(np.square(array)) for array in arrays])))
