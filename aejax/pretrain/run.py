"""Training of the stages before a run: each is an ordinary run in a sub-folder.

    WORKDIR/stage1, stage2, ...    a run each, with checkpoints and metrics.jsonl
    WORKDIR                        the run itself, which starts from the stages' parameters

From the second stage on, rows are codes of the frozen stages below. If preparation draws nothing
they are computed once; else each step computes the codes of its rows as drawn in that step.

When started again, complete stages are skipped and an interrupted one continues. Once the run
itself has a checkpoint, its stages are not used any more.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from aejax import cluster
from aejax.config import Config
from aejax.data import feed
from aejax.data.sources import ARRAYS
from aejax.data.streaming import Streaming
from aejax.errors import InputError
from aejax.models import KINDS
from aejax.models.batch import Context, batch_mask, split
from aejax.pretrain.codes import Codes, local
from aejax.runs import arrays, folder, loading
from aejax.training.dispatch import dispatch, inner_steps
from aejax.training.outcome import Outcome
from aejax.training.setup import Setup, is_streaming, setup, training_preparation
from aejax.training.start import InitialParams
from aejax.training.step import MicroBatch
from aejax.training.trainer import Say, Trainer


def train_stages(
    run_setup: Setup, workdir: str, options: dict[str, Any]
) -> InitialParams | Outcome:
    """Trains the stages before a run, or continues them.

    Args:
        run_setup: of the run.
        workdir: its folder, which this process holds the lock of.
        options: "accept_changed_data" of `Trainer`; the others of `Trainer.fit`, for each stage.
            "started" counts for the first one.

    Returns:
        A function that returns the run's initial parameters, or the outcome of a stopped stage.

    Raises:
        InputError: a stage's folder has other settings, or augmented rows have lengths.
    """
    accept_changed_data = options.pop("accept_changed_data")
    settings = _settings(run_setup.config, workdir)
    if len(settings) > 1 and run_setup.preparation.draws and run_setup.all_train.spec.padded:
        raise InputError(
            "config.pretrain with config.data.prepare.binarise=sampled, shift or flip: rows with a"
            " length each are not drawn anew in each step; must be none, 0 and False"
        )
    for place, stage in settings:
        folder.read_to_resume(place, stage)
    if cluster.is_main():
        # From now on the run can be continued from its folder, and its settings may not change.
        folder.write(workdir, run_setup.run())
    sources: Any = (run_setup.all_train, run_setup.test)
    devices, modules = tuple(run_setup.mesh.devices.flat), []
    for number, (place, stage) in enumerate(settings, start=1):
        kind, size = KINDS.name(stage.model), stage.model.latent_dim
        line = f"stage {number} of {len(settings)}: {kind}, {sources[0].spec.shape} to {size}"
        _say(options["quiet"], f"{line}, {place}")
        make_setup = functools.partial(
            setup, stage, sources, place, False, devices, None, accept_changed_data
        )
        if modules and run_setup.preparation.draws:
            make_setup = functools.partial(_drawn, make_setup, run_setup, list(modules))
        outcome = Trainer.with_setup(make_setup, place).fit(**options)
        options = {**options, "started": None}  # the first stage's ledger holds the start-up
        if outcome.status == "stopped":
            return outcome
        cluster.barrier(f"stage{number}")  # the main process has written the last manifest
        model = local(loading.load(place, say=functools.partial(_say, options["quiet"])))
        modules.append(model.module)
        sources = tuple(Codes(source, model) for source in sources)
    return functools.partial(_unrolled, run_setup, modules)


def _drawn(make_setup: Callable[..., Setup], run_setup: Setup, below: list[Any], say: Say) -> Setup:
    """The setup of a stage whose codes each step computes from raw rows, as augmented in that step.

    Args:
        make_setup: returns the stage's setup on codes that are computed once, for its evaluations.
        run_setup: of the run.
        below: the trained modules of the stages below.
        say: called with a line about each oddity of the data.
    """
    stage, rows = make_setup(say), run_setup.all_train
    prepare, spec = training_preparation(run_setup.preparation), rows.spec
    graphs = [split(module)[0] for module in below]

    def codes(micro_batch: MicroBatch, context: Context) -> jax.Array:
        x, raw = prepare(micro_batch, context), micro_batch.raw
        mask = batch_mask(raw.x, None, x.shape[1:], spec.missing)
        for graph, (params, state) in zip(graphs, context.loss_inputs, strict=True):
            x = nnx.merge(graph, params, state["rows"], state["other"]).encode(x, mask)
            mask = None
        return x

    streaming = is_streaming(stage.config, rows)
    step = dataclasses.replace(
        stage.step,
        prepare=codes,
        gather=Streaming.gather if streaming else feed.Resident.gather,
        stream=len(rows) if run_setup.config.data.prepare.deform else 0,
    )
    inputs = [split(module)[1:] for module in below]
    inner = inner_steps(step, stage.mesh.devices.flat[0].platform, stage.total)
    return dataclasses.replace(
        stage, train=rows, step=step, dispatch=dispatch(step, inner), loss_inputs=inputs
    )


def _from_arrays(config: Config) -> Config:
    """The settings of a run whose rows come from Python, not from a named source."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source=ARRAYS))


def _unrolled(run_setup: Setup, modules: list[Any]) -> dict[str, np.ndarray]:
    """The run's parameters by name, of those layers that stages have trained."""
    config = run_setup.config
    module = config.pretrain.unrolled(config, run_setup.train.spec.shape, modules)
    params = arrays.flatten(split(module)[1])
    return {name: leaf for name, leaf in params.items() if isinstance(leaf, np.ndarray)}


def _settings(config: Config, workdir: str) -> list[tuple[str, Config]]:
    """The folder and the settings of each stage; from the second on its rows are computed."""
    return [
        (os.path.join(workdir, f"stage{number}"), _from_arrays(stage) if number > 1 else stage)
        for number, stage in enumerate(config.pretrain.stages(config), start=1)
    ]


def _say(quiet: bool, line: str) -> None:
    if cluster.is_main() and not quiet:
        print(line, file=sys.stderr, flush=True)
