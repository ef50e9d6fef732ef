"""The order of examples: a pure function of seed and position, so that no state must be saved.

Position p = step * batch size + row is in epoch p // N. Each epoch has its own permutation, so that
every example comes once in an epoch; a batch may contain the end of one and the start of the next.
"""

import functools
import threading

import numpy as np

_local = threading.local()


def examples(seed: int, rows: int, start: int, stop: int) -> np.ndarray:
    """The examples at positions start to stop - 1, int32 [stop - start].

    Args:
        seed: of the run.
        rows: N, rows of the training split.
        start: first position.
        stop: one past the last.
    """
    parts = []
    for epoch in range(start // rows, -(-stop // rows)):
        first = epoch * rows
        parts.append(_permutation(seed, rows, epoch)[max(start - first, 0) : stop - first])
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, rows: int, epoch: int) -> np.ndarray:
    # NumPy guarantees RandomState's streams (NEP 19), so that these orders never change. Each
    # thread has one that is seeded again: making one takes as long as six permutations of 1000.
    if not hasattr(_local, "stream"):
        _local.stream = np.random.RandomState()
    _local.stream.seed([seed, epoch])
    return _local.stream.permutation(rows).astype(np.int32)


def batches(count: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts rows 0 .. count - 1 into batches: indices and mask, both [batches, batch_size].

    The last batch is filled up with row 0 and a mask of 0.
    """
    batches = -(-count // batch_size)
    index = np.zeros(batches * batch_size, np.int32)
    index[:count] = np.arange(count)
    mask = (np.arange(batches * batch_size) < count).astype(np.float32)
    return index.reshape(batches, -1), mask.reshape(batches, -1)
