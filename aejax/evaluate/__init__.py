"""Evaluation of checkpoints: one file a task, and what writes and reports their results.

A task is a function `task(model, source) -> Result`; it is known once it stands in `TASKS`.
"""

from collections.abc import Callable

from aejax.data.sources.base import Source
from aejax.evaluate import latent, pca, reconstruction
from aejax.evaluate.result import Figure, Number, Result
from aejax.loading import Model

__all__ = ["TASKS", "Figure", "Number", "Result"]

Task = Callable[[Model, Source], Result]

TASKS: dict[str, Task] = {
    "reconstruction": reconstruction.task,
    "latent": latent.task,
    "pca": pca.task,
}
