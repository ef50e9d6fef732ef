"""A dry run: shapes, shardings, memory and FLOPs of a run, without training."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from aejax.config import Config
from aejax.runs import checkpoint
from aejax.training.setup import Setup, setup


def report(config: Config, download: bool = False) -> str:
    """The parameters' shapes, counts and shardings, and the compiled step's memory and FLOPs.

    Raises:
        InputError: as the run itself would raise.
    """
    run_setup = setup(config, download=download)
    lines = [
        run_setup.in_words(),
        "",
        f"{'parameter':<44} {'shape':<20} {'count':>12}  sharding",
    ]
    params: dict[str, Any] = checkpoint.flatten(run_setup.state.params)
    for name, leaf in params.items():
        count = math.prod(leaf.shape)
        lines.append(f"{name:<44} {str(leaf.shape):<20} {count:>12,}  {_where(leaf.sharding.spec)}")
    total = sum(math.prod(leaf.shape) for leaf in params.values())
    lines += [f"{'total':<44} {'':<20} {total:>12,}", "", *_compiled(run_setup)]
    return "\n".join(lines)


def _where(spec: Any) -> str:
    return str(spec) if any(spec) else "on every device"


def _compiled(run_setup: Setup) -> list[str]:
    compiled = compile_step(run_setup)
    cost = compiled.cost_analysis()
    lines = ["one compiled step, on each device:"]
    if cost and cost.get("flops", 0) > 0:
        lines.append(f"  {cost['flops']:,.0f} FLOPs, {cost.get('bytes accessed', 0):,.0f} bytes")
    memory = compiled.memory_analysis()
    if memory is not None:
        for name, size in (
            ("arguments (state, data, indices)", memory.argument_size_in_bytes),
            ("results (state)", memory.output_size_in_bytes),
            ("of these in the arguments' place (donated)", memory.alias_size_in_bytes),
            ("working memory", memory.temp_size_in_bytes),
        ):
            lines.append(f"  {name:<44} {size / 2**20:>10.2f} MiB")
    return lines


def compile_step(run_setup: Setup) -> Any:
    """One update, compiled by itself; the data set is described, not loaded."""
    constants, block = run_setup.abstract_inputs()
    offset = jax.ShapeDtypeStruct((), jnp.int32, sharding=run_setup.replicated)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, run_setup.state)
    step = jax.jit(run_setup.step.__call__, donate_argnums=0, out_shardings=(shardings, None))
    return step.lower(run_setup.state, constants, block, offset).compile()
