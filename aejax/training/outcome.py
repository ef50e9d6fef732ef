"""How a run ended."""

import dataclasses
import functools
from typing import Any

import numpy as np

from aejax.runs.rows_file import read_history


@dataclasses.dataclass
class Outcome:
    """How a run ended.

    Attributes:
        status: done; complete (there was nothing left to do); stopped (on request, all saved).
        step: updates made; 0 where it stopped before it knew.
        metrics: of the last evaluation on the test split.
        best: {"step", "value"} of config.evaluation.metric, or None.
        ledger: one line about how the time was spent.
        folder: of the run.
    """

    status: str
    step: int
    metrics: dict[str, float]
    best: dict[str, Any] | None
    ledger: str
    folder: str

    @functools.cached_property
    def history(self) -> dict[str, np.ndarray]:
        """The run's rows over all of its starts, as columns: pandas.DataFrame(outcome.history).

        "step" and "split" (train or test) of each row, and a column for each number, NaN where a
        row has none; read from metrics.jsonl.
        """
        return read_history(self.folder)
