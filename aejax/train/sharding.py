"""How devices are laid out, and where each array of a run lies."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aejax.config import Config
from aejax.errors import InputError
from aejax.train.state import TrainState

Devices = Sequence[Any]  # of jax.Device, which type checkers cannot see
AXES = ("data", "fsdp", "tensor")
# Rows of a batch are dealt out over these two.
ROWS = ("data", "fsdp")


def mesh(config: Config, devices: Devices) -> Mesh:
    """The mesh of `config.mesh` over these devices.

    Raises:
        InputError: sizes that do not multiply to the number of devices, or a batch that does not
            divide, with both numbers.
    """
    sizes = [getattr(config.mesh, axis) for axis in AXES]
    count = len(devices)
    if sizes.count(-1) > 1:
        raise InputError(f"config.mesh={tuple(sizes)}: only one axis can be -1 (the rest)")
    known = math.prod(size for size in sizes if size != -1)
    if count % known or (-1 not in sizes and known != count):
        raise InputError(
            f"config.mesh={tuple(sizes)} ({', '.join(AXES)}) asks for"
            f" {'a multiple of ' if -1 in sizes else ''}{known} devices; there are {count}"
        )
    sizes = [count // known if size == -1 else size for size in sizes]
    pieces = sizes[0] * sizes[1] * config.micro_batches
    if config.batch_size % pieces:
        below = config.batch_size // pieces * pieces
        raise InputError(
            f"config.batch_size={config.batch_size} does not divide over {sizes[0] * sizes[1]}"
            f" devices x config.micro_batches={config.micro_batches}: must be a multiple of"
            f" {pieces}, such as {below or pieces} or {below + pieces}"
        )
    # An explicit array of devices: make_mesh may reorder them, and then rows would move.
    grid = np.asarray(devices).reshape(sizes)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """This axis is dealt out over the devices that see different rows."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, ROWS))


def everywhere(devices: Devices) -> NamedSharding:
    """The whole array on each of these devices."""
    return NamedSharding(_line(devices), PartitionSpec())


def all_rows(devices: Devices) -> NamedSharding:
    """The first axis is dealt out over these devices."""
    return NamedSharding(_line(devices), PartitionSpec("data"))


def _line(devices: Devices) -> Mesh:
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def of_state(abstract: TrainState, mesh: Mesh) -> TrainState:
    """The sharding of every array of a state: what is kept for each row goes with the rows."""
    whole = jax.tree.map(lambda _: replicated(mesh), abstract)
    per_row = jax.tree.map(lambda _: rows(mesh), abstract.model_state["rows"])
    whole.model_state["rows"] = per_row
    return whole


def with_sharding(abstract: Any, shardings: Any) -> Any:
    """Abstract arrays that say where they lie; `shardings` is a tree like it, or one for all."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, abstract)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )
