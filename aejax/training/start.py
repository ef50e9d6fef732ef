"""How a run starts: from its folder's newest good checkpoint, else with the parameters of its
pre-training or of config.init_from, else with fresh parameters.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from aejax import cluster, optimizer
from aejax.data.feed import to_device
from aejax.errors import InputError
from aejax.models.interfaces import Trainable
from aejax.runs import checkpoint, folder, manifests
from aejax.runs.arrays import Arrays, flatten, unflatten
from aejax.runs.progress import Progress
from aejax.training.setup import Setup
from aejax.training.state import TrainState

# Returns initial parameters by name, which replace a new run's fresh ones.
InitialParams = Callable[[], dict[str, np.ndarray]]


@dataclasses.dataclass
class InitialState:
    """Where a run starts.

    Attributes:
        state: on the devices.
        progress: what the checkpoint stores besides the state: best metric, patience, ledger.
        restored: whether the folder had a checkpoint.
    """

    state: TrainState
    progress: Progress
    restored: bool


def parts(state: TrainState) -> dict[str, Any]:
    """The state as a checkpoint's separate parts, so that evaluations can read some of them."""
    return {
        "params": state.params,
        "ema": state.ema,
        "model_state": state.model_state,
        "rest": {"step": state.step, "opt_state": state.opt_state, "window": state.window},
    }


def newest(workdir: str, say: Callable[[str], None]) -> Progress | None:
    """The progress of the newest good checkpoint of a folder; None where it holds none.

    Raises:
        InputError: there are checkpoints, but none of them is complete.
    """
    step = manifests.newest_good(workdir, say)
    if step is not None:
        return manifests.progress(workdir, step)
    if bad := sorted({*manifests.steps(workdir), *manifests.lost(workdir)}):
        raise InputError(
            f"--workdir={workdir}: all {len(bad)} checkpoints are damaged or have lost their"
            f" manifest (steps {', '.join(map(str, bad))}); move its folder checkpoints away to"
            " start afresh"
        )
    return None


def start(
    setup: Setup,
    workdir: str,
    resume_point: Progress | None,
    initial_params: InitialParams | None,
    say: Callable,
) -> InitialState:
    """Returns the initial state, from the first source in this file's docstring that exists."""
    if resume_point is not None:
        step = resume_point.step
        if cluster.is_main():
            manifests.set_aside(workdir, step, say)
        read = checkpoint.load(workdir, step, parts(setup.state))
        state = TrainState(**read.pop("rest"), **read)
        return InitialState(state, resume_point, True)
    state = setup.init()
    if initial_params is not None:
        return InitialState(_with_params(state, initial_params()), Progress(), False)
    if setup.config.init_from:
        state = _initialised(setup, state, setup.config.init_from, say)
    return InitialState(state, Progress(), False)


def _initialised(setup: Setup, state: TrainState, source: str, say: Callable) -> TrainState:
    """The state with another run's parameters, where they have the same meaning; prints a table.

    For a transformer with another layout, parameters of a slot are kept where its kind of block is
    the same, and replaced by fresh ones elsewhere.
    """
    step = manifests.newest_good(source, say)
    if step is None:
        raise InputError(f"config.init_from={source}: holds no checkpoint that is whole")
    stored = manifests.shapes(source, step, "params")
    fresh = flatten(state.params)
    transferable = _is_transferable(setup.config.model, source, say)
    kept = {
        name
        for name, array in fresh.items()
        if _same_array(stored.get(name), array) and transferable(name)
    }
    if not kept:
        raise InputError(
            f"config.init_from={source}: no parameter has a name and shape in common, so that"
            f" nothing would be taken ({_compared(fresh, stored)})"
        )
    lines = [f"parameters from {folder.path(source)}, step {step}:"]
    for name in sorted(fresh.keys() | stored.keys()):
        lines.append(_line(name, fresh.get(name), stored.get(name), name in kept))
    say("\n".join(lines))
    read = _read(setup, source, step, "params", {name: fresh[name] for name in kept})
    begun = _starting_at(state, fresh | read)
    if not setup.config.init_moments:
        return begun
    arrays = flatten({"opt_state": begun.opt_state})
    names = _moments(arrays, manifests.shapes(source, step, "rest"), kept)
    if not names:
        own = optimizer.KINDS.name(setup.config.optimizer)
        raise InputError(
            f"config.init_moments=True: {source} has no moments of these parameters that"
            f" config.optimizer={own} could use"
        )
    say(f"moments from there: {len(names)} arrays of {len(arrays)}")
    moments = _read(setup, source, step, "rest", {name: arrays[name] for name in names})
    whole = unflatten({"opt_state": begun.opt_state}, arrays | moments)
    return dataclasses.replace(begun, **whole)


def _is_transferable(model: Trainable, source: str, say: Callable) -> Callable[[str], bool]:
    """A function that says by name whether a parameter of that run means the same in this model."""
    try:
        other = folder.read(source).config.model
    except InputError as error:  # a damaged file, or a model that is in no table of kinds
        say(f"{error}; names and shapes alone say what is kept")
        return lambda name: True
    return lambda name: model.is_transferable(name, other)


def _compared(fresh: dict[str, Any], stored: dict[str, Any]) -> str:
    """A parameter that both models have, with both shapes, or a name of each, for a message."""
    if both := sorted(fresh.keys() & stored.keys()):
        return f"{both[0]} {fresh[both[0]].shape}, there {stored[both[0]].shape}"
    return f"here {min(fresh)}, there {min(stored)}"


def _line(name: str, fresh: Any, stored: Any, kept: bool) -> str:
    """A parameter's line of the table: kept, replaced (another shape), fresh or dropped."""
    if stored is None:
        return f"  fresh    {name:<40} {fresh.shape}"
    if fresh is None:
        return f"  dropped  {name:<40} {stored.shape}"
    if kept:
        return f"  kept     {name:<40} {fresh.shape}"
    return f"  replaced {name:<40} {fresh.shape} (there {stored.shape})"


def _same_array(one: Any, other: Any) -> bool:
    return one is not None and (one.shape, one.dtype) == (other.shape, other.dtype)


def _moments(arrays: Arrays, stored: dict[str, Any], kept: set[str]) -> set[str]:
    """Names of the optimizer's arrays, opt_state/PART/MOMENT/PARAMETER, to restore from a run.

    These are the moments of kept parameters, and opt_state/PART/count for each part that has any.
    Without the step count, Adam's bias correction would treat restored moments as fresh and scale
    them up.
    """
    names = {name for name, array in arrays.items() if _same_array(stored.get(name), array)}
    taken = {name for name in names if "/".join(name.split("/")[3:]) in kept}
    parts = {"/".join(name.split("/")[:2]) for name in taken}
    return taken | {name for part in parts if (name := f"{part}/count") in names}


def _read(setup: Setup, source: str, step: int, part: str, wanted: Arrays) -> Arrays:
    """Reads arrays of another run's checkpoint, with the shardings that they have here."""
    target = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            leaf.dtype,
            sharding=wanted[name].sharding if name in wanted else setup.replicated,
        )
        for name, leaf in manifests.shapes(source, step, part).items()
    }
    read = checkpoint.load(source, step, {part: target})[part]
    return {name: read[name] for name in wanted}


def _with_params(state: TrainState, params: dict[str, np.ndarray]) -> TrainState:
    """The state with some parameters replaced, by name."""
    arrays = flatten(state.params)
    for name, array in params.items():
        if name not in arrays or arrays[name].shape != array.shape:
            raise ValueError(
                f"initial_params: {name} {array.shape}; the model has"
                f" {', '.join(f'{key} {leaf.shape}' for key, leaf in arrays.items())}"
            )
        arrays[name] = to_device(array.astype(arrays[name].dtype), arrays[name].sharding)
    return _starting_at(state, arrays)


def _starting_at(state: TrainState, arrays: Arrays) -> TrainState:
    params = unflatten(state.params, arrays)
    # The average starts at the parameters, as a copy, because each donated buffer has one owner.
    ema = jax.tree.map(lambda leaf: leaf.copy(), params) if state.ema else {}
    return dataclasses.replace(state, params=params, ema=ema)
