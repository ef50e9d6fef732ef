"""Evaluation of checkpoints: one file a task, and what writes and reports their results.

A task is a function `task(model, source) -> Result`; it is known once it stands in `TASKS`. What it
takes by keyword beside, launch.evaluate's flags of the same names, stands in `TAKES`.
"""

from collections.abc import Callable

from aejax.evaluation import generate, latent, likelihood, pca, probe, reconstruction
from aejax.evaluation.result import Figure, Number, Result

__all__ = ["TAKES", "TASKS", "Figure", "Number", "Result"]

Task = Callable[..., Result]

TASKS: dict[str, Task] = {
    "reconstruction": reconstruction.task,
    "latent": latent.task,
    "pca": pca.task,
    "likelihood": likelihood.task,
    "probe": probe.task,
    "generate": generate.task,
}

# {task: its keywords}
TAKES: dict[str, tuple[str, ...]] = {"likelihood": ("samples",), "probe": ("train",)}
