"""Compiles presets' dispatches for so many devices, and reads them.

    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.scaling.compiling --presets=dense --devices=8

prints one JSON line: a list with a record for each preset and mesh. Nothing is allocated or run.
"""

import dataclasses
import functools
import importlib
import json
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np
from absl import app, flags
from jax.experimental import topologies

from aejax.config import Config
from aejax.data.sources.base import Arrays
from aejax.errors import InputError
from aejax.mesh import Devices
from aejax.training.setup import Setup, setup
from benchmarks.scaling.causes import Parameters, account
from benchmarks.scaling.collectives import collectives, launches
from benchmarks.turns import say

# Rows of a device, at most: the preset `linear` has its whole data set in a batch.
MOST_ROWS = 512
_ROWS = 60_000  # of the data, as many as MNIST has, or as a batch needs


class Described:
    """A feed that has nothing but the description of its blocks."""

    def __init__(self, block: Any):
        self._block = block

    def abstract(self) -> Any:
        return self._block


def data(name: str, config: Config, rows: int) -> Arrays:
    """Random rows of MNIST's shape; bytes of text, or columns of a table, for these presets."""
    draw = np.random.default_rng(0)
    if config.model.symbols:
        return Arrays(draw.integers(0, config.model.symbols, (rows, 32), np.uint8), maximum=255)
    if name == "table":
        return Arrays(draw.normal(size=(rows, 30)).astype(np.float32))
    labels = draw.integers(0, 10, rows) if config.model.classes else None
    return Arrays(draw.integers(0, 256, (rows, 28, 28, 1), np.uint8), labels, maximum=255)


def laid_out(style: str, devices: int) -> dict[str, int]:
    """config.mesh of one style; the second axis of two has 8 devices, or 2 of 8 and fewer."""
    inner = 8 if devices > 8 else min(2, devices)
    second = {"fsdp": ("fsdp", devices), "data_fsdp": ("fsdp", inner)}
    name, size = (second | {"data_tensor": ("tensor", inner)}).get(style, ("fsdp", 1))
    return {"data": devices // size, name: size}


def gpus(count: int) -> Devices:
    """Descriptions of H100s, for XLA's GPU compiler, which needs none of them.

    Raises:
        ImportError: jax-cuda12-plugin and jax-cuda12-pjrt, of JAX's version, are not installed.
    """
    from jax._src import xla_bridge
    from jax_plugins import xla_cuda12  # pyright: ignore[reportMissingImports]

    here = pathlib.Path(__file__).parent
    library = pathlib.Path(xla_cuda12.__file__).parent / "xla_cuda_plugin.so"
    xla_bridge.register_plugin("cuda", library_path=str(library), priority=1)
    nodes, each = max(1, count // 8), min(count, 8)
    described = topologies.get_topology_desc(
        platform="cuda",
        topology_name="h100",
        target_config=(here / "h100.txtpb").read_text(),
        topology=f"1x{nodes}x{each}",
    )
    return described.devices


def preset(name: str, style: str, devices: Devices, rows: int = 0) -> Setup:
    """A preset's run on a mesh, with its own rows a device, or with `rows` of the global batch."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config = dataclasses.replace(config, pretrain=None)
    mesh = laid_out(style, len(devices))
    each = min(config.batch_size, MOST_ROWS)
    config.batch_size = rows or each * mesh["data"] * mesh.get("fsdp", 1)
    config.parallel = "pmap" if style == "pmap" else "pjit"
    for axis, size in mesh.items():
        setattr(config.mesh, axis, size)
    train = data(name, config, max(_ROWS, config.batch_size))
    return setup(config, (train, train), devices=devices)


def compiled(run: Setup) -> Any:
    """The dispatch, through XLA's partitioner, from descriptions alone.

    With the forms of attention, convolution and pooling that accelerators take.
    """
    constants, block = run.abstract_inputs()
    feed: Any = Described(block)
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        lowered = run.lower(feed, constants)
    return lowered.compile()


def record(name: str, style: str, devices: Devices, rows: int = 0) -> dict[str, Any]:
    """What the compiled dispatch of a preset says of one step."""
    run = preset(name, style, devices, rows)
    since = time.monotonic()
    program = compiled(run)
    text, sizes = program.as_text(), dict(run.mesh.shape)
    memory, each = (
        program.memory_analysis(),
        run.config.batch_size // (sizes["data"] * sizes["fsdp"]),
    )
    cost = program.cost_analysis() or alone(name, each)
    counts = Parameters.of(run)
    return {
        "preset": name,
        "style": style,
        "devices": len(devices),
        "mesh": sizes,
        "batch": run.config.batch_size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.state.params)),
        **account(collectives(text, len(devices)), counts, sizes, run.config.batch_size),
        "flops": int(cost["flops"]),
        "bytes_accessed": int(cost["bytes accessed"]),
        "launches": launches(text),
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "alias": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
        },
        "expected": _expected(run),
        "seconds": round(time.monotonic() - since, 1),
    }


@functools.cache
def alone(name: str, rows: int) -> dict[str, float]:
    """FLOPs and bytes of a step on one CPU; XLA for GPUs tells none where there is no GPU."""
    return compiled(preset(name, "data", jax.devices("cpu")[:1], rows)).cost_analysis()


def _expected(run: Setup) -> dict[str, int]:
    """Bytes on one device by the shardings: of the state, and of data, key and indices."""
    parts = {
        "parameters": run.state.params,
        "moments": run.state.opt_state,
        "average": run.state.ema,
        "model_state": run.state.model_state,
    }
    constants, block = run.abstract_inputs()
    return {name: _bytes(tree) for name, tree in (parts | {"data": (constants, block)}).items()}


def _bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def records(
    names: Sequence[str], styles: Sequence[str], devices: Devices, rows: int = 0
) -> list[dict[str, Any]]:
    """Records of all presets and styles; a mesh that a preset refuses has the reason instead."""
    out = []
    for name in names:
        for style in styles:
            if len(devices) == 1 and style != "data":
                continue
            try:
                out.append(record(name, style, devices, rows))
            except InputError as error:
                out.append(
                    {"preset": name, "style": style, "devices": len(devices), "refused": str(error)}
                )
            told = out[-1].get("seconds", "refused")
            say(f"{name}, {style}, {len(devices)} devices: {told} s")
    return out


def main(argv: list[str]) -> None:
    """Compiles and prints."""
    devices = gpus(_COUNT.value) if _TARGET.value == "h100" else jax.devices()[: _COUNT.value]
    print(json.dumps(records(_PRESETS.value, _STYLES.value, devices, _BATCH.value)))


if __name__ == "__main__":
    _PRESETS = flags.DEFINE_list("presets", None, "Which.", required=True)
    _STYLES = flags.DEFINE_list("styles", ["data"], "Which meshes.")
    _COUNT = flags.DEFINE_integer("devices", 1, "How many.")
    _TARGET = flags.DEFINE_enum("target", "cpu", ["cpu", "h100"], "Whose compiler.")
    _BATCH = flags.DEFINE_integer("rows", 0, "Of the global batch; 0: the preset's, a device.")
    app.run(main)
