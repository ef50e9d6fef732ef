"""Evaluation of checkpoints: one file a task, and what writes and reports their results.

A task is a function `task(model, source) -> Result` with an entry in `TASKS`. Each further keyword
is a flag of launch.evaluate of the same name.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from aejax.data.sources.base import Spec
from aejax.evaluation import (
    anomaly,
    classify,
    cluster,
    compress,
    denoise,
    generate,
    latent,
    likelihood,
    pca,
    probe,
    rbm,
    reconstruction,
)
from aejax.evaluation.result import Figure, Number, Result, Sound, Table
from aejax.runs.folder import Run

__all__ = ["TASKS", "Figure", "Number", "Result", "Sound", "Table", "Task"]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        run: (model, source, and options by keyword) -> Result.
        check: (run, spec of the rows, and some of the options) raises InputError where it cannot
            be done; nothing has been computed then.
        every_label: whether it is given the rows that the run's `data.keep_labels` leaves out.
    """

    run: Callable[..., Result]
    check: Callable[..., None] = lambda run, spec: None
    every_label: bool = False

    def check_options(self, run: Run, spec: Spec, given: dict[str, Any]) -> None:
        """Raises InputError where it cannot be done with these of all options."""
        names = list(inspect.signature(self.check).parameters)[2:]
        self.check(run, spec, **{name: given[name] for name in names if name in given})

    @property
    def options(self) -> tuple[str, ...]:
        """Names of its keywords; `train` is given a Source, by the split of that name, and
        `learned` the run's own training split."""
        return tuple(inspect.signature(self.run).parameters)[2:]


TASKS: dict[str, Task] = {
    "reconstruction": Task(reconstruction.task, reconstruction.check),
    "latent": Task(latent.task, latent.check),
    "pca": Task(pca.task, pca.check),
    "likelihood": Task(likelihood.task, likelihood.check),
    "probe": Task(probe.task, probe.check),
    "generate": Task(generate.task, generate.check),
    "compress": Task(compress.task, compress.check),
    "anomaly": Task(anomaly.task, anomaly.check, every_label=True),
    "cluster": Task(cluster.task, cluster.check),
    "denoise": Task(denoise.task, denoise.check),
    "rbm": Task(rbm.task, rbm.check),
    "classify": Task(classify.task, classify.check),
}
