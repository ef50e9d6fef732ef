"""The loop: many steps to a dispatch, and between dispatches what is due.

Order at a step: log row, evaluation, save. A checkpoint therefore never stands before the rows of
metrics.jsonl up to its step, and a run that is killed anywhere goes on to the same bits.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from aejax import cluster
from aejax.cluster import Stopped
from aejax.data.feed import to_device
from aejax.data.outliers import describe
from aejax.runs import checkpoint, folder, manifests
from aejax.runs.progress import Progress
from aejax.runs.tracking import Ledger, Tracker, metrics_line
from aejax.training.dispatch import ROWS
from aejax.training.outcome import Outcome
from aejax.training.profile import Trace
from aejax.training.setup import Setup
from aejax.training.start import InitialParams, parts, start
from aejax.training.state import TrainState, Window
from aejax.training.validation import Validation
from aejax.training.watchdog import Watchdog

# A dispatch is kept under this: a signal waits for at most two of them.
_DISPATCH_SECONDS = 0.5


class NotFinite(RuntimeError):
    """The loss, or the parameters, are no longer numbers."""


class Loop:
    """The loop's variables, so that what is due can be short functions."""

    def __init__(
        self, run_setup: Setup, workdir: str, tracker: Tracker, ledger: Ledger, stop: Callable
    ):
        self.setup, self.config, self.workdir = run_setup, run_setup.config, workdir
        self.tracker, self.ledger, self.stop = tracker, ledger, stop
        # What one process interrupts, the others would wait in for ever.
        self.interrupt = stop if jax.process_count() == 1 else cluster.never
        self.saver = checkpoint.Saver(
            workdir, self.config.checkpoint.keep, tracker.say, tracker.saved
        )
        self.state: TrainState  # from `begin` on; donated to each dispatch, and replaced by it
        self.progress = Progress()
        self.running = False  # from `begin` on the folder has its config.json
        # Made beside the first steps, and waited for where they are needed.
        self.validation: Future[Validation]
        # Whether all parameters were finite after the last processed dispatch.
        self.finite = True
        self.step = 0
        self.trace = Trace(run_setup.profile, workdir, self.sync, tracker.say)
        self.saved: int | None = None  # the last step that was handed to the saver
        self.evaluated = 0  # the last step that was evaluated before that
        self.saved_at = cluster.clock()
        self.launcher = ThreadPoolExecutor(1)
        # The dispatch whose report is not processed yet.
        self.pending: tuple[int, int, Future[Any]] | None = None
        self.seconds_a_step: float | None = None
        self.watchdog = Watchdog(self.config.watchdog_minutes)
        self.seen_at = self.row_at = cluster.clock()
        self.row_step = 0
        # A number on the devices, sent once: an implicit transfer would wait for the host.
        self.number = functools.lru_cache(10_000, typed=True)(
            lambda value: to_device(np.asarray(value), run_setup.replicated)
        )

    def run(
        self,
        resume_point: Progress | None,
        initial_params: InitialParams | None,
    ) -> Outcome:
        """Trains from the folder's checkpoint, or from these parameters, to the end."""
        status = "stopped"
        try:
            self.begin(resume_point, initial_params)
            status = self.steps()
        except Stopped:
            pass
        finally:
            self.trace.end()
        if self.running:
            self.sync()
            self.tracker.wait(drawn=True)
            self.saver.wait_and_report()
            self.saver.poll()
            if self.saver.failed:  # whatever step it was: this one is tried once more
                self.saved = None
            self.save()
            with self.ledger.counting("checkpoints"):
                self.saver.wait()
                # One that left while process 0 writes its manifest would be missed.
                cluster.barrier("saved")
        progress = self.progress
        return Outcome(
            status,
            self.step,
            progress.metrics,
            progress.best,
            self.ledger.summary(),
            self.workdir,
        )

    def begin(
        self,
        resume_point: Progress | None,
        initial_params: InitialParams | None,
    ) -> None:
        """Makes or restores the state, sends the data over and compiles, side by side."""
        run_setup = self.setup
        say = self.tracker.say
        self.feed = cluster.interruptible(self.interrupt, run_setup.open_feed)
        self.ledger.enter("compilation")
        pool = ThreadPoolExecutor()
        steps = pool.submit(run_setup.compile, self.feed)
        begun = pool.submit(start, run_setup, self.workdir, resume_point, initial_params, say)
        self.validation = pool.submit(run_setup.validation)
        pool.submit(checkpoint.library)
        begun = cluster.interruptible(self.interrupt, begun.result)
        self.state, self.progress = begun.state, begun.progress
        self.step = self.row_step = self.progress.step
        if begun.restored:
            self.saved, self.evaluated = self.step, self.progress.evaluated
            say(f"going on at step {self.step} of {run_setup.total}")
            before = self.progress.total
            if before != run_setup.total:
                say(f"the run is now {run_setup.total} steps long, not {before}: schedules follow")
        self.progress.total = run_setup.total
        self.dispatch_steps = cluster.interruptible(self.interrupt, steps.result)
        if cluster.is_main():  # from here on the run is known to start
            folder.write(self.workdir, run_setup.run())
        self.running = True
        self.tracker.start(self.config)
        self.ledger.enter("other")

    def close(self, status: str) -> None:
        """Ends what runs beside the loop, and tells how the run ended."""
        self.launcher.shutdown()
        self.watchdog.stop()
        self.saver.wait_and_report()
        if cluster.is_main():
            manifests.remove_incomplete(self.workdir)
        if hasattr(self, "feed"):
            self.feed.close()
        self.tracker.close(status)

    def steps(self) -> str:
        """Dispatches until the end; what is due comes between dispatches."""
        while True:
            self.synchronise_control()
            self.evaluate_and_save_if_due()
            if self.stopping:
                raise Stopped
            if self.step >= self.setup.total or self.progress.stopped_early:
                return "done"
            self.dispatch()

    def synchronise_control(self) -> None:
        """Agrees with the other processes on what depends on clocks and signals."""
        limit = 1
        if self.seconds_a_step is not None:
            limit = max(1, int(_DISPATCH_SECONDS / max(self.seconds_a_step, 1e-9)))
        if self.tracker.callbacks:  # of process 0: one may stop the run after any row
            limit = min(limit, self.config.log_every - self.step % self.config.log_every)
        minutes = self.config.checkpoint.minutes
        save = minutes > 0 and cluster.clock() - self.saved_at > 60 * minutes
        stop = self.stop() or self.tracker.stop_requested()
        self.stopping, self.limit, self.clock_says_save = cluster.synchronise_control(
            stop, limit, save
        )

    def evaluate_and_save_if_due(self) -> None:
        """Evaluates and saves if either is due at this step."""
        self.saver.poll()
        every = self.setup.every
        if self.step > self.progress.evaluated and (
            self.step == self.setup.total or _is_multiple(self.step, every["evaluation"])
        ):
            self.sync()
            self.evaluate()
        if (
            _is_multiple(self.step, every["checkpoint"])
            or self.progress.best == {**(self.progress.best or {}), "step": self.step}
            or self.clock_says_save
        ):
            self.sync()
            self.save()

    def dispatch(self) -> None:
        """Sends off the next steps, then looks at those before."""
        with self.ledger.counting("data wait"):
            block = self.feed.at(self.step)
        self.trace.at(self.step)
        self.watchdog.reset()
        with self.ledger.counting("steps"):
            if self.pending is None:
                self.seen_at = cluster.clock()
            n = min(self.boundary(), block.last, self.step + self.limit) - self.step
            numbers = (
                self.number(np.int32(block.first)),
                self.number(np.int32(n)),
                self.number(np.int32(min(self.config.log_every, self.setup.total))),
            )
            report = self.launcher.submit(self.launch, block.arrays, *numbers)
            if jax.process_count() > 1:  # all of them start their programs in the same order
                report.result()
            before, self.pending = self.pending, (self.step, self.step + n, report)
            self.step += n
            if before is not None:
                self.process_report(*before)

    def launch(self, block: Any, *numbers: jax.Array) -> Any:
        """Runs in a thread: a GPU's loop of a traced length blocks the host while it runs."""
        self.state, report = self.dispatch_steps(self.state, block, *numbers)
        return report

    def boundary(self) -> int:
        """The next step at which something is due."""
        log_every = self.config.log_every
        steps = [self.step - self.step % log_every + ROWS * log_every]
        steps += [self.step - self.step % n + n for n in self.setup.every.values() if n]
        steps += [step for step in self.setup.profile or () if step > self.step]
        return min(self.setup.total, *steps)

    def sync(self) -> None:
        """Waits for the devices, looks at the last dispatch, waits until its row stands."""
        with self.ledger.counting("steps"):
            pending, self.pending = self.pending, None
            if pending is not None:
                self.process_report(*pending)
            self.tracker.wait()

    def process_report(self, first: int, last: int, launched: Future[Any]) -> None:
        """Waits for a dispatch; checks its losses; writes its rows, its time spread evenly."""
        report = jax.device_get(launched.result())
        self.finite = bool(report.finite)
        now = cluster.clock()
        self.seconds_a_step, self.seen_at = (now - self.seen_at) / (last - first), now
        rate = self.config.batch_size / max(self.seconds_a_step, 1e-9)
        log_every, seconds = self.config.log_every, self.ledger.total()
        ends = [*range(first - first % log_every + log_every, last, log_every), last]
        rows, means = [], {}
        try:
            for begin, end, packed in zip([first, *ends], ends, report.rows, strict=False):
                window = self.setup.state.window.unpack(packed)
                steps = int(window.steps)
                means = {name: float(value) / steps for name, value in window.sums.items()}
                if not all(math.isfinite(value) for value in means.values()):
                    where = f"the loss in steps {begin + 1} to {end}"
                    raise NotFinite(self.not_finite(where, means))
                ago = (last - end) * self.seconds_a_step
                if end % log_every == 0 or end == self.setup.total:
                    rows.append(self.row(end, now - ago, seconds - ago, means, window))
        finally:
            if rows and cluster.is_main():
                self.tracker.rows(rows)
        left = (self.setup.total - last) * self.seconds_a_step
        self.tracker.progress(last, means["loss"], rate, left)

    def row(
        self, step: int, at: float, seconds: float, means: dict[str, float], window: Window
    ) -> dict[str, Any]:
        """A row of metrics.jsonl about the training split, at a time of `cluster.clock`."""
        examples = (step - self.row_step) * self.config.batch_size
        rate = examples / max(at - self.row_at, 1e-9)
        self.row_at, self.row_step = at, step
        return {
            "step": step,
            "split": "train",
            **means,
            "learning_rate": float(window.learning_rate),
            "examples_per_second": round(rate, 1),
            "seconds": round(seconds, 3),
        }

    def evaluate(self) -> None:
        """Evaluates on the test split; keeps the best metric and counts evaluations without."""
        self.watchdog.stop()
        params = self.state.ema or self.state.params
        with self.ledger.counting("compilation"):
            validation = cluster.interruptible(self.interrupt, self.validation.result)
        with self.ledger.counting("evaluation"):
            metrics = validation(params, self.state.model_state, self.interrupt)
            image = validation.picture(params, self.state.model_state)
        if not self.finite:
            raise NotFinite(self.not_finite(f"the parameters at step {self.step}", {}))
        progress, value = self.progress, metrics[self.config.evaluation.metric]
        rows = None
        if not all(map(math.isfinite, metrics.values())):
            rows = validation.not_finite_rows(params, self.state.model_state)
        progress.evaluated = self.step
        progress.metrics = {name: each for name, each in metrics.items() if math.isfinite(each)}
        if math.isfinite(value) and (progress.best is None or value < progress.best["value"]):
            progress.best, progress.stale = {"step": self.step, "value": value}, 0
        else:
            progress.stale += 1
        patience = self.config.evaluation.patience
        progress.stopped_early = bool(patience) and progress.stale >= patience
        if cluster.is_main():
            seconds = round(self.ledger.total(), 3)
            self.tracker.rows([{"step": self.step, "split": "test", **metrics, "seconds": seconds}])
            if image is not None:
                last = self.step == self.setup.total or progress.stopped_early
                self.tracker.picture("reconstruction", image, self.step, last)
            shown = metrics_line(metrics, self.config.model.shares)
            self.tracker.say(f"step {self.step}  test: {shown}")
            if rows is not None:
                where = describe(self.setup.preparation, self.setup.test, rows) or "no row alone"
                self.tracker.say(
                    f"the evaluation at step {self.step} is not finite because of the test split's"
                    f" {where}; the parameters are, and the training goes on"
                )
            if progress.stopped_early:
                metric = self.config.evaluation.metric
                self.tracker.say(f"{patience} evaluations without a better {metric}: stopping")

    def save(self) -> None:
        """Starts to save this step; where it stands, notes an evaluation made since."""
        there = self.saved == self.step
        if there and self.evaluated == self.progress.evaluated:
            return
        with self.ledger.counting("checkpoints"):
            if not self.finite:
                raise NotFinite(self.not_finite(f"the parameters at step {self.step}", {}))
            self.progress.step = self.step
            self.progress.ledger = self.ledger.to_dict()
            if there:
                self.saver.update_progress(self.step, self.progress)
            else:
                self.saver.save(self.step, parts(self.state), self.progress)
            self.saved, self.saved_at = self.step, cluster.clock()
            self.evaluated = self.progress.evaluated

    def not_finite(self, what: str, values: dict[str, float]) -> str:
        """The message of a run whose numbers went wrong."""
        self.saver.wait_and_report()
        good = manifests.steps(self.workdir)
        bad = ", ".join(
            f"{name} {value}" for name, value in values.items() if not math.isfinite(value)
        )
        return (
            f"{what}: not finite{f' ({bad})' if bad else ''};"
            f" the last good checkpoint is {f'step {good[-1]}' if good else 'none'}"
        )


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step > 0 and step % every == 0
