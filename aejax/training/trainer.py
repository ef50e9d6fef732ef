"""The way in: trains the run of a folder, or goes on with it."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable
from typing import Any, Self

import jax

from aejax import cluster
from aejax.callbacks import TRACKERS, Callback, as_callbacks
from aejax.config import Config
from aejax.data.sources import ARRAYS, as_source
from aejax.data.sources.base import Source
from aejax.data.sources.labels import keep_labels
from aejax.errors import InputError
from aejax.mesh import Devices
from aejax.runs import lock, manifests
from aejax.runs.folder import check_places
from aejax.runs.progress import Progress
from aejax.runs.rows_file import cut_metrics
from aejax.runs.tracking import Ledger, Tracker, show
from aejax.training.loop import Loop
from aejax.training.outcome import Outcome
from aejax.training.setup import Setup, setup
from aejax.training.start import InitialParams, newest

# What a training writes in its folder.
_FILES = ("config.json", "metrics.jsonl", ".lock", ".lease")
_FOLDERS = ("checkpoints", "figures")


class _Changed(Exception):
    """Another process has trained in the folder since its checkpoints were looked at."""


Say = Callable[[str], None]
Sources = tuple[Source, Source]


class Trainer:
    """A run in a folder.

        trainer = aejax.Trainer(config, "runs/mine", train=x_train, test=x_test)
        outcome = trainer.fit()

    Flags, searches and pre-training go through it too.
    """

    def __init__(
        self,
        config: Config,
        folder: str,
        train: Any = None,
        test: Any = None,
        *,
        devices: Devices | None = None,
        download: bool = False,
        accept_changed_data: bool = False,
    ):
        """Names the run; nothing is read, written or computed before `fit`.

        Args:
            config: the run's settings.
            folder: the run's folder; made where it does not exist.
            train: rows that train, in place of those that `config.data` names: a NumPy array [rows,
                ...] as it is stored, a pair of it and labels [rows], or a `Source`. config.json
                then says "arrays".
            test: rows that are evaluated; given where `train` is.
            devices: those to train on; None for all.
            download: whether TFDS may download what is missing.
            accept_changed_data: go on, with the old statistics, though the rows are others than
                those that the folder's run was trained on.

        Raises:
            InputError: one split without the other, or something that is no rows.
        """
        sources = None
        if train is not None or test is not None:
            config, sources = given_rows("Trainer", config, train, test)
        self.folder, self._accept_changed_data = str(folder), accept_changed_data
        self._make_setup: Callable[[Say], Setup] = lambda say: setup(
            config,
            sources,
            self.folder,
            download,
            devices,
            accept_changed_data=accept_changed_data,
            say=say,
        )

    @classmethod
    def with_setup(cls, make_setup: Callable[[Say], Setup], folder: str) -> Self:
        """The trainer of a run that something else has set up.

        Args:
            make_setup: called by `fit`; is given where odd things about the data are told.
            folder: as `make_setup` knows it.
        """
        trainer = cls.__new__(cls)
        trainer.folder, trainer._make_setup = folder, make_setup
        trainer._accept_changed_data = False
        return trainer

    def fit(
        self,
        callbacks: Iterable[Any] = (),
        *,
        stop: Callable[[], bool] = cluster.never,
        quiet: bool = False,
        label: str = "",
        started: float | None = None,
        initial_params: InitialParams | None = None,
    ) -> Outcome:
        """Trains to the end, from where the folder's newest good checkpoint is.

        A setting or data that differ from the folder's are refused (`aejax.config.MAY_CHANGE` may
        differ). With `config.pretrain` its stages come first, in folders of their own.

        Args:
            callbacks: functions of a row, or `aejax.callbacks.Callback`.
            stop: asked between dispatches, and while anything is compiled or evaluated. Without it
                Ctrl-C, and a notebook's interrupt, save and stop the run.
            quiet: show nothing.
            label: stands before each line that is shown, of a run that is one of several.
            started: when the process began (`time.monotonic()`), for the ledger.
            initial_params: makes the parameters, by name, that a new run begins with in place of
                fresh or pre-trained ones; others stay fresh.

        Raises:
            InputError: bad settings, data, devices or folder; nothing was computed or written.
            NotFinite: the loss became infinite or not a number.
            OSError: the last checkpoint could not be written.
        """
        with cluster.ctrl_c_stops(stop) as stop:
            told = as_callbacks(callbacks)
            while True:
                try:
                    ledger = Ledger(started)
                    return self._fit(told, stop, quiet, label, ledger, initial_params, started)
                except _Changed:
                    started = None
                except cluster.Stopped:  # before anything was trained
                    return Outcome("stopped", 0, {}, None, ledger.summary(), self.folder)

    def _locked(self, quiet: bool, stop: Callable[[], bool]) -> contextlib.AbstractContextManager:
        """The folder's lock, which process 0 has for all."""
        say = (lambda line: None) if quiet else show
        return (
            lock.locked(self.folder, say, stop) if cluster.is_main() else contextlib.nullcontext()
        )

    def _fit(
        self,
        callbacks: list[Callback],
        stop: Callable[[], bool],
        quiet: bool,
        label: str,
        ledger: Ledger,
        initial_params: InitialParams | None,
        started: float | None,
    ) -> Outcome:
        check_places(self.folder, _FILES, _FOLDERS)
        lines, before = list[str](), manifests.steps(self.folder)
        # What one process interrupts, the others would wait in for ever.
        interrupt = stop if jax.process_count() == 1 else cluster.never
        run_setup, resume_point = cluster.interruptible(
            interrupt,
            lambda: (self._make_setup(lines.append), newest(self.folder, lines.append)),
        )
        config = run_setup.config
        if resume_point is not None:
            if _is_complete(resume_point, run_setup.total, config.evaluation.patience):
                for line in lines if not quiet else ():
                    print(line, file=sys.stderr)
                summary = Ledger.of(resume_point.ledger or Ledger().to_dict()).summary()
                step, metrics, best = resume_point.step, resume_point.metrics, resume_point.best
                return Outcome("complete", step, metrics, best, summary, self.folder)
        elif config.init_from and not manifests.steps(config.init_from):
            raise InputError(
                f"config.init_from={config.init_from}: holds no checkpoint that is whole"
            )
        with self._locked(quiet, interrupt):
            changed = manifests.steps(self.folder) != before
            if cluster.synchronise_control(changed, 0, False)[0]:
                raise _Changed
            if config.pretrain is not None and resume_point is None and initial_params is None:
                accept = self._accept_changed_data
                options = {"stop": stop, "quiet": quiet, "started": started}
                trained = config.pretrain.initial_params(
                    run_setup, self.folder, {**options, "accept_changed_data": accept}
                )
                if isinstance(trained, Outcome):  # a stage was stopped
                    return trained
                initial_params, ledger = trained, Ledger()
            if cluster.is_main():
                manifests.remove_incomplete(self.folder)
                progress = resume_point or Progress()
                lost_at = cut_metrics(self.folder, progress.step, progress.evaluated)
                if progress.ledger is not None:
                    ledger.add(progress.ledger, lost_at)
            # It opens metrics.jsonl, which must have been cut back before.
            tracker = _tracker(self.folder, run_setup, resume_point, callbacks, quiet, label)
            loop = Loop(run_setup, self.folder, tracker, ledger, stop)
            status = "failed"
            try:
                for line in (f"{self.folder}: {run_setup.in_words()}", *lines):
                    tracker.say(line)
                outcome = loop.run(resume_point, initial_params)
                status = outcome.status
                return outcome
            finally:
                loop.close(status)


def _tracker(
    folder: str,
    run_setup: Setup,
    resume_point: Progress | None,
    callbacks: list[Callback],
    quiet: bool,
    label: str,
) -> Tracker:
    main = cluster.is_main()
    return Tracker(
        folder,
        run_setup.total,
        resume_point.step if resume_point else 0,
        [TRACKERS[name][0]() for name in run_setup.config.trackers] if main else [],
        callbacks,
        quiet,
        main,
        label,
    )


def _is_complete(progress: Progress, total: int, patience: int) -> bool:
    # Patience may have changed since: what it says now counts.
    progress.stopped_early = bool(patience) and progress.stale >= patience
    return progress.is_finished(total)


def given_rows(asker: str, config: Config, train: Any, test: Any) -> tuple[Config, Sources]:
    """Settings whose data are rows from Python, and these rows as sources.

    Args:
        asker: what was called, for messages.
        config: of a run; its `data.keep_labels` counts.
        train: an array, or a source; rows that train.
        test: the same; rows that are evaluated.

    Raises:
        InputError: one split without the other, or something that is no rows.
    """
    if (train is None) != (test is None):
        missing, given = ("test", "train") if test is None else ("train", "test")
        raise InputError(f"{missing} is missing: rows are given for {given} and {missing}")
    keep, rows = config.data.keep_labels, {"train": train, "test": test}
    first, second = (
        keep_labels(as_source(f"{asker}({name}=...)", each), keep, name)
        for name, each in rows.items()
    )
    data = dataclasses.replace(config.data, source=ARRAYS)
    return dataclasses.replace(config, data=data), (first, second)
