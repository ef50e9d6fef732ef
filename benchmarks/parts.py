"""CPU time of what runs beside the compiled dispatches of a training, part by part.

    python -m benchmarks.parts [--rounds=20] [--data=FOLDER]

FOLDER has MNIST's IDX files. The run is that of `benchmarks.peers --what=dense`: 784-32-784, rounds
of five epochs, each with 15 rows of metrics, TensorBoard, an evaluation with its picture and a
checkpoint. Each part's functions add up the CPU time of their thread, without that of other parts
inside. Orbax works in threads of its own as well, so that a checkpoint is also timed alone, by the
CPU time of the process; these are the milliseconds of `checkpoints`.

CPU time hardly depends on what else a machine does. `share` is that of two cores over a round of
the compiled dispatch alone, which is timed by the clock: take it on a quiet machine.
"""

import collections
import contextlib
import functools
import gc
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import app, flags

from aejax import callbacks
from aejax.config import Config
from aejax.data import feed
from aejax.runs import checkpoint, manifests, tracking
from aejax.runs.progress import Progress
from aejax.training import loop, start
from aejax.training.setup import setup
from aejax.training.trainer import Trainer
from aejax.training.validation import Validation
from benchmarks.dispatch import Dispatch
from benchmarks.peers import aejax_trainer, worker
from benchmarks.turns import machine

_ROUNDS = flags.DEFINE_integer("rounds", 20, "Of the training.", lower_bound=2)
_DATA = flags.DEFINE_string(
    "data", None, "Folder with MNIST's IDX files. Default: mnist/ in the folder AEJAX_DATA."
)
_EPOCHS, _SAVES = 5, 20
# Functions of each part; a checkpoint's are those of its thread and of the loop's.
_PARTS: dict[str, list[tuple[Any, str]]] = {
    "loop": [(loop.Loop, "dispatch"), (loop.Loop, "synchronise_control")],
    "launching": [(loop.Loop, "launch")],
    "reports": [(loop.Loop, "process_report")],
    "rows": [(tracking.Tracker, "rows"), (tracking.Tracker, "_write")],
    "tensorboard": [(callbacks.TensorBoard, "on_row"), (callbacks.TensorBoard, "on_picture")],
    "indices": [(feed.Resident, "at")],
    "evaluation": [(loop.Loop, "evaluate")],
    "pictures": [(Validation, "picture"), (tracking.Tracker, "_draw")],
    "checkpoints": [
        (loop.Loop, "save"),
        (checkpoint, "_begin"),
        (checkpoint, "_commit"),
        (manifests, "write"),
        (manifests, "prune"),
    ],
}


class CpuTime:
    """Seconds of CPU by part; what one part calls of another counts there alone."""

    def __init__(self):
        self.seconds: collections.Counter[str] = collections.Counter()
        self._thread = threading.local()

    def _enter(self, part: str | None) -> str | None:
        """Counts as this part from now on; returns what counted before."""
        now = time.thread_time()
        before = getattr(self._thread, "part", None)
        if before is not None:
            self.seconds[before] += now - self._thread.since
        self._thread.part, self._thread.since = part, now
        return before

    @contextlib.contextmanager
    def counting(self, part: str) -> Iterator[None]:
        before = self._enter(part)
        try:
            yield
        finally:
            self._enter(before)

    def wrapped(self, part: str, function: Callable) -> Callable:
        """The function, whose time counts as this part."""

        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            with self.counting(part):
                return function(*arguments, **options)

        return run

    def garbage(self) -> Callable[[str, Any], None]:
        """What `gc.callbacks` takes."""
        before = None

        def count(phase: str, _: Any) -> None:
            nonlocal before
            if phase == "start":
                before = self._enter("garbage collection")
            else:
                self._enter(before)

        return count


def training(config: Config) -> collections.Counter[str]:
    """Seconds of CPU by part."""
    cpu = CpuTime()
    for part, functions in _PARTS.items():
        for owner, name in functions:
            setattr(owner, name, cpu.wrapped(part, getattr(owner, name)))
    steps, collected = loop.Loop.steps, cpu.garbage()

    def counted(self: loop.Loop) -> str:
        cpu.seconds.clear()
        gc.callbacks.append(collected)
        try:
            return steps(self)
        finally:
            gc.callbacks.remove(collected)

    loop.Loop.steps = counted
    with tempfile.TemporaryDirectory() as folder:
        Trainer(config, folder, devices=jax.devices()[:1]).fit(quiet=True)
    return cpu.seconds


def one_save(config: Config) -> float:
    """Seconds of CPU of the whole process in a save of this run's state."""
    state = setup(config, devices=jax.devices()[:1]).init()
    with tempfile.TemporaryDirectory() as folder:
        saver, taken = checkpoint.Saver(folder, 3, print), []
        for step in range(_SAVES):
            since = time.process_time()
            saver.save(step, start.parts(state), Progress())
            saver.wait()
            taken.append(time.process_time() - since)
        return statistics.median(taken)


def one_round(config: Config, steps: int) -> float:
    """Seconds of a round of the compiled dispatch alone, the best of five."""
    dispatch = Dispatch(setup(config, devices=jax.devices()[:1]))
    state, taken = dispatch.init(), []
    for _ in range(6):
        since = time.monotonic()
        state, report = dispatch(state, steps)
        dispatch.mean_loss(report)
        taken.append(time.monotonic() - since)
    return min(taken[1:])


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1:]}: there are flags alone")
    data = _DATA.value or os.path.join(os.environ.get("AEJAX_DATA", ""), "mnist")
    given = {"network": "dense", "optimizer": "adam", "seed": 0, "data": os.path.abspath(data)}
    given |= {"feed": "resident", "epochs": _EPOCHS, "rounds": _ROUNDS.value}
    config, steps = aejax_trainer.in_rounds(given, len(worker.images(data, "train")))
    seconds, save = one_round(config, steps), one_save(config)
    beside = {part: each / _ROUNDS.value for part, each in training(config).items()}
    beside["checkpoints"] = save
    both = 2 * seconds
    result = {
        "benchmark": "parts",
        **machine(),
        "rounds": _ROUNDS.value,
        "milliseconds_a_round": round(1e3 * seconds, 1),
        "cpu_milliseconds_a_round": {
            part: round(1e3 * each, 2) for part, each in sorted(beside.items())
        },
        "share": {part: round(each / both, 4) for part, each in sorted(beside.items())},
        "share_of_all": round(sum(beside.values()) / both, 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
