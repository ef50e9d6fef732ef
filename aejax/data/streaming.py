"""The streaming feed: data larger than a device, in the same order as the resident feed.

Grain's threads read the rows of whole steps ahead, one thread collects many steps to a block and
sends it to the devices, and the loop takes a block when the previous one is used up. Each process
reads only the rows of its own devices. There is no position to save, since the rows of a step are a
function of its number.
"""

import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from aejax.data import order
from aejax.data.feed import Block, Raw
from aejax.data.sources.base import Rows, Source

# Largest size of a block; two are on the devices at a time, and one is being read.
_BLOCK_BYTES = 8 * 2**20
_MOST_STEPS = 256
# Largest size of what is read ahead on the host.
_AHEAD_BYTES = 2**30


@dataclasses.dataclass
class Streaming:
    """The feed of a split that is read while training runs.

    Attributes:
        source: the split.
        seed: of the run.
        shape: (micro-batches, rows of each).
        steps: steps of the run.
        sharding: of a block [steps, micro-batches, rows, ...].
        threads: threads that read ahead; threads / (seconds to read a step) must exceed the steps
            a second.
    """

    source: Source
    seed: int
    shape: tuple[int, int]
    steps: int
    sharding: NamedSharding
    threads: int = 16

    def __post_init__(self):
        self.data = None  # no rows stay on the devices
        self.elements = math.prod(self.source.spec.shape)
        self.first_row, self.last_row = self._own_rows()
        self._pool = ThreadPoolExecutor(1)
        self._reader: Iterator[tuple[np.ndarray, Rows]] | None = None
        self._block: Block | None = None
        self._coming: Future[Block] | None = None

    @property
    def capacity(self) -> int:
        """Steps of one block; the same for all blocks, so that they share a compiled program."""
        row = self.elements * np.dtype(self.source.spec.dtype).itemsize
        fit = _BLOCK_BYTES // (row * self.shape[0] * self.shape[1])
        return max(1, min(fit, _MOST_STEPS, self.steps))

    @property
    def reading(self) -> tuple[int, int]:
        """Threads that read, and steps that they read ahead (fewer of large rows: less memory)."""
        row = self.elements * np.dtype(self.source.spec.dtype).itemsize
        step = row * self.shape[0] * (self.last_row - self.first_row)
        fit = max(2, _AHEAD_BYTES // step)
        return min(self.threads, fit), min(max(self.threads, self.capacity), fit)

    def _own_rows(self) -> tuple[int, int]:
        """First and one past the last row of each micro-batch that this process's devices hold."""
        places = self.sharding.addressable_devices_indices_map((1, *self.shape))
        cuts = [index[2].indices(self.shape[1]) for index in places.values() if index]
        first, last = min(cut[0] for cut in cuts), max(cut[1] for cut in cuts)
        return first, last

    def at(self, step: int) -> Block:
        """The block that contains this step; the next one is read in the background."""
        if self._block is None or not self._block.first <= step < self._block.last:
            if self._coming is None:
                self._start(step)
            assert self._coming is not None
            self._block = self._coming.result()
            if self._block.last < self.steps:
                self._coming = self._pool.submit(self._build, self._block.last)
        return self._block

    def _start(self, step: int) -> None:
        import grain  # a tenth of a second, which a run with resident data does not need

        dataset = grain.MapDataset.range(step, self.steps).map(self._read)
        threads, ahead = self.reading
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._reader = iter(dataset.to_iter_dataset(options))
        self._coming = self._pool.submit(self._build, step)

    def _read(self, step: int) -> tuple[np.ndarray, Rows]:
        """This process's rows of one step: index and rows, [micro-batches * own rows, ...]."""
        size = self.shape[0] * self.shape[1]
        index = order.examples(
            self.seed, len(self.source), int(step) * size, (int(step) + 1) * size
        )
        own = index.reshape(self.shape)[:, self.first_row : self.last_row].ravel()
        return own, self.source[own]

    def _build(self, first: int) -> Block:
        """Reads the steps of a block and sends them to the devices."""
        assert self._reader is not None
        last = min(first + self.capacity, self.steps)
        own = (self.capacity, self.shape[0], self.last_row - self.first_row)
        spec = self.source.spec
        x = np.empty((*own, self.elements), spec.dtype)
        names = ("index", *spec.numbers)
        arrays = Raw(x, **{name: np.zeros(own, np.int32) for name in names})
        for i in range(last - first):
            index, rows = next(self._reader)
            x[i] = rows.x.reshape(*own[1:], self.elements)
            for name in names:
                values = index if name == "index" else getattr(rows, name)
                getattr(arrays, name)[i] = values.reshape(own[1:])
        x[last - first :] = 0  # at the end of the run no step uses these
        return Block(first, last, jax.tree.map(self._send, arrays))

    def _send(self, array: np.ndarray) -> jax.Array:
        shape = (*array.shape[:2], self.shape[1], *array.shape[3:])
        return jax.make_array_from_process_local_data(self.sharding, array, shape)

    def abstract(self) -> Raw:
        """Shapes, types and shardings of a block's arrays."""
        rows = (self.capacity, *self.shape)
        spec = self.source.spec
        number = jax.ShapeDtypeStruct(rows, np.int32, sharding=self.sharding)
        x = jax.ShapeDtypeStruct((*rows, self.elements), spec.dtype, sharding=self.sharding)
        return Raw(x, **dict.fromkeys(("index", *spec.numbers), number))

    @staticmethod
    def gather(rows: Any, block: Raw, offset: jax.Array) -> Raw:
        """The rows of step `offset` of the block; called inside the step."""
        return jax.tree.map(
            lambda array: jax.lax.dynamic_index_in_dim(array, offset, keepdims=False), block
        )

    def close(self) -> None:
        """Ends the threads; what was read ahead is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(self._reader, "close", None)
        if close is not None:
            close()
