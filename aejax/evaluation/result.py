"""The result of an evaluation's task: numbers with their meaning, pictures, arrays, and notes."""

import dataclasses
import math

import numpy as np

from aejax.data.sources.base import Spec
from aejax.errors import InputError
from aejax.models import KINDS
from aejax.runs.folder import Run


@dataclasses.dataclass(frozen=True)
class Number:
    """One result.

    Attributes:
        value: the number; None where it is not finite.
        unit: its unit; "" for none.
        meaning: one line.
        main: whether it is shown in summaries and comparisons of checkpoints.
    """

    value: float | int | None
    unit: str
    meaning: str
    main: bool = False

    def __post_init__(self):
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)


@dataclasses.dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        name: of its file in figures/, without ".png".
        png: the file.
        caption: what it shows, in plain text.
    """

    name: str
    png: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class Sound:
    """Something to listen to.

    Attributes:
        name: of its file in figures/, without ".wav".
        wav: the file.
        caption: what it is, in plain text.
    """

    name: str
    wav: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers that are read side by side.

    Attributes:
        caption: what they are, in plain text.
        head: a name a column.
        rows: of texts, one a column.
    """

    caption: str
    head: list[str]
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a task, `task(model, source) -> Result`.

    Attributes:
        numbers: by name.
        figures: in their order.
        files: {name of an .npz file in the run's folder: its arrays by name}.
        texts: {name of a text file in the run's folder: its contents}.
        notes: sentences on what was left out and why, and on how numbers were computed.
        tables: of the report, above the figures.
        sounds: of the report, below the figures.
    """

    numbers: dict[str, Number]
    figures: list[Figure] = dataclasses.field(default_factory=list)
    files: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: list[Table] = dataclasses.field(default_factory=list)
    sounds: list[Sound] = dataclasses.field(default_factory=list)

    def values(self) -> dict[str, float | int | None]:
        """The bare numbers by name."""
        return {name: number.value for name, number in self.numbers.items()}

    def main(self) -> list[str]:
        """Names of the numbers that lines and tables show."""
        return [name for name, number in self.numbers.items() if number.main]

    def percent(self) -> list[str]:
        """Names of the numbers that are in %."""
        return [name for name, number in self.numbers.items() if number.unit == "%"]


def shown(value: float | int | None, percent: bool = False) -> str:
    """A number as text, with five digits; integers in full; with the sign where it is in %."""
    if value is None:
        return "not finite"
    return (str(value) if isinstance(value, int) else f"{value:.5g}") + " %" * percent


def need_autoencoder(run: Run, asker: str) -> None:
    """Raises InputError if a run's model has no encode and decode.

    Args:
        run: contents of config.json.
        asker: the task or program that needs them.
    """
    if not run.config.model.decodes:
        kind = KINDS.name(run.config.model)
        raise InputError(
            f"{asker}: config.model is {kind}, which has no encode() and decode()"
            f"{'; accepted: --tasks=classify' if run.config.model.classes else ''}"
        )


def need_whole(spec: Spec, asker: str) -> None:
    """Raises InputError if rows have padding, or missing values."""
    if spec.padded:
        raise InputError(f"{asker}: rows have a length each; must be whole")
    if spec.missing:
        raise InputError(f"{asker}: values are missing in these rows; must be whole")
