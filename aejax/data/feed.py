"""How examples reach the devices.

Resident: the whole split is replicated on all devices as stored (bytes stay bytes), and a step
gathers its rows by index. The indices of many steps are sent in one transfer.
"""

import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from aejax.data import order
from aejax.data.sources.base import Source

# Indices that are sent at a time: 1 MiB of int32.
_POSITIONS = 2**18


class Raw(NamedTuple):
    """The rows of a step as stored, with flat elements.

    Attributes:
        x: [..., rows, elements].
        label: [..., rows], or None.
        length: [..., rows], each row's length without padding, or None for full rows.
        index: [..., rows], the rows' indices in their source.
    """

    x: Any
    label: Any = None
    length: Any = None
    index: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResidentRows:
    """A split on the devices, with flat elements.

    Attributes:
        x: as stored, [N, elements].
        label: [N], or None.
        length: [N], or None.
    """

    x: Any
    label: Any = None
    length: Any = None

    def gather(self, index: jax.Array) -> Raw:
        """The rows with these indices; called inside the step."""
        x, label, length = (_rows(each, index) for each in (self.x, self.label, self.length))
        return Raw(x, label, length, index)


class Block(NamedTuple):
    """The feed of steps first to last - 1: arrays whose leading axis counts steps."""

    first: int
    last: int
    arrays: Any


@dataclasses.dataclass
class Resident:
    """The feed of a split that is replicated on all devices.

    Attributes:
        data: the rows, on the devices.
        rows: how many.
        seed: of the run.
        shape: (micro-batches, rows of each); their product is the batch size.
        steps: steps of the run.
        sharding: of the indices [steps, micro-batches, rows].
    """

    data: ResidentRows | None
    rows: int
    seed: int
    shape: tuple[int, int]
    steps: int
    sharding: Sharding

    def __post_init__(self):
        self._pool = ThreadPoolExecutor(1)
        self._block: Block | None = None
        self._coming: Future[Block] | None = None

    @property
    def capacity(self) -> int:
        """Steps of one block; the same for all blocks, so that they share a compiled program."""
        batch_size = self.shape[0] * self.shape[1]
        return max(1, min(_POSITIONS // batch_size, self.steps))

    def at(self, step: int) -> Block:
        """The block that contains this step; the next one is sent in the background."""
        if self._block is None or not self._block.first <= step < self._block.last:
            coming, self._coming = self._coming, None
            block = self._send(step) if coming is None else coming.result()
            self._block = block if block.first == step else self._send(step)
            if self._block.last < self.steps:
                self._coming = self._pool.submit(self._send, self._block.last)
        return self._block

    def _send(self, first: int) -> Block:
        batch_size = self.shape[0] * self.shape[1]
        last = first + self.capacity
        index = order.examples(self.seed, self.rows, first * batch_size, last * batch_size)
        return Block(
            first, last, to_device(index.reshape(self.capacity, *self.shape), self.sharding)
        )

    def abstract(self) -> jax.ShapeDtypeStruct:
        """Shape, type and sharding of a block's indices."""
        return jax.ShapeDtypeStruct((self.capacity, *self.shape), np.int32, sharding=self.sharding)

    def close(self) -> None:
        """Stops the background transfer."""
        self._pool.shutdown(cancel_futures=True)

    @staticmethod
    def gather(rows: Any, block: Any, offset: jax.Array) -> Raw:
        """The rows of step `offset` of the block; called inside the step."""
        return rows.gather(jax.lax.dynamic_index_in_dim(block, offset, keepdims=False))


def _rows(array: jax.Array | None, index: jax.Array) -> jax.Array | None:
    # Indices are valid by construction, so that the gather needs no clamping.
    return None if array is None else array.at[index].get(mode="promise_in_bounds")


def to_device(array: np.ndarray, sharding: Sharding) -> jax.Array:
    """Puts a host array, which is the same in every process, on the devices."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    # device_put would check each time that all processes have the same array.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def resident(source: Source, sharding: Sharding) -> ResidentRows:
    """Puts a split on the devices."""
    rows = source[slice(None)]
    numbers = (
        None if each is None else to_device(np.asarray(each, np.int32), sharding)
        for each in (rows.label, rows.length)
    )
    x = to_device(np.asarray(rows.x).reshape(len(rows.x), -1), sharding)
    return ResidentRows(x, *numbers)
