"""How the devices of a run are laid out, and where whole arrays and rows lie on them."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from aejax.errors import InputError

Devices = Sequence[Any]  # of jax.Device, which type checkers cannot see
AXES = ("data", "fsdp", "tensor")
# Rows of a batch are dealt out over these two.
ROWS = ("data", "fsdp")


@dataclasses.dataclass
class Mesh:
    """How devices are laid out; -1 takes what is left.

    Attributes:
        data: devices that each see their own rows and hold a copy of the parameters.
        fsdp: devices that each see their own rows and hold a piece of the parameters.
        tensor: devices that share rows and hold a piece of the parameters.
        rules: where parameters lie, each "PATTERN=AXIS ...": a regular expression of the whole
            name, then an axis of the mesh or - for each dimension, as
            "decoder/.*/kernel=fsdp tensor". The first that matches holds; where none does, those
            that come with the coder, and else the last dimension of matrices goes over tensor, and
            the largest that divides over fsdp.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    rules: tuple[str, ...] = ()

    def __post_init__(self):
        for axis in AXES:
            size = getattr(self, axis)
            if size != -1 and size < 1:
                raise ValueError(f"{axis}={size}: must be -1 (the rest) or at least 1")
        for rule in self.rules:
            _check_rule(rule)


def make_mesh(
    settings: Mesh, devices: Devices, batch_size: int, micro_batches: int
) -> jax.sharding.Mesh:
    """The mesh of these devices.

    Args:
        settings: `config.mesh`.
        devices: in the order of the mesh.
        batch_size: rows of one update.
        micro_batches: that a batch is cut into.

    Raises:
        InputError: sizes that do not multiply to the number of devices, or a batch that does not
            divide, with both numbers.
    """
    sizes = [getattr(settings, axis) for axis in AXES]
    count = len(devices)
    if sizes.count(-1) > 1:
        raise InputError(f"config.mesh={tuple(sizes)}: only one axis can be -1 (the rest)")
    known = math.prod(size for size in sizes if size != -1)
    if count % known or (-1 not in sizes and known != count):
        raise InputError(
            f"config.mesh={tuple(sizes)} ({', '.join(AXES)}) asks for"
            f" {'a multiple of ' if -1 in sizes else ''}{known} devices; there are {count}."
            " config.mesh may change when a run goes on; config.mesh.data=-1 takes what is left"
        )
    sizes = [count // known if size == -1 else size for size in sizes]
    pieces = sizes[0] * sizes[1] * micro_batches
    if batch_size % pieces:
        below = batch_size // pieces * pieces
        raise InputError(
            f"config.batch_size={batch_size} does not divide over {sizes[0] * sizes[1]}"
            f" devices x config.micro_batches={micro_batches}: must be a multiple of"
            f" {pieces}, such as {below or pieces} or {below + pieces}"
        )
    # An explicit array of devices: make_mesh may reorder them, and then rows would move.
    grid = np.asarray(devices).reshape(sizes)
    return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: jax.sharding.Mesh, axis: int = 0) -> NamedSharding:
    """This axis is dealt out over the devices that see different rows."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, ROWS))


def replicated_over(devices: Devices) -> NamedSharding:
    """The whole array on each of these devices."""
    return NamedSharding(_line(devices), PartitionSpec())


def all_rows(devices: Devices) -> NamedSharding:
    """The first axis is dealt out over these devices."""
    return NamedSharding(_line(devices), PartitionSpec("data"))


def by_row(function: Callable[..., Any], devices: Devices) -> Callable[..., Any]:
    """The function (state, *arrays of rows) -> tree of rows, where each device computes its own.

    The state is whole on each device, the rows are sharded as by `all_rows`.
    """
    if len(devices) == 1:
        return function

    def call(state: Any, *rows: Any) -> Any:
        whole, dealt = PartitionSpec(), PartitionSpec("data")
        specs = {"in_specs": (whole, *[dealt] * len(rows)), "out_specs": dealt}
        # With check_vma=False JAX adds no collectives.
        mapped = jax.shard_map(function, mesh=_line(devices), check_vma=False, **specs)
        return mapped(state, *rows)

    return call


def _line(devices: Devices) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def with_sharding(abstract: Any, shardings: Any) -> Any:
    """Abstract arrays that say where they lie; `shardings` is a tree like it, or one for all."""
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, abstract)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def _check_rule(rule: str) -> None:
    pattern, _, axes = rule.partition("=")
    wrong = [axis for axis in axes.split() if axis not in (*AXES, "-")]
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"rules: {rule!r}: {error} in {pattern!r}") from None
    if not axes.split() or wrong:
        raise ValueError(
            f"rules: {rule!r}: must be PATTERN=AXIS ..., each axis data, fsdp, tensor"
            f" or -{f'; there is no {wrong[0]!r}' if wrong else ''}"
        )
