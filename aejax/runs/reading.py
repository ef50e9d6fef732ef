"""Arrays of a checkpoint, read chunk by chunk into the memory of the shards that need them.

Orbax writes each array as one of zarr version 3 in OCDBT, a store of keys and values; TensorStore
reads both. Orbax's own loading holds up to three copies of the arrays in the host's memory at once.
"""

import collections
import gc
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from aejax.runs.arrays import Arrays

# Bytes of chunks that are read at the same time: each is in memory compressed, and decoded.
_AHEAD = 2**24
_NODES = 2**24  # bytes of the store's directory that are kept while it is read
# On a CPU, JAX takes over host memory at a multiple of this, and copies any other.
_ALIGNED = 64
Place = tuple[tuple[int, int], ...]  # first index and end along each axis


def read(folder: str, targets: dict[str, Any], shared: bool) -> Arrays:
    """Reads arrays onto this process's devices.

    Args:
        folder: of Orbax's item, an absolute path.
        targets: {name: shape, type and sharding}, as the checkpoint has them; without a sharding an
            array goes to the default device.
        shared: on CPUs, whether devices may share the memory of equal shards. Arrays that are
            donated later should have their own: JAX would copy them all at once.
    """
    import tensorstore  # where it is first needed, since that takes time

    context = tensorstore.Context({"cache_pool#nodes": {"total_bytes_limit": _NODES}})

    def open_array(name: str) -> Any:
        base = {"driver": "file", "path": f"{folder}/"}  # a URL would need quotes
        store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        spec = {"driver": "zarr3", "kvstore": {**store, "cache_pool": "cache_pool#nodes"}}
        # Without this a chunk that is missing would be read as zeros.
        spec["fill_missing_data_reads"] = False
        return tensorstore.open(spec, context=context, open=True, read=True)

    opened = {name: open_array(name) for name in targets}
    stores = {name: future.result() for name, future in opened.items()}
    out = {}
    for names in _groups(targets):
        shards = {name: _Shards(targets[name], shared) for name in names}
        _fill({name: stores[name] for name in names}, shards)
        out |= {name: each.assemble() for name, each in shards.items()}
        del shards
        gc.collect(0)  # only now does JAX free what it has copied to devices
    return out


class _Shards:
    """The shards of one array on this process's devices, while they are filled."""

    def __init__(self, target: Any, shared: bool):
        self._shape = target.shape
        default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        self._sharding = target.sharding or default
        places = self._sharding.addressable_devices_indices_map(self._shape)
        self._places = {device: _place(place, self._shape) for device, place in places.items()}
        start = 0 if shared else _ALIGNED // 2
        self._memory = {
            place: _memory([end - first for first, end in place], target.dtype, start)
            for place in set(self._places.values())
        }

    def begin(self, store: Any, chunk: Place) -> list[Any]:
        """Begins to read a chunk into the shards that it is part of; returns futures."""
        import tensorstore

        futures = []
        for place, memory in self._memory.items():
            if (common := _common(chunk, place)) is not None:
                here = tensorstore.array(memory)[
                    tensorstore.d[:].translate_to[[a for a, _ in place]]
                ]
                where = _slices(common)
                futures.append(here[where].write(store[where]).commit)
        return futures

    def assemble(self) -> jax.Array:
        """The array, once all its chunks are read."""
        shards = [
            jax.device_put(self._memory[place], device) for device, place in self._places.items()
        ]
        jax.block_until_ready(shards)
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, shards)


def _fill(stores: dict[str, Any], shards: dict[str, _Shards]) -> None:
    """Reads every chunk that is needed, some at the same time."""
    waiting: collections.deque[tuple[list[Any], int]] = collections.deque()
    ahead = 0
    for name, store in stores.items():
        for chunk in _chunks(store):
            size = math.prod(b - a for a, b in chunk) * store.dtype.numpy_dtype.itemsize
            while waiting and ahead + size > _AHEAD:
                futures, done = waiting.popleft()
                ahead -= done
                for future in futures:
                    future.result()
            if futures := shards[name].begin(store, chunk):
                waiting.append((futures, size))
                ahead += size
    for futures, _ in waiting:
        for future in futures:
            future.result()


def _groups(targets: dict[str, Any]) -> Iterator[list[str]]:
    """Names of arrays that are read together: one large array, or several small ones."""
    names, total = [], 0
    for name, target in targets.items():
        size = math.prod(target.shape) * target.dtype.itemsize
        if names and total + size > _AHEAD:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    yield names


def _chunks(store: Any) -> Iterable[Place]:
    """The places of an array's chunks, each of which is compressed as one."""
    sides = zip(store.shape, store.chunk_layout.read_chunk.shape or (), strict=True)
    axes = [
        [(first, min(first + side, size)) for first in range(0, size, side)] for size, side in sides
    ]
    return itertools.product(*axes)


def _memory(shape: list[int], dtype: np.dtype, start: int) -> np.ndarray:
    """An array that is not filled, `start` bytes beyond an aligned address."""
    size = math.prod(shape) * dtype.itemsize
    whole = np.empty(size + 2 * _ALIGNED, np.uint8)
    first = -whole.ctypes.data % _ALIGNED + start
    return whole[first : first + size].view(dtype).reshape(shape)


def _place(slices: Any, shape: tuple[int, ...]) -> Place:
    return tuple(each.indices(size)[:2] for each, size in zip(slices, shape, strict=True))


def _slices(place: Place) -> tuple[slice, ...]:
    return tuple(slice(first, end) for first, end in place)


def _common(one: Place, other: Place) -> Place | None:
    """What is part of both, or None."""
    common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return common if all(first < end for first, end in common) else None
