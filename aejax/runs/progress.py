"""How far a run has come: what each checkpoint keeps beside its arrays."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: updates made.
        evaluated: step of the last evaluation.
        best: {"step", "value"} of config.evaluation.metric, or None.
        stale: evaluations since the best one.
        stopped_early: whether config.evaluation.patience ended the run.
        metrics: of the last evaluation.
        ledger: `Ledger.to_dict` of all starts up to here, or None.
        total: steps of the whole run, as it was planned then; None where nobody knew.
    """

    step: int = 0
    evaluated: int = 0
    best: dict[str, Any] | None = None
    stale: int = 0
    stopped_early: bool = False
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    ledger: dict[str, Any] | None = None
    total: int | None = None

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "Progress":
        """What a manifest holds; keys that this version does not know are left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in names})

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain JSON values."""
        return dataclasses.asdict(self)

    def is_finished(self, total: int) -> bool:
        """Whether all steps are made and evaluated, or none are to be made by early stopping."""
        # One that was stopped in its last evaluation has that left to do.
        made = self.step > total or self.step == total == self.evaluated
        return made or self.stopped_early
