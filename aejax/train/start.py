"""How a run starts: from its folder's newest good checkpoint, else from what it is given by its
pre-training or by init_from, else fresh.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from aejax import cluster, folder
from aejax.data.feed import place
from aejax.errors import InputError
from aejax.train import checkpoint
from aejax.train.setup import Setup
from aejax.train.state import TrainState


@dataclasses.dataclass
class Start:
    """Where a run starts.

    Attributes:
        state: on the devices.
        progress: what its checkpoint kept beside: best metric, patience, ledger.
        restored: whether the folder had a checkpoint.
    """

    state: TrainState
    progress: dict[str, Any]
    restored: bool


def fresh_progress() -> dict[str, Any]:
    """Of a run that has not begun."""
    return {
        "step": 0,
        "evaluated": 0,
        "best": None,
        "stale": 0,
        "stopped_early": False,
        "metrics": {},
        "ledger": None,
        "total": None,
    }


def parts(state: TrainState) -> dict[str, Any]:
    """What a checkpoint is made of; an evaluation reads no more than it needs."""
    return {
        "params": state.params,
        "ema": state.ema,
        "model_state": state.model_state,
        "rest": {"step": state.step, "opt_state": state.opt_state, "window": state.window},
    }


def newest(workdir: str, say: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
    """The newest good step of a folder and its progress.

    Raises:
        InputError: checkpoints stand there, and every one is damaged.
    """
    there = checkpoint.steps(workdir)
    step = checkpoint.newest_good(workdir, say)
    if step is not None:
        return step, checkpoint.manifest(workdir, step)["progress"]
    if there:
        raise InputError(
            f"--workdir={workdir}: all {len(there)} checkpoints are damaged (steps"
            f" {', '.join(map(str, there))}); move its folder checkpoints away to start afresh"
        )
    return None


def start(setup: Setup, workdir: str, found: tuple[int, dict] | None, say: Callable) -> Start:
    """Makes the first state, in the order of this file's docstring."""
    if found is not None:
        step, progress = found
        if cluster.is_main():
            checkpoint.set_aside(workdir, step, say)
        read = checkpoint.load(workdir, step, parts(setup.state))
        state = TrainState(**read.pop("rest"), **read)
        return Start(state, {**fresh_progress(), **progress}, True)
    if setup.config.pretrain is not None and setup.given is None:
        raise InputError("config.pretrain: aejax.train trains its stages; this loop alone does not")
    state = setup.init()
    if setup.given is not None:
        return Start(_given(state, setup.given()), fresh_progress(), False)
    if setup.config.init_from:
        state = _initialised(setup, state, setup.config.init_from, say)
    return Start(state, fresh_progress(), False)


def _initialised(setup: Setup, state: TrainState, source: str, say: Callable) -> TrainState:
    """Parameters of another run where names and shapes match; prints the table."""
    step = checkpoint.newest_good(source, say)
    if step is None:
        raise InputError(f"config.init_from={source}: holds no checkpoint that is whole")
    stored = checkpoint.shapes(source, step, "params")
    fresh = checkpoint.flatten(state.params)
    kept = {
        name
        for name, array in fresh.items()
        if name in stored and (stored[name].shape, stored[name].dtype) == (array.shape, array.dtype)
    }
    lines = [f"parameters from {folder.path(source)}, step {step}:"]
    for name in sorted(fresh.keys() | stored.keys()):
        fate = "kept" if name in kept else "fresh" if name in fresh else "dropped"
        there = f" (there {stored[name].shape})" if fate == "fresh" and name in stored else ""
        shape = (fresh if name in fresh else stored)[name].shape
        lines.append(f"  {fate:<8} {name:<40} {shape}{there}")
    say("\n".join(lines))
    if not kept:
        raise InputError(f"config.init_from={source}: no parameter has a name and shape in common")
    target = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            leaf.dtype,
            sharding=fresh[name].sharding if name in kept else setup.replicated,
        )
        for name, leaf in stored.items()
    }
    read = checkpoint.load(source, step, {"params": target})["params"]
    arrays = {name: read[name] if name in kept else array for name, array in fresh.items()}
    return _starting_at(state, arrays)


def _given(state: TrainState, given: dict[str, np.ndarray]) -> TrainState:
    """The state with these parameters, by name; others stay as they are."""
    arrays = checkpoint.flatten(state.params)
    for name, array in given.items():
        if name not in arrays or arrays[name].shape != array.shape:
            raise ValueError(f"{name} {array.shape} is given; the model has {arrays.keys()}")
        arrays[name] = place(array.astype(arrays[name].dtype), arrays[name].sharding)
    return _starting_at(state, arrays)


def _starting_at(state: TrainState, arrays: checkpoint.Arrays) -> TrainState:
    params = checkpoint.unflatten(state.params, arrays)
    # The average starts at the parameters; copied, because a donated buffer cannot serve two.
    ema = jax.tree.map(lambda leaf: leaf.copy(), params) if state.ema else {}
    return dataclasses.replace(state, params=params, ema=ema)
