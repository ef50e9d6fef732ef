"""Evaluates checkpoints of a run's folder: evaluation.json, figures/, codes.npz and report.html."""

import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aejax import files
from aejax.cluster import Stopped, never
from aejax.config import Config
from aejax.data import outliers
from aejax.data.sources import ARRAYS
from aejax.data.sources.base import Source
from aejax.data.sources.splits import WHOLE
from aejax.errors import InputError, near
from aejax.evaluation import TASKS, records, report
from aejax.evaluation.result import Result, shown
from aejax.evaluation.rows import Chosen, check_no_stage, choose_rows, rescaled
from aejax.runs import folder, manifests
from aejax.runs.loading import Model, choose, load
from aejax.runs.progress import Progress

# Tasks that run by default, for autoencoders and for classifiers.
DEFAULT = ("reconstruction", "latent")
DEFAULT_OF_CLASSIFIER = ("classify",)
REPORT = "report.html"
_SECONDS_BETWEEN_LOOKS = 0.5
# A step can be pruned between being chosen and being read; it is chosen anew at most so often.
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory: the model, its manifest's digest, the run's progress there."""

    model: Model
    identity: str
    progress: Progress


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate, checked.

    Attributes:
        workdir: the run's folder, as it was typed.
        tasks: names in `TASKS`.
        rows: to evaluate on.
        options: flags that the report's command needs besides --workdir, --step and --tasks.
        settings: {keyword of a task: its value}.
        watch: iterates over the tasks, and can show progress.
    """

    workdir: str
    tasks: tuple[str, ...]
    rows: Chosen
    options: dict[str, str]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    watch: Callable[[Sequence[str]], Iterable[str]] = iter


def check_request(
    workdir: str,
    tasks: Sequence[str] | None = None,
    source: Any = "",
    split: str = "",
    data_folder: str = "",
    **options: Any,
) -> Request:
    """Checks a request before anything is computed.

    Args:
        workdir: the run's folder.
        tasks: names in `TASKS`; None for the model's default tasks.
        source: rows to evaluate on, by name; "" for the run's own source; an array or a `Source`.
        split: "" for the run's test split, or all rows of another source.
        data_folder: TFDS's data folder; "" for the run's own.
        options: of tasks, by name; None or "" for the default. `train` is the split that a task
            fits: without it the run's own, or train of another source. `train` and `learned`, the
            run's own training split, may be rows as well, of a run that was given its rows.

    Raises:
        InputError: no run, no such task or option, or rows that its model cannot take.
    """
    if tasks is not None:
        check_tasks(tasks)
        if not tasks:
            raise InputError(f"--tasks is empty; accepted: {', '.join(TASKS)}")
    run = folder.read(workdir)
    tasks = default_tasks(run.config) if tasks is None else tasks
    settings = _settings(tasks, options)
    folder.check_places(workdir, (records.RECORD, "codes.npz", REPORT), ("figures",))
    records.read(workdir)
    if not os.access(folder.path(workdir), os.W_OK):
        raise InputError(f"--workdir={workdir}: may not be written to; results belong in it")
    if isinstance(source, str) and not source and run.config.data.source == ARRAYS:
        check_no_stage(workdir)
    rows = choose_rows(run, source, split, data_folder)
    for name in tasks:
        TASKS[name].check_options(run, rows.source.spec, settings)
    named = source if isinstance(source, str) else ARRAYS
    given = {"source": named, "split": split, "folder": data_folder, **settings}
    typed = {
        name: str(value)
        for name, value in given.items()
        if isinstance(value, str | float | int) and value
    }
    takers = {option: _taker(tasks, option) for option in ("train", "learned")}
    if task := takers["train"]:
        split = settings.get("train", "")
        settings["train"] = _training_rows(run, rows, named, data_folder, split, task)
    if task := takers["learned"]:
        # Rows of another source cannot be among those that the run was trained on.
        compared = dataclasses.replace(rows, split="") if named else rows
        split = settings.get("learned", "")
        settings["learned"] = _training_rows(run, compared, "", "", split, task)
    return Request(workdir, tuple(dict.fromkeys(tasks)), rows, typed, settings)


def default_tasks(config: Config) -> tuple[str, ...]:
    """The tasks that run by default for such a model."""
    return DEFAULT_OF_CLASSIFIER if config.model.classes else DEFAULT


def check_tasks(tasks: Sequence[str]) -> None:
    """Raises InputError for an unknown task."""
    for name in tasks:
        if name not in TASKS:
            raise InputError(
                f"--tasks={','.join(tasks)}: there is no task {name!r}; accepted:"
                f" {', '.join(TASKS)}{near(name, TASKS)}"
            )


def _taker(tasks: Sequence[str], option: str) -> str:
    """The first task that takes this option; "" if none does."""
    return next((name for name in tasks if option in TASKS[name].options), "")


def _training_rows(
    run: folder.Run, rows: Chosen, source: str, data_folder: str, train: Any, task: str
) -> Source:
    """The rows to which a task is fitted.

    Raises:
        InputError: there are none, or they include the evaluated rows.
    """
    if not isinstance(train, str):
        return choose_rows(run, train).source
    split = train or ("train" if source else run.config.data.train)
    if rows.split in (WHOLE, split):
        raise InputError(
            f"--split={rows.split}: --tasks={task} fits --train={split}, which these rows are or"
            " hold; must be others, such as --split=test"
        )
    return choose_rows(run, source, split, data_folder).source


def _settings(tasks: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """The tasks' options that have a value.

    Raises:
        InputError: none of the tasks takes one of them, or a number below 1.
    """
    found = {
        name: value
        for name, value in options.items()
        if value is not None and not (isinstance(value, str) and not value)
    }
    for name, value in found.items():
        takers = [task for task in TASKS if name in TASKS[task].options]
        if not set(takers) & set(tasks):
            raise InputError(f"--{name}={value}: is for --tasks={' or '.join(takers)}")
        if isinstance(value, int) and value < 1:
            raise InputError(f"--{name}={value}: must be at least 1")
    return found


def evaluate_request(
    request: Request, step: int | str = "latest", say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Evaluates one checkpoint and writes the results.

    Args:
        request: from `check_request`.
        step: a number, "latest" or "best".
        say: prints a line.

    Returns:
        The record that evaluation.json keeps.

    Raises:
        InputError: no such step, a damaged one, or one that was pruned while it was read.
    """
    for _ in range(_TRIES):
        number = choose(request.workdir, step, say)
        loaded = _read(request.workdir, number, say)
        if loaded is not None:
            return _evaluated(request, loaded, say)
    raise InputError(f"--step={step}: was pruned while it was read; try again, or try latest")


def evaluate(
    workdir: str,
    tasks: Sequence[str] | None = None,
    step: int | str = "latest",
    say: Callable[[str], None] = print,
    **options: Any,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run's folder, and writes the results to the folder.

    Args:
        workdir: the run's folder.
        tasks: names, such as reconstruction, latent or cluster; None for reconstruction and
            latent, or of a classifier classify.
        step: a number, "latest" or "best".
        say: prints a line.
        options: source, split, data_folder, and options of the tasks: the flags of launch.evaluate.

    Returns:
        The record that evaluation.json keeps: {"step", "tasks": {task: {number: value}}, ...}.

    Raises:
        InputError: as `check_request` and `evaluate_request`.
    """
    return evaluate_request(check_request(workdir, tasks, **options), step, say)


def follow(
    request: Request,
    say: Callable[[str], None] = print,
    wait: Callable[[], None] = lambda: time.sleep(_SECONDS_BETWEEN_LOOKS),
    stop: Callable[[], bool] = never,
) -> int:
    """Evaluates each checkpoint once, existing ones first, until the run is complete.

    Args:
        request: from `check_request`.
        say: prints a line.
        wait: called when there is no new checkpoint.
        stop: asked between checkpoints and between waits.

    Returns:
        How many were evaluated.

    Raises:
        Stopped: asked to stop.
    """
    seen: set[int] = set()
    count = 0
    while True:
        there = manifests.steps(request.workdir)
        for step in there:
            if stop():
                raise Stopped
            if step in seen:
                continue
            seen.add(step)
            try:
                loaded = _read(request.workdir, step, say)
            except manifests.DamagedError as error:
                say(f"step {step}: skipped; {error}")
                continue
            if loaded is not None:
                _evaluated(request, loaded, say)
                count += 1
        if manifests.steps(request.workdir) == there:
            if there and _is_last(request.workdir, there[-1]):
                return count
            if stop():
                raise Stopped
            wait()


def _read(workdir: str, step: int, say: Callable[[str], None]) -> Loaded | None:
    """Loads a step; None, after a line, if the trainer has pruned it in the meantime."""
    try:
        identity, progress = manifests.identity(workdir, step), manifests.progress(workdir, step)
        return Loaded(load(workdir, step, say), identity, progress)
    except Exception:
        # The error depends on which file vanished first; it only matters that the step is gone.
        if step in manifests.steps(workdir):
            raise
        say(f"step {step}: skipped; it was pruned while it was read")
        return None


def _is_last(workdir: str, step: int) -> bool:
    """Whether the run has ended with this step."""
    try:
        progress = manifests.progress(workdir, step)
    except manifests.DamagedError:
        return False
    return progress.total is not None and progress.is_finished(progress.total)


def _evaluated(request: Request, loaded: Loaded, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the tasks and writes their results."""
    spec, own = request.rows.source.spec, loaded.model.run.spec
    model = rescaled(loaded.model, spec)
    if model.preparation.settings.scale and spec.maximum != own.maximum:
        top = {True: "the range of the training split", False: "{:g}"}
        words = [top[each is None].format(each) for each in (spec.maximum, own.maximum)]
        say(
            f"these rows are scaled by {words[0]}, the largest value of their type; the run's own"
            f" by {words[1]}"
        )
    results = _results(request, model, say)
    for result in results.values():
        for figure in result.figures:
            files.write(folder.path(request.workdir, "figures", f"{figure.name}.png"), figure.png)
        for sound in result.sounds:
            files.write(folder.path(request.workdir, "figures", f"{sound.name}.wav"), sound.wav)
        for name, text in result.texts.items():
            files.write(folder.path(request.workdir, name), text)
        for name, arrays in result.files.items():
            files.write_arrays(folder.path(request.workdir, name), arrays)
    done = records.write(request.workdir, _record(request, loaded, results))
    about = report.About(request.workdir, model, loaded.progress.total, _commands(request, model))
    files.write(folder.path(request.workdir, REPORT), report.page(about, done, results))
    say(_line(done[-1], results))
    return done[-1]


def _results(request: Request, model: Model, say: Callable[[str], None]) -> dict[str, Result]:
    """The result of each task; rows whose values are not finite are named in a line.

    Raises:
        InputError: a task fails on such rows.
    """
    rows = request.rows
    given = {
        name: {key: value for key, value in request.settings.items() if key in TASKS[name].options}
        for name in request.tasks
    }
    try:
        results = {
            name: TASKS[name].run(
                model, (TASKS[name].every_label and rows.every) or rows.source, **given[name]
            )
            for name in request.watch(request.tasks)
        }
    except InputError:
        raise
    except Exception:  # NumPy, SciPy and scikit-learn raise different errors for such numbers
        if (line := outliers.describe_outliers(model.preparation, rows.source)) is None:
            raise
        raise InputError(
            f"{rows.name}, split {rows.split}: {line}; cannot be evaluated: leave out such rows"
        ) from None
    numbers = [number for result in results.values() for number in result.numbers.values()]
    if any(number.value is None for number in numbers) and (
        line := outliers.describe_outliers(model.preparation, rows.source)
    ):
        say(f"{rows.name}, split {rows.split}: {line}; that is why numbers are not finite")
    return results


def _record(request: Request, loaded: Loaded, results: dict[str, Result]) -> dict[str, Any]:
    return {
        "step": loaded.model.step,
        "parameters": "ema" if loaded.model.averaged else "params",
        "source": request.rows.name,
        "split": request.rows.split,
        "rows": len(request.rows.source),
        "checkpoint": loaded.identity,
        "tasks": {name: result.values() for name, result in results.items()},
        "main": {name: result.main() for name, result in results.items()},
        "percent": {name: result.percent() for name, result in results.items()},
        "notes": {name: result.notes for name, result in results.items()},
    }


def _line(record: dict[str, Any], results: dict[str, Result]) -> str:
    """One line: the step and its main numbers."""
    parts = [
        f"{name} {shown(number.value, number.unit == '%')}"
        for result in results.values()
        for name, number in result.numbers.items()
        if number.main
    ]
    return f"step {record['step']} ({record['parameters']}): {'  '.join(parts)}"


def _commands(request: Request, model: Model) -> dict[str, str]:
    """{what it does: a command}, with paths relative to the current working folder."""
    workdir, step = f"--workdir={request.workdir}", f"--step={model.step}"
    flags = [workdir, step, f"--tasks={','.join(request.tasks)}"]
    flags += [f"--{name}={value}" for name, value in request.options.items()]
    own = [workdir, step, f"--source={model.run.example()}", "--out=codes.npz"]
    return {
        "This report": shlex.join(["python", "-m", "launch.evaluate", *flags]),
        "Codes, reconstructions and errors of your own rows": shlex.join(
            ["python", "-m", "launch.encode", *own]
        ),
    }
