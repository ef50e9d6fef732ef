"""Every setting of a run: nested, typed dataclasses, and what must hold between them.

A preset in `configs` builds a `Config`; flags change its fields (`--config.optimizer=adadelta
--config.optimizer.learning_rate=1.0`); a run's folder keeps it as config.json.
"""

import dataclasses
import re
from typing import Any

from aejax import models, pretrain
from aejax.callbacks import check_trackers
from aejax.errors import InputError
from aejax.kinds import part
from aejax.models import Autoencoder
from aejax.training import optimizer
from aejax.training.optimizer import Adam


@dataclasses.dataclass
class Prepare:
    """What becomes of raw rows on the device: augment, scale, binarise, centre, in this order.

    Statistics come from the training split and are written to the run's config.json.

    Attributes:
        scale: bring values to [0, 1]: bytes over 255, real numbers by the training minimum and
            maximum (other rows may lie a little outside).
        binarise: none; threshold (above one half); sampled (drawn anew at each use in training
            with the grey value as probability; threshold in evaluation, but for the task
            likelihood, which draws once a row).
        centre: none; mean (subtract each element's training mean); standardise (and divide by its
            standard deviation, where it has one); of a table its columns of numbers alone.
        shift: augment in training: move each image by up to this many pixels either way.
        flip: augment in training: mirror each image left to right, every second time.
    """

    scale: bool = True
    binarise: str = "none"
    centre: str = "none"
    shift: int = 0
    flip: bool = False


@dataclasses.dataclass
class Data:
    """Where examples come from.

    Attributes:
        source: digits | idx:FOLDER | images:FOLDER | npz:FILE | sound:FOLDER | table:FILE |
            text:FILE | planted:KIND | tfds:NAME, with options behind the path, as
            images:FOLDER?size=64. A relative path goes from where the run was started first, or
            else from here.
        train: split that trains, by name and slice: train, train[:90%], train[:50000].
        test: split that is evaluated: test, train[90%:].
        folder: TFDS's data folder; "" for its default.
        feed: resident keeps the whole split on every device; streaming reads rows ahead while
            steps run; auto is resident up to resident_mib.
        resident_mib: largest split, in MiB as stored, that auto keeps on every device.
        threads: that read ahead for the streaming feed; more where rows are slow to read or decode.
        prepare: what becomes of the raw rows.
    """

    source: str = "digits"
    train: str = "train"
    test: str = "test"
    folder: str = ""
    feed: str = "auto"
    resident_mib: int = 1024
    threads: int = 16
    prepare: Prepare = dataclasses.field(default_factory=Prepare)


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


@dataclasses.dataclass
class Evaluation:
    """Evaluation on the test split while training.

    Attributes:
        every: a duration (500 steps, 5 epochs), or a share of the run (10%); the last step always
            is evaluated, with "" that one alone.
        metric: the term that is best when least: loss, nll, mse, ...
        patience: stop after this many evaluations without a better metric; 0 for never.
        batch_size: rows at a time.
    """

    every: str = "10%"
    metric: str = "loss"
    patience: int = 0
    batch_size: int = 500


@dataclasses.dataclass
class Checkpoint:
    """When a run is saved; it always is at its end, and where an evaluation was the best so far.

    Attributes:
        every: a duration (1000 steps, 5 epochs), a share of the run, or "" for none.
        minutes: by the wall clock; 0 for never.
        keep: how many of the newest stay (the best one stays too).
    """

    every: str = ""
    minutes: float = 10.0
    keep: int = 2


@dataclasses.dataclass
class Config:
    """A run.

    Attributes:
        model: what trains.
        data: where examples come from.
        optimizer: adam | adamw | adadelta | sgd, with its own settings.
        batch_size: rows of one update, over all devices.
        micro_batches: cut each batch into this many pieces, one after the other, to save memory.
        compute: float32, or bfloat16 for matrix products over float32 parameters and moments.
        duration: 3000 steps, 50 epochs or 1e6 examples.
        seed: of the initial parameters, the order of the data and all that is drawn.
        mesh: how devices are laid out.
        parallel: pjit (one program over the whole mesh, which the compiler divides) or pmap (one
            program a device with its own collectives; over mesh.data alone).
        evaluation: on the test split, while training.
        checkpoint: when the run is saved.
        log_every: steps of one row of metrics.jsonl.
        trackers: where rows and pictures go as well: tensorboard, wandb, trackio; () for none.
        pretrain: none | greedy: what is trained first, in the folder's stage1, stage2, ...
        init_from: a run's folder to take parameters from, where names and shapes match; of a
            transformer those of a slot only where it holds the same kind of block.
        init_moments: take the optimizer's moments of these parameters too, and its count of steps.
        profile: FIRST:LAST steps of which a profiler trace is written.
        deterministic: the same bits every time on a GPU too (a CPU always gives them).
        compilation_cache: folder that keeps compiled programs from one start to the next; "" for
            none. JAX_COMPILATION_CACHE_DIR, where it is set, comes before it.
        watchdog_minutes: end the process, with every thread's stack, when steps hang this long; 0
            for never.
    """

    model: Any = part(models.KINDS, Autoencoder)
    data: Data = dataclasses.field(default_factory=Data)
    optimizer: Any = part(optimizer.KINDS, Adam)
    batch_size: int = 256
    micro_batches: int = 1
    compute: str = "float32"
    duration: str = "50 epochs"
    seed: int = 0
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    parallel: str = "pjit"
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    log_every: int = 100
    trackers: tuple[str, ...] = ("tensorboard",)
    pretrain: Any = part(pretrain.KINDS, lambda: None)
    init_from: str = ""
    init_moments: bool = False
    profile: str = ""
    deterministic: bool = False
    compilation_cache: str = "~/.cache/aejax"
    watchdog_minutes: float = 30.0


# What may differ when a run's folder is continued: how long, how it is watched, and where it runs.
# The source may have another name (it was moved): the fingerprint of its rows may not change.
MAY_CHANGE = (
    "data.source",
    "duration",
    "evaluation.every",
    "evaluation.patience",
    "evaluation.batch_size",
    "checkpoint",
    "log_every",
    "trackers",
    "profile",
    "mesh",
    "parallel",
    "data.folder",
    "data.feed",
    "data.resident_mib",
    "data.threads",
    "deterministic",
    "compilation_cache",
    "watchdog_minutes",
)

# Names of settings that earlier versions had, and those of now.
RENAMED = {"tensorboard": "trackers", "held": "holdout_fraction"}


def renamed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as an earlier version wrote them, under today's names."""
    settings = {RENAMED.get(name, name): value for name, value in settings.items()}
    if isinstance(settings.get("trackers"), bool):  # whether to write TensorBoard's event files
        settings["trackers"] = ["tensorboard"] * settings["trackers"]
    return settings


_NOT_NEGATIVE = ("learning_rate", "weight_decay", "clip")  # of every optimizer
_DURATION = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*(steps?|epochs?|examples?|%)?\s*", re.I)


def steps_of(setting: str, text: str, batch_size: int, rows: int, total: int | None = None) -> int:
    """Steps of a duration such as "50 epochs", "3000 steps" or "1e6 examples"; at least 1.

    Args:
        setting: its name, for the message.
        text: the duration; a bare number is steps, N% a share of `total`.
        batch_size: rows of one update.
        rows: rows of the training split, which make an epoch.
        total: steps of the run, where a share of it is accepted.

    Raises:
        InputError: not a duration.
    """
    match = _DURATION.fullmatch(text)
    accepted = "such as 3000 steps, 50 epochs or 1e6 examples" + (", or 10%" if total else "")
    if match is None or (match[2] == "%" and total is None):
        raise InputError(f"config.{setting}={text!r}: not a duration, {accepted}")
    try:
        number = float(match[1])
    except ValueError:
        raise InputError(f"config.{setting}={text!r}: not a duration, {accepted}") from None
    unit = (match[2] or "steps").lower()
    if unit == "%":
        number *= (total or 0) / 100
    elif unit.startswith("epoch"):
        number *= rows / batch_size
    elif unit.startswith("example"):
        number /= batch_size
    if not 0 < number < 2**31 - 1:
        raise InputError(f"config.{setting}={text!r}: {number:g} steps; must be 1 to 2^31 - 2")
    # Rounded up, so that "1 epoch" has seen every row; the margin forgives 0.1 * 30 = 3.0000004.
    return max(1, -int(-(number - 1e-6) // 1))


def profile_window(config: Config) -> tuple[int, int] | None:
    """First and last step of `config.profile`, or None."""
    if not config.profile:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", config.profile)
    if match is None or not int(match[1]) < int(match[2]):
        raise InputError(f"config.profile={config.profile}: must be FIRST:LAST steps, as 100:110")
    return int(match[1]), int(match[2])


def check(config: Config) -> None:
    """Checks all that can be wrong in settings alone, without data or devices.

    Raises:
        InputError: with the setting's name, its value and what is accepted.
    """
    optimizers = ("optimizer", *(("pretrain.optimizer",) if config.pretrain is not None else ()))
    for name, least in (
        ("batch_size", 1),
        ("micro_batches", 1),
        ("log_every", 1),
        ("seed", 0),
        ("watchdog_minutes", 0),
        ("evaluation.patience", 0),
        ("evaluation.batch_size", 1),
        ("checkpoint.keep", 1),
        ("checkpoint.minutes", 0),
        ("data.prepare.shift", 0),
        ("data.resident_mib", 0),
        ("data.threads", 1),
        *((f"{one}.{name}", 0) for one in optimizers for name in _NOT_NEGATIVE),
    ):
        value = get(config, name)
        if not value >= least:
            raise InputError(f"config.{name}={value}: must be at least {least}")
    if config.init_moments and not config.init_from:
        raise InputError("config.init_moments=True: needs config.init_from, a run that has them")
    if config.seed >= 2**32:
        raise InputError(f"config.seed={config.seed}: must be below 2^32 = {2**32}")
    for name, accepted in (
        ("data.feed", ("auto", "resident", "streaming")),
        ("parallel", ("pjit", "pmap")),
        ("compute", ("float32", "bfloat16")),
        ("data.prepare.binarise", ("none", "threshold", "sampled")),
        ("data.prepare.centre", ("none", "mean", "standardise")),
    ):
        if get(config, name) not in accepted:
            raise InputError(f"config.{name}={get(config, name)}: must be {' or '.join(accepted)}")
    if config.batch_size % config.micro_batches:
        raise InputError(
            f"config.batch_size={config.batch_size} does not divide into"
            f" config.micro_batches={config.micro_batches} equal pieces"
        )
    for axis in ("data", "fsdp", "tensor"):
        size = getattr(config.mesh, axis)
        if size != -1 and size < 1:
            raise InputError(f"config.mesh.{axis}={size}: must be -1 (the rest) or at least 1")
    for rule in config.mesh.rules:
        _check_rule(rule)
    if config.parallel == "pmap" and (config.mesh.fsdp != 1 or config.mesh.tensor != 1):
        raise InputError(
            f"config.parallel=pmap with config.mesh.fsdp={config.mesh.fsdp} and"
            f" config.mesh.tensor={config.mesh.tensor}: pmap divides rows alone; both must be 1"
        )
    prepare = config.data.prepare
    if prepare.binarise != "none" and not prepare.scale:
        raise InputError(
            f"config.data.prepare.binarise={prepare.binarise} needs config.data.prepare.scale=True"
        )
    if prepare.binarise == "sampled" and prepare.centre != "none":
        raise InputError(
            f"config.data.prepare.centre={prepare.centre} with binarise=sampled: what is drawn anew"
            " each time has no fixed mean to subtract; one of them must be none"
        )
    profile_window(config)
    check_trackers(config.trackers)
    try:
        config.model.check(prepare.scale and prepare.centre == "none")
    except ValueError as error:
        raise InputError(f"config.model.{error}") from None
    if config.pretrain is not None:
        config.pretrain.check(config)
        steps_of(
            "pretrain.duration", config.pretrain.duration, config.batch_size, config.batch_size
        )


def _check_rule(rule: str) -> None:
    pattern, _, axes = rule.partition("=")
    wrong = [axis for axis in axes.split() if axis not in ("data", "fsdp", "tensor", "-")]
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"config.mesh.rules: {rule!r}: {error} in {pattern!r}") from None
    if not axes.split() or wrong:
        raise InputError(
            f"config.mesh.rules: {rule!r}: must be PATTERN=AXIS ..., each axis data, fsdp, tensor"
            f" or -{f'; there is no {wrong[0]!r}' if wrong else ''}"
        )


def get(config: Any, name: str) -> Any:
    """The field at a dotted name."""
    for key in name.split("."):
        config = getattr(config, key)
    return config


def put(config: Any, name: str, value: Any) -> None:
    """Sets the field at a dotted name."""
    *path, last = name.split(".")
    setattr(get(config, ".".join(path)) if path else config, last, value)
