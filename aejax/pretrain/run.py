"""A run with what its settings ask for before it: each stage is an ordinary run in a sub-folder.

    WORKDIR/stage1, stage2, ...    a run each: the loop, its checkpoints, its rows of metrics.jsonl
    WORKDIR                        the run itself, which starts from what the stages learned

Started again, a stage that is complete is not trained again, one that was cut goes on, and once the
run itself has a checkpoint the stages are not looked at any more.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from aejax import cluster, folder, loading
from aejax.cluster import Stopped
from aejax.config import Config
from aejax.data.sources import ARRAYS, checks
from aejax.data.sources.base import Arrays, Source, Spec
from aejax.errors import InputError
from aejax.pretrain.codes import Codes, local
from aejax.pretrain.greedy import in_interval
from aejax.tracking import Ledger
from aejax.training import loop, manifests, sharding
from aejax.training.loop import Outcome
from aejax.training.setup import Setup, setup
from aejax.training.state import split


def train(
    config: Config,
    workdir: str,
    sources: tuple[Source, Source] | None = None,
    stop: Callable[[], bool] = cluster.never,
    started: float | None = None,
    quiet: bool = False,
    download: bool = False,
    devices: sharding.Devices | None = None,
    accept_changed_data: bool = False,
) -> Outcome:
    """Trains, or goes on training, the run in this folder and the stages before it.

    Args, and what is raised: those of `aejax.training.loop.train`, which does all the training. A
    run that is given its sources has "arrays" for `config.data.source` in its config.json.

    Returns:
        How the run ended; where it was stopped before it began, how the stage did.
    """
    if sources is not None:
        config, sources = _from_arrays(config), _as_sources(sources)
    options: Any = {
        "stop": stop,
        "quiet": quiet,
        "devices": devices,
        "accept_changed_data": accept_changed_data,
    }
    whole = functools.partial(loop.train, config, workdir, sources, download=download, **options)
    if config.pretrain is None or manifests.steps(workdir):
        return whole(started=started)
    ledger = Ledger(started)
    try:
        made = cluster.interruptible(
            stop if jax.process_count() == 1 else cluster.never,
            lambda: setup(
                config,
                sources,
                workdir,
                download,
                devices,
                accept_changed_data=accept_changed_data,
            ),
        )
    except Stopped:
        return Outcome("stopped", 0, {}, None, ledger.summary())
    # From now on the folder alone can be gone on with, and its settings may not change.
    for place, stage in _settings(config, workdir):
        folder.read_to_resume(place, stage)
    with folder.locked(workdir) if cluster.is_main() else contextlib.nullcontext():
        if cluster.is_main():
            folder.write(workdir, made.run())
        modules = _stages(made, workdir, started, options)
    if isinstance(modules, Outcome):
        return modules
    return whole(given=functools.partial(_unrolled, made, modules))


def _as_sources(given: Any) -> tuple[Source, Source]:
    """A training and a test split, of which arrays become sources.

    Raises:
        InputError: not two, or something that is neither.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError("sources: must be two, the training and the test split")
    made = []
    for name, rows in zip(("training", "test"), given, strict=True):
        if isinstance(rows, np.ndarray):
            x, maximum = checks.stored(rows, f"sources: the {name} split")
            rows = Arrays(x, None, maximum)
        if not isinstance(getattr(rows, "spec", None), Spec):
            raise InputError(
                f"sources: the {name} split is a {type(rows).__name__}; accepted: a NumPy array"
                " [rows, ...], aejax.data.sources.Arrays, or another Source"
            )
        made.append(rows)
    return made[0], made[1]


def _from_arrays(config: Config) -> Config:
    """The settings of a run whose rows no source can open again."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source=ARRAYS))


def _unrolled(made: Setup, modules: list[Any]) -> dict[str, np.ndarray]:
    """The run's parameters by name, as far as the stages give them."""
    module = made.config.pretrain.unrolled(made.config, made.train.spec.shape, modules)
    params = sharding.flatten(split(module)[1])
    return {name: leaf for name, leaf in params.items() if isinstance(leaf, np.ndarray)}


def _settings(config: Config, workdir: str) -> list[tuple[str, Config]]:
    """The folder and the settings of each stage; from the second on its rows are computed."""
    return [
        (os.path.join(workdir, f"stage{number}"), _from_arrays(stage) if number > 1 else stage)
        for number, stage in enumerate(config.pretrain.stages(config), start=1)
    ]


def _stages(made: Setup, workdir: str, started: float | None, options: dict) -> list[Any] | Outcome:
    """The trained module of each stage, or how one was stopped."""
    say = functools.partial(_say, options["quiet"])
    sources: Any = (made.train, made.test)
    settings, modules = _settings(made.config, workdir), []
    for number, (place, stage) in enumerate(settings, start=1):
        size = stage.model.latent_dim
        say(f"stage {number} of {len(settings)}: {sources[0].spec.shape} to {size}, {place}")
        outcome = loop.train(stage, place, sources, started=started, **options)
        started = None  # the ledger of the first one holds the start-up
        if outcome.status == "stopped":
            return outcome
        cluster.meet(f"stage{number}")  # the main process has written the last manifest
        model = local(loading.load(place, say=say))
        modules.append(model.module)
        bottleneck = stage.model.bottleneck
        maximum = 1.0 if in_interval(getattr(bottleneck, "activation", "")) else None
        sources = tuple(Codes(source, model, maximum) for source in sources)
    return modules


def _say(quiet: bool, line: str) -> None:
    if cluster.is_main() and not quiet:
        print(line, file=sys.stderr, flush=True)
