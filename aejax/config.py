"""Every setting of a run: nested, typed dataclasses, and what must hold between them.

A preset in `configs` builds a `Config`; flags change its fields (`--config.optimizer=adadelta
--config.optimizer.learning_rate=1.0`); a run's folder keeps it as config.json.
"""

import dataclasses
import re
from typing import Any

from aejax import kinds, models, optimizer
from aejax.callbacks import check_trackers
from aejax.data.settings import Data as Data
from aejax.data.settings import Prepare as Prepare
from aejax.errors import InputError, check_choice, check_least
from aejax.kinds import part
from aejax.mesh import Mesh as Mesh
from aejax.models import Autoencoder
from aejax.optimizer import Adam
from aejax.registry import Kinds, required


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

    def __post_init__(self):
        check_least("patience", self.patience, 0)
        check_least("batch_size", self.batch_size, 1)


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

    def __post_init__(self):
        check_least("minutes", self.minutes, 0)
        check_least("keep", self.keep, 1)


class Pretraining:
    """What gives a run its first parameters. Required: `initial_params`."""

    def check(self, config: "Config") -> None:
        """Raises InputError where it does not suit a run."""

    def unused(self, config: "Config") -> list[str]:
        """What is wrong with settings that would change nothing, a sentence each.

        A new run is refused; one that began with them goes on.
        """
        return []

    @required()
    def initial_params(self, run_setup: Any, workdir: str, options: dict[str, Any]) -> Any:
        """What makes the run's first parameters by name, or the `Outcome` of what was stopped.

        Args:
            run_setup: `aejax.training.setup.Setup` of the run.
            workdir: its folder, which this process holds the lock of.
            options: of `aejax.Trainer` and its `fit`, for what is trained here.
        """
        raise NotImplementedError


PRETRAININGS = Kinds(
    "aejax.pretrains", Pretraining, {"none": None, "greedy": "aejax.pretrain.greedy:Greedy"}
)


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
        parallel: pjit (one program over the whole mesh, which the compiler divides; the gradient of
            recurrent coders is computed as in pmap, unless mesh.tensor is used) or pmap (one
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
    pretrain: Any = part(PRETRAININGS, lambda: None)
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
    kinds.rebuild(config)  # each group of settings checks itself
    try:
        for name, least in (("batch_size", 1), ("micro_batches", 1), ("log_every", 1), ("seed", 0)):
            check_least(name, getattr(config, name), least)
        check_least("watchdog_minutes", config.watchdog_minutes, 0)
        check_choice("parallel", config.parallel, ("pjit", "pmap"))
        check_choice("compute", config.compute, ("float32", "bfloat16"))
    except ValueError as error:
        raise InputError(f"config.{error}") from None
    if config.init_moments and not config.init_from:
        raise InputError("config.init_moments=True: needs config.init_from, a run that has them")
    if config.seed >= 2**32:
        raise InputError(f"config.seed={config.seed}: must be below 2^32 = {2**32}")
    if config.batch_size % config.micro_batches:
        raise InputError(
            f"config.batch_size={config.batch_size} does not divide into"
            f" config.micro_batches={config.micro_batches} equal pieces"
        )
    if config.parallel == "pmap" and (config.mesh.fsdp != 1 or config.mesh.tensor != 1):
        raise InputError(
            f"config.parallel=pmap with config.mesh.fsdp={config.mesh.fsdp} and"
            f" config.mesh.tensor={config.mesh.tensor}: pmap divides rows alone; both must be 1"
        )
    profile_window(config)
    check_trackers(config.trackers)
    prepare = config.data.prepare
    try:
        config.model.check(prepare.scale and prepare.centre == "none")
    except ValueError as error:
        raise InputError(f"config.model.{error}") from None
    if config.data.labels and not config.model.classes:
        raise InputError(
            f"config.data.labels={config.data.labels}: config.model learns from rows alone; must be"
            ' "" for all rows (config.data.train=train[:1%] takes fewer rows)'
        )
    if config.pretrain is not None:
        config.pretrain.check(config)


def get(config: Any, name: str) -> Any:
    """The field at a dotted name."""
    for key in name.split("."):
        config = getattr(config, key)
    return config


def put(config: Any, name: str, value: Any) -> None:
    """Sets the field at a dotted name."""
    *path, last = name.split(".")
    setattr(get(config, ".".join(path)) if path else config, last, value)
