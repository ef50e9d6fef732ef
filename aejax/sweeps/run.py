"""A sweep from its grid to a report; started again, it goes on where it was.

    WORKDIR/runs/NAME/         a run like any other, for each cell
    WORKDIR/cells/NAME.json    what came out of a cell that has ended
    WORKDIR/sweep.json         the same of all cells
    WORKDIR/curves.csv         learning curves, a row a group, split and number of examples
    WORKDIR/report.html        tables and pictures;  figures/
    WORKDIR/claims/NAME/       the lock of the process that trains a cell, or writes the report

A cell that has ended is not trained again. A folder takes more cells, and refuses a grid without
those that have ended in it, so that no result goes lost. Any number of processes may work in one
folder: each takes the first cell that nobody has.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from aejax import cluster, files, kinds
from aejax.config import Config, renamed
from aejax.data.fingerprint import fingerprint
from aejax.data.sources.base import Source
from aejax.errors import InputError
from aejax.evaluation import TASKS, checkpoints
from aejax.mesh import Devices
from aejax.runs import claims, folder, manifests, tracking
from aejax.sweeps import learning, report
from aejax.sweeps.cells import Cell, Grid, cells, with_values
from aejax.training import several
from aejax.training.loop import NotFinite
from aejax.training.setup import Setup, open_sources, seeded, setup
from aejax.training.trainer import Trainer, given_rows

DONE, DIVERGED = "done", "diverged"


@dataclasses.dataclass
class SweepFolder:
    """A sweep that goes on.

    Attributes:
        workdir: its folder.
        tasks: of `aejax.evaluation`, with which each run is evaluated.
        given: training and test split that were given from Python, of all labels, or None.
        stop: asked between dispatches.
        quiet: show nothing.
        download: whether TFDS may download what is missing.
        devices: those to train on; None for all.
        curve: the term of metrics.jsonl whose learning curves are drawn; "" for
            `config.evaluation.metric`.
    """

    workdir: str
    tasks: Sequence[str] = checkpoints.DEFAULT[:1]
    given: tuple[Source, Source] | None = None
    stop: Callable[[], bool] = cluster.never
    quiet: bool = False
    download: bool = False
    devices: Devices | None = None
    curve: str = ""

    def __post_init__(self):
        self._sources: dict[str, tuple[Source, Source]] = {}
        self._fingerprints: dict[str, list[str]] = {}
        self._setups: dict[str, Setup] = {}
        self._failed = False

    def path(self, *names: str) -> str:
        return os.path.join(self.workdir, *names)

    def say(self, line: str) -> None:
        if not self.quiet:
            tracking.show(line)

    def sources(self, config: Config) -> tuple[Source, Source]:
        """The training and the test split; opened once for all cells with the same data."""
        key = json.dumps(kinds.to_dict(config.data))
        if key not in self._sources:
            if self.given is None:
                opened = open_sources(config, os.getcwd(), self.download)[:2]
            else:
                _, opened = given_rows("sweep", config, *self.given)
            self._sources[key] = opened
            self._fingerprints[key] = [fingerprint(source) for source in opened]
        return self._sources[key]

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """What came out of a cell; None where it has not ended with these settings and data."""
        found = self._stored(cell.name)
        if found is None:
            return None
        same = all(found.get(name) == value for name, value in self._identity(cell).items())
        return found if same and {*self.tasks} <= {*found["numbers"]} else None

    def _stored(self, name: str) -> dict[str, Any] | None:
        """What came out of a cell, with whatever settings and data; None where it has not ended."""
        try:
            with open(self.path("cells", f"{name}.json"), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(f"{file.name}: damaged ({error}); move it away") from None

    def check_names(self, names: Sequence[str]) -> None:
        """Refuses a family of runs without those that have ended in this folder.

        Args:
            names: of all cells.

        Raises:
            InputError: names the cells that would be left out.
        """
        others = sorted({*self.ended()} - {*names})
        if others:
            more = f", and {len(others) - 3} more" if len(others) > 3 else ""
            raise InputError(
                f"--workdir={self.workdir} holds a sweep with other runs ({', '.join(others[:3])}"
                f"{more}), which its report would lose: use another folder, or"
                " a sweep that has these too"
            )

    def ended(self) -> list[str]:
        """Names of the cells that have ended in this folder."""
        place = self.path("cells")
        names = os.listdir(place) if os.path.isdir(place) else []
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def check_unchanged(self, each: Sequence[Cell]) -> None:
        """Refuses cells whose runs began in this folder with other settings, or on other rows.

        Raises:
            InputError: names the cell, and each setting with both values.
        """
        for cell in each:
            folder.read_to_resume(self.path("runs", cell.name), cell.config)
            stored = self._stored(cell.name)
            if stored is None:
                continue
            where = f"--workdir={self.workdir} holds a sweep whose {cell.name} has other"
            if changed := folder.differences(renamed(stored["config"]), cell.config):
                raise InputError(
                    f"{where} settings ({'; '.join(changed)}): use another folder, or the old"
                    " values"
                )
            if stored["data"] != self._identity(cell)["data"]:
                raise InputError(f"{where} rows: use another folder, or the old rows")
            old, new = stored["config"]["duration"], cell.config.duration
            if old != new and stored.get("step", 0) > self._setup(cell).total:
                raise InputError(
                    f"--workdir={self.workdir} holds a sweep whose {cell.name} has"
                    f" {stored['step']} steps (config.duration={old}), more than"
                    f" config.duration={new} has: use another folder, or at least as many"
                )

    def _identity(self, cell: Cell) -> dict[str, Any]:
        self.sources(cell.config)
        settings = kinds.to_dict(cell.config)
        return {"config": settings, "data": self._fingerprints[json.dumps(settings["data"])]}

    def prepare(self, todo: Sequence[Cell]) -> None:
        """Sets every cell up, so that what is wrong with one is told before anything is trained."""
        for cell in todo:
            run_setup = self._setup(cell)
            for task in self.tasks:
                TASKS[task].check(run_setup.run(), run_setup.test.spec)

    def check_curve(self, each: Sequence[Cell]) -> None:
        """Refuses a curve of a term that none of these cells would report."""
        if self.curve:
            learning.check_term(self.curve, [t for one in each for t in self._setup(one).terms()])

    def _setup(self, cell: Cell) -> Setup:
        """One of cells that differ in their seeds alone is set up, and compiled, for all."""
        model = kinds.to_dict(dataclasses.replace(cell.config, seed=0))
        key = json.dumps(model)
        if key not in self._setups:
            sources = self.sources(cell.config)
            self._setups[key] = setup(cell.config, sources, devices=self.devices)
        return seeded(self._setups[key], cell.config, self.path("runs", cell.name))

    def run(self, cell: Cell) -> dict[str, Any]:
        """Trains and evaluates a cell.

        Raises:
            Stopped: asked to, with everything saved.
        """
        started, place = time.perf_counter(), self.path("runs", cell.name)
        found = {"name": cell.name, "settings": cell.values, **self._identity(cell)}
        found["shares"] = list(cell.config.model.shares)
        try:
            outcome = Trainer.with_setup(lambda say: self._setup(cell), place).fit(
                stop=lambda: self._failed or self.stop(), quiet=self.quiet, label=cell.name
            )
        except NotFinite as error:
            self.say(f"{cell.name}: {error}")
            found |= {"status": DIVERGED, "metrics": {}, "numbers": dict.fromkeys(self.tasks, {})}
            return self._write(cell, {**found, "main": {}})
        if outcome.status == "stopped":
            raise cluster.Stopped
        rows: dict[str, Any] = {}
        if self.given is not None:
            learned = {"learned", "train"} & {
                each for task in self.tasks for each in TASKS[task].options
            }
            train, test = self.sources(cell.config)
            rows = {"source": test, **dict.fromkeys(learned, train)}
        record = {"tasks": {}, "main": {}, "percent": {}}
        if self.tasks:
            record = checkpoints.evaluate(place, self.tasks, say=lambda line: None, **rows)
        found |= {"status": DONE, "step": outcome.step, "metrics": outcome.metrics}
        found |= {"best": outcome.best, "numbers": record["tasks"], "main": record["main"]}
        found["percent"] = record["percent"]
        found["stages"] = stage_seconds(place)
        seconds = time.perf_counter() - started
        self.say(f"{cell.name}: {report.main_line(found)} ({seconds:.1f} s)")
        return self._write(cell, {**found, "seconds": seconds})

    def _write(self, cell: Cell, found: dict[str, Any]) -> dict[str, Any]:
        files.write(self.path("cells", f"{cell.name}.json"), json.dumps(found, indent=1) + "\n")
        return found

    def claim(self, name: str) -> str:
        """The folder of a lock (`aejax.runs.claims`)."""
        return self.path("claims", name)

    def run_all(self, todo: Sequence[Cell], leave: bool) -> None:
        """Trains and evaluates cells, side by side where they can be, and those that others lose.

        Args:
            todo: cells, some of which may have ended.
            leave: as `several.Shared` takes it.
        """

        def stop_others() -> None:
            self._failed = True

        def work(cell: Cell) -> several.Work:
            known, make = (functools.partial(each, cell) for each in (self.record, self.run))
            return several.Work(self.claim(cell.name), known, make)

        each = [work(cell) for cell in todo]
        shared = several.Shared(each, lambda: self._failed or self.stop(), leave)
        shared.run(self.devices, stop_others)

    def report(self, each: Sequence[Cell], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Writes what came out of cells that have ended; returns what sweep.json holds."""
        rows = self.given[1] if self.given else None
        with claims.wait(self.claim("report"), self.stop):
            return report.write(self.workdir, each, records, rows, self.curve)


def stage_seconds(workdir: str) -> dict[str, float]:
    """{"stage1": seconds, ..., "run": seconds} of a run's own training and of each stage before.

    Wall seconds that the newest checkpoint's ledger counts, over all starts; stages whose folder is
    gone, or whose manifest is damaged, are left out.
    """
    places = {name: os.path.join(workdir, name) for name in os.listdir(workdir)}
    stages = sorted((n for n in places if re.fullmatch(r"stage\d+", n)), key=lambda n: int(n[5:]))
    out = {}
    for name, place in [*((stage, places[stage]) for stage in stages), ("run", workdir)]:
        for step in manifests.steps(place)[-1:]:
            with contextlib.suppress(manifests.DamagedError):
                if ledger := manifests.progress(place, step).ledger:
                    out[name] = round(sum(ledger["seconds"].values()), 3)
    return out


def default_tasks(config: Config) -> tuple[str, ...]:
    """The tasks with which runs of such a model are evaluated where none are named."""
    return checkpoints.default_tasks(config)[:1]


def sweep(
    config: Config,
    grid: Grid,
    workdir: str,
    train: Any = None,
    test: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Trains a run for each combination of settings, and compares them.

        found = aejax.sweep(config, {"model.latent_dim": [32, 16, 8], "seed": range(4)}, "sizes")
        pandas.json_normalize(found["cells"])

    Args:
        config: the settings of every run, but for those of the grid.
        grid: {setting by its dotted name: its values}; settings that change together have a tuple
            of names and tuples of values, {("batch_size", "duration"): [(32, "2 epochs"), ...]}.
        workdir: the sweep's folder; made where it does not exist. The same call goes on; several
            processes that make it share the cells, and each returns when all have ended.
        train: rows that train, as `Trainer` takes them.
        test: rows that are evaluated.
        options: fields of `SweepFolder`: tasks (of a classifier classify), stop, quiet, download,
            devices, curve.

    Returns:
        What sweep.json holds: {"cells": [{"name", "settings", "status", "numbers", ...}], ...}.

    Raises:
        InputError: bad settings, grid, data or folder; nothing was trained.
        Stopped: `stop` said so; everything is saved.
    """
    options = {"tasks": default_tasks(config), **options}
    given = None
    if train is not None or test is not None:
        data = dataclasses.replace(config.data, keep_labels=())  # those of each cell count
        whole, given = given_rows("sweep", dataclasses.replace(config, data=data), train, test)
        data = dataclasses.replace(whole.data, keep_labels=config.data.keep_labels)
        config = dataclasses.replace(whole, data=data)
    job = SweepFolder(str(workdir), given=given, **options)
    each = cells(grid, lambda values: with_values(config, values))
    found = run_cells(job, each)
    assert found is not None  # all cells were this call's
    return found


def run_cells(
    job: SweepFolder, each: list[Cell], index: int | None = None, leave: bool = False
) -> dict[str, Any] | None:
    """Trains the cells that have not ended, and reports when all have.

    Args:
        job: the sweep.
        each: all of its cells.
        index: the one cell to train, by its place; None for all.
        leave: end where other processes train all cells that are left, in place of waiting.

    Returns:
        What sweep.json holds; None where cells of other processes have not ended.

    Raises:
        InputError: no such cell, task or term, what is wrong with one of the runs, a folder of
            another sweep, or the one cell is another process's.
        Stopped: asked to, with everything saved.
    """
    checkpoints.check_tasks(job.tasks)
    if index is not None and not 0 <= index < len(each):
        raise InputError(f"--index={index}: must be from 0 to {len(each) - 1}, of {len(each)} runs")
    job.check_names([cell.name for cell in each])
    job.check_unchanged(each)
    mine = each if index is None else [each[index]]
    todo = [cell for cell in mine if job.record(cell) is None]
    job.prepare(todo)
    if len(todo) == len(each):  # else the report checks by what the runs have written
        job.check_curve(todo)
    with cluster.ctrl_c_stops(job.stop) as job.stop:
        job.say(f"{len(each)} runs, {len(mine) - len(todo)} of {len(mine)} here have ended before")
        job.run_all(todo, leave or index is not None)
        records = [job.record(cell) for cell in each]
        ended = [one for one in records if one is not None]
        if len(ended) == len(each):
            return job.report(each, ended)
    left = f"{len(each) - len(ended)} of {len(each)} runs"
    if index is None:
        job.say(f"{left} are being trained by other workers; the last of them reports")
    elif records[index] is None:
        raise InputError(f"--index={index}: another process is training {each[index].name}")
    else:
        job.say(f"{left} have not ended; no report yet")
    return None
