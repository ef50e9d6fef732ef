"""Builds everything that a run needs from its settings, before anything is computed."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.config import Config, check, profile_window, steps_of
from aejax.data import feed, prepare
from aejax.data.fingerprint import fingerprint
from aejax.data.prepare import Preparation
from aejax.data.sources import open_several
from aejax.data.sources.base import Source
from aejax.data.sources.labels import check_classes, some_of_each
from aejax.data.sources.places import locate, reading_for, with_options
from aejax.data.streaming import Streaming
from aejax.errors import InputError
from aejax.mesh import Devices, make_mesh, replicated, with_sharding
from aejax.mesh import rows as mesh_rows
from aejax.models.batch import Batch, Context
from aejax.runs import folder
from aejax.runs.loading import abstract_batch
from aejax.training import same_data, sharding
from aejax.training.dispatch import dispatch, inner_steps
from aejax.training.state import ModelFns, TrainState, program
from aejax.training.step import Constants, MicroBatch, PrepareFn, Step, term_names
from aejax.training.validation import EvalFns, Validation

Feed = feed.Resident | Streaming


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run, ready to start.

    Attributes:
        config: checked settings.
        train: the training split.
        all_train: with the rows whose labels `config.data.labels` leaves out.
        test: the test split.
        preparation: raw rows -> x.
        mesh: of the devices.
        total: steps of the whole run.
        program: the model and its optimizer as pure functions.
        step: one update.
        dispatch: many updates (`aejax.training.dispatch`). It is kept, like `eval_fns`, since
            JAX caches compilations by the identity of the function.
        eval_fns: what an evaluation computes.
        state: abstract TrainState, with the sharding of each array.
        every: {"evaluation": steps, "checkpoint": steps}; 0 for never.
        profile: first and last step of the profiler's trace, or None.
        fingerprints: of both splits, by which the folder knows its data again.
        loss_inputs: constant arrays of the objective, neither trained nor saved; or None.
        base: the folder to which relative paths of its data refer.
    """

    config: Config
    train: Source
    all_train: Source
    test: Source
    preparation: Preparation
    mesh: jax.sharding.Mesh
    total: int
    program: ModelFns
    step: Step
    dispatch: Callable
    eval_fns: EvalFns
    state: TrainState
    every: dict[str, int]
    profile: tuple[int, int] | None
    fingerprints: dict[str, str]
    loss_inputs: Any = None
    base: str = ""

    def run(self) -> folder.Run:
        """The contents of the run's config.json."""
        spec, statistics = self.preparation.spec, self.preparation.statistics
        rows = len(self.train)
        return folder.Run(self.config, spec, statistics, rows, self.fingerprints, self.base)

    @functools.cached_property
    def replicated(self) -> jax.sharding.Sharding:
        return replicated(self.mesh)

    @functools.cached_property
    def block_sharding(self) -> jax.sharding.NamedSharding:
        """Sharding of a feed's blocks, [steps, micro-batches, rows, ...], over their rows."""
        return mesh_rows(self.mesh, axis=2)

    def terms(self) -> list[str]:
        """The loss and its terms, which rows of metrics.jsonl have: of training or evaluation."""
        batch = abstract_batch(self.config, self.train.spec)
        return list(dict.fromkeys([*self.state.window.sums, *metric_names(self.program, batch)]))

    def in_words(self) -> str:
        """Rows, steps and devices, in a line."""
        spec, devices = self.train.spec, self.mesh.devices
        mesh = ", ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items() if size > 1)
        return (
            f"{len(self.train)} training rows of {spec.shape} {spec.dtype}, {len(self.test)} test"
            f" rows; {self.total} steps of {self.config.batch_size} on {devices.size} x"
            f" {devices.flat[0].device_kind}{f' ({mesh})' if mesh else ''}"
        )

    def open_feed(self) -> Feed:
        """Puts the training split on the devices, or prepares to stream it."""
        shape, steps, seed = self.step.shape, self.total, self.config.seed
        if is_streaming(self.config, self.train):
            threads = self.config.data.threads
            opened = Streaming(self.train, seed, shape, steps, self.block_sharding, threads)
        else:
            data, rows = feed.resident(self.train, self.replicated), len(self.train)
            opened = feed.Resident(data, rows, seed, shape, steps, self.block_sharding)
        return opened

    def constants(self, source: Feed) -> Constants:
        """The constant inputs of every step, on the devices."""
        key = np.asarray(jax.random.key_data(jax.random.key(self.config.seed)))
        put = functools.partial(feed.to_device, sharding=self.replicated)
        return Constants(source.data, put(key), jax.tree.map(put, self.loss_inputs))

    def abstract_inputs(self) -> tuple[Constants, Any]:
        """Abstract inputs of a step: its constants, and a block of the feed."""
        whole = functools.partial(with_sharding, shardings=self.replicated)
        key = whole(jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))))
        loss_inputs = jax.tree.map(whole, self.loss_inputs)
        if is_streaming(self.config, self.train):
            return Constants(None, key, loss_inputs), self.open_feed().abstract()
        spec, rows = self.train.spec, len(self.train)
        x = jax.ShapeDtypeStruct((rows, math.prod(spec.shape)), spec.dtype)
        number = jax.ShapeDtypeStruct((rows,), np.int32)
        resident = whole(feed.ResidentRows(x, **dict.fromkeys(spec.numbers, number)))
        described = feed.Resident(
            None, rows, self.config.seed, self.step.shape, self.total, self.block_sharding
        )
        return Constants(resident, key, loss_inputs), described.abstract()

    def init(self) -> TrainState:
        """A fresh state, initialised with its shardings."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        # It runs once: on a CPU a third of its compilation can be saved, and the bits are the same.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 1} if on_cpu else None
        make = jax.jit(self.program.init, out_shardings=shardings, compiler_options=options)
        return make(jax.random.key(self.config.seed))

    def validation(self) -> Validation:
        """Puts the test split on the devices and compiles its evaluation."""
        return Validation(
            self.eval_fns,
            self.state,
            self.test,
            self.mesh,
            self.config.evaluation.batch_size,
            is_streaming(self.config, self.test),
        )

    def lower(self, source: Feed, constants: Constants) -> jax.stages.Lowered:
        """Lowers the dispatch of many steps for this feed."""
        number = jax.ShapeDtypeStruct((), jnp.int32, sharding=self.replicated)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        outputs = (shardings, self.replicated)
        run = jax.jit(self.dispatch, donate_argnums=0, out_shardings=outputs)
        return run.lower(self.state, constants, source.abstract(), *[number] * 3)

    def compile(self, source: Feed) -> Callable:
        """Compiles that dispatch: (state, block, first, n, every) -> (state, report)."""
        constants = self.constants(source)
        compiled = self.lower(source, constants).compile()
        return lambda state, *block_and_numbers: compiled(state, constants, *block_and_numbers)


def setup(
    config: Config,
    sources: tuple[Source, Source] | None = None,
    workdir: str | None = None,
    download: bool = False,
    devices: Devices | None = None,
    objective: Any = None,
    accept_changed_data: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Setup:
    """Opens the data, makes the mesh and builds the model's functions; computes nothing.

    Args:
        config: the run's settings.
        sources: training and test split in place of those that the settings name.
        workdir: a folder that may hold the run already; its statistics are used then.
        download: whether TFDS may download what is missing.
        devices: the devices of the mesh; None for all.
        objective: a `Trainable` with another loss of the same parameters, which is trained in place
            of the settings' model. Its `loss_inputs`, if any, are an argument of each step and part
            of the loss's context; they are not saved.
        accept_changed_data: continue, with the old statistics, although the rows differ from those
            that the folder's run was trained on.
        say: called with a line about each oddity of the data.

    Raises:
        InputError: whatever can be wrong in settings, data, devices or the folder.
    """
    check(config)
    old = None if workdir is None else folder.read_to_resume(workdir, config)
    for line in config.pretrain.unused(config) if config.pretrain is not None else ():
        if old is None:
            raise InputError(line)
        say(f"{line}: ignored, as it was when this run began")
    mesh = make_mesh(config.mesh, devices or jax.devices(), config.batch_size, config.micro_batches)
    base = (old.base if old else "") or os.getcwd()
    train, test, base = (*sources, base) if sources else open_sources(config, base, download, old)
    same_data.check_same_kind(config, train, test)
    all_train = train
    if config.model.classes:
        for name, source in (("train", train), ("test", test)):
            split = f"config.data.{name}={getattr(config.data, name)}"
            check_classes(source, config.model.classes, split)
        train = some_of_each(train, config.data.labels, config.data.labels_seed)
    if config.batch_size > len(train):
        raise InputError(
            f"config.batch_size={config.batch_size}: must be at most the {len(train)} rows of"
            f" config.data.train={config.data.train}"
            f"{' with config.data.labels=' + config.data.labels if config.data.labels else ''}"
        )
    try:
        config.model.check_platform(
            mesh.devices.flat[0].platform, config.compute, mesh.shape["tensor"]
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    prepare.check(config.data.prepare, train.spec)
    if config.model.symbols:
        for source in (train, test):
            prepare.check_symbols(config.data.prepare, source, config.model.symbols)
    fingerprints = {"train": fingerprint(all_train), "test": fingerprint(test)}
    if old is not None:
        same_data.check(old, config, all_train, fingerprints, workdir or "", accept_changed_data)
    statistics = old.statistics if old else prepare.statistics(config.data.prepare, all_train, say)
    preparation = Preparation(config.data.prepare, train.spec, statistics)
    steps = functools.partial(steps_of, batch_size=config.batch_size, rows=len(train))
    total = steps("duration", config.duration)
    _check_stream(config, total)
    every = {
        name: steps(f"{name}.every", text, total=total) if text else 0
        for name, text in (
            ("evaluation", config.evaluation.every),
            ("checkpoint", config.checkpoint.every),
        )
    }
    batch = abstract_batch(config, train.spec)
    trained = objective or config.model
    loss_inputs = trained.loss_inputs
    try:
        built = program(trained, batch, config.optimizer, total, term_names(batch, loss_inputs))
    except ValueError as error:
        raise InputError(f"config.model: {error}") from None
    _check_metric(config, built, batch)
    if train.spec.labelled and not test.spec.labelled:
        same_data.check_unlabelled(config, built, batch)
    own = config.model.sharding_rules
    shardings = sharding.of_state(built.abstract, mesh, config.mesh.rules, own)
    state = with_sharding(built.abstract, shardings)
    shape = (config.micro_batches, config.batch_size // config.micro_batches)
    step = Step(
        program=built,
        gather=Streaming.gather if is_streaming(config, train) else feed.Resident.gather,
        prepare=training_preparation(preparation),
        shape=shape,
        ema=config.optimizer.ema,
        compute=config.compute,
        missing=train.spec.missing,
        mesh=mesh if config.parallel == "pmap" else _shared_mesh(config, mesh),
        shardings=shardings,
        stream=len(train) if config.data.prepare.deform else 0,
    )
    return Setup(
        config,
        train,
        all_train,
        test,
        preparation,
        mesh,
        total,
        built,
        step,
        dispatch(step, inner_steps(step, mesh.devices.flat[0].platform, total)),
        EvalFns.of(built, preparation, config.model.decodes, _shared_mesh(config, mesh)),
        state,
        every,
        profile_window(config),
        fingerprints,
        loss_inputs=loss_inputs,
        base=base,
    )


def _shared_mesh(config: Config, mesh: jax.sharding.Mesh) -> jax.sharding.Mesh | None:
    """The mesh whose devices each compute their own rows where the compiler would not divide them;
    None where it divides them, or where there is nothing to divide."""
    sizes = mesh.shape
    shared = sizes["data"] * sizes["fsdp"] > 1 and sizes["tensor"] == 1
    return mesh if config.model.gradient_by_device and shared else None


def training_preparation(preparation: Preparation) -> PrepareFn:
    """The preparation in training: raw rows are augmented with each row's own keys."""

    def prepared(micro_batch: MicroBatch, context: Context) -> jax.Array:
        keys = context.draw("prepare")
        return preparation(micro_batch.raw.x, keys, micro_batch.stream_keys)

    return prepared


def seeded(reference: Setup, config: Config, workdir: str | None = None) -> Setup:
    """The setup of a run that differs from another only in its seed; both share compilations.

    Args:
        reference: the other run.
        config: this run's settings.
        workdir: as in `setup`.

    Raises:
        InputError: the folder holds a run with other settings.
        ValueError: more than the seed differs.
    """
    if dataclasses.replace(config, seed=reference.config.seed) != reference.config:
        raise ValueError("the runs differ in more than their seed")
    if workdir is not None and (old := folder.read_to_resume(workdir, config)):
        same_data.check(old, config, reference.all_train, reference.fingerprints, workdir, False)
    return dataclasses.replace(reference, config=config)


def is_streaming(config: Config, source: Source) -> bool:
    """Whether this split is streamed: by setting, or because of its size."""
    if config.data.feed != "auto":
        return config.data.feed == "streaming"
    spec = source.spec
    size = len(source) * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    return size > config.data.resident_mib * 2**20


def open_sources(
    config: Config, base: str, download: bool = False, old: folder.Run | None = None
) -> tuple[Source, Source, str]:
    """The training and test split that the settings name, and the folder their path refers to.

    Args:
        config: the run's settings.
        base: the folder in which the run was first started. Relative paths refer to it, or else to
            the working folder.
        download: whether TFDS may download what is missing.
        old: the folder's run, by whose options and columns a table is read.
    """
    data, text = config.data, config.data.source
    if old is not None:
        text = with_options(text, reading_for(text, old.config.data.source, old.spec.reading))
    source, where, base = locate(text, data.folder, (base, os.getcwd()))
    like, splits = None if old is None else old.spec, (data.train, data.test)
    train, test = open_several(source, splits, where, download, data.keep_labels, like)
    return train, test, base


def _check_stream(config: Config, total: int) -> None:
    """Raises InputError for a run with more examples than a step can count in uint32."""
    deform, most = config.data.prepare.deform, 2**32 // config.batch_size
    if deform and total > most:
        raise InputError(
            f"config.duration={config.duration}: {total} steps; with"
            f" config.data.prepare.deform={deform} must be at most {most}, 2^32 examples"
        )


def metric_names(built: ModelFns, batch: Batch) -> list[str]:
    """Names of the metrics that a model's evaluation reports; computes nothing."""

    def terms(params, model_state, batch):
        return built.merge(params, model_state).loss(batch)[1]

    state = built.abstract
    return ["loss", *jax.eval_shape(terms, state.params, state.model_state, batch)]


def _check_metric(config: Config, built: ModelFns, batch: Batch) -> None:
    """Raises InputError for a metric that the model's evaluation does not report."""
    known = metric_names(built, batch)
    if config.evaluation.metric not in known:
        raise InputError(
            f"config.evaluation.metric={config.evaluation.metric}: must be one of"
            f" {', '.join(known)}"
        )
