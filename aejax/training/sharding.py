"""Shardings of the arrays of a run's state."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aejax.errors import InputError
from aejax.mesh import replicated, rows
from aejax.runs.arrays import flatten
from aejax.training.state import TrainState

# By default, arrays with fewer elements are replicated: gathering them would not pay.
_SMALL = 1024


def of_state(
    abstract: TrainState, mesh: Mesh, rules: Sequence[str] = (), own: Sequence[str] = ()
) -> TrainState:
    """The sharding of every array of a state.

    Parameters follow the settings' rules, else the model's `own`. Averages and moments are sharded
    as their parameters, `PerRow` variables as the batch. All else is replicated.

    Raises:
        InputError: a rule matches no parameter, or its axis does not divide a dimension.
    """
    params = flatten(abstract.params)
    specs = {name: spec_of(name, leaf.shape, mesh, rules, own) for name, leaf in params.items()}
    for rule in rules:
        pattern = rule.partition("=")[0]
        if not any(re.fullmatch(pattern, name) for name in params):
            raise InputError(
                f"config.mesh.rules: {rule!r} matches no parameter; there are {', '.join(params)}"
            )

    def follow(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for own, spec in specs.items():
            if (name == own or name.endswith("/" + own)) and leaf.shape == params[own].shape:
                return NamedSharding(mesh, spec)
        return replicated(mesh)

    out = jax.tree_util.tree_map_with_path(follow, abstract)
    whole = jax.tree.map(lambda _: replicated(mesh), abstract.model_state["other"])
    per_row = jax.tree.map(lambda _: rows(mesh), abstract.model_state["rows"])
    return dataclasses.replace(out, model_state={"rows": per_row, "other": whole})


def gathered(sharding: NamedSharding) -> NamedSharding:
    """The sharding without the axes over which rows are sharded: a parameter as used in a step."""
    axes = [axis if axis == "tensor" else None for axis in sharding.spec]
    return NamedSharding(sharding.mesh, PartitionSpec(*axes))


def spec_of(
    name: str,
    shape: tuple[int, ...],
    mesh: Mesh,
    rules: Sequence[str] = (),
    own: Sequence[str] = (),
) -> PartitionSpec:
    """The sharding of a parameter: by the first rule that matches its name, else by default.

    Args:
        name: of the parameter.
        shape: of the parameter.
        mesh: of the devices.
        rules: of the settings.
        own: the model's rules, applied where they divide; without fsdp for small parameters.

    Raises:
        InputError: the rule names more dimensions than there are, or one that does not divide.
    """
    for rule in rules:
        pattern, _, words = rule.partition("=")
        if re.fullmatch(pattern, name):
            return _explicit(rule, words.split(), name, shape, mesh)
    for rule in own:
        pattern, _, words = rule.partition("=")
        if re.fullmatch(pattern, name):
            asked = words.split()
            if math.prod(shape) < _SMALL:
                asked = ["-" if axis == "fsdp" else axis for axis in asked]
            try:
                return _explicit(rule, asked, name, shape, mesh)
            except InputError:
                if "tensor" not in asked:  # the model's rule does not shard it over tensor
                    return PartitionSpec(*[None] * len(shape))
                break
    axes: list[str | None] = [None] * len(shape)
    if len(shape) > 1 and mesh.shape["tensor"] > 1 and shape[-1] % mesh.shape["tensor"] == 0:
        axes[-1] = "tensor"
    if mesh.shape["fsdp"] > 1 and math.prod(shape) >= _SMALL:
        free = [i for i in range(len(shape)) if axes[i] is None]
        fits = [i for i in free if shape[i] % mesh.shape["fsdp"] == 0]
        if fits:
            axes[max(fits, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*axes)


def _explicit(
    rule: str, axes: list[str], name: str, shape: tuple[int, ...], mesh: Mesh
) -> PartitionSpec:
    if len(axes) != len(shape):
        raise InputError(
            f"config.mesh.rules: {rule!r} has {len(axes)} axes; {name} has {len(shape)} dimensions"
        )
    for size, axis in zip(shape, axes, strict=True):
        if axis != "-" and size % mesh.shape[axis]:
            raise InputError(
                f"config.mesh.rules: {rule!r}: a dimension of {size} of {name} does not divide"
                f" over config.mesh.{axis}={mesh.shape[axis]}"
            )
    return PartitionSpec(*(None if axis == "-" else axis for axis in axes))
