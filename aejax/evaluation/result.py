"""What an evaluation's task gives: numbers that explain themselves, pictures, arrays, and notes."""

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
        unit: what it is counted in; "" for a pure number.
        meaning: one line.
        main: whether lines and tables that compare checkpoints show it.
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
        caption: what is to be seen, in plain text.
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
        caption: what is to be heard, in plain text.
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
    """What a task gives: `task(model, source) -> Result`.

    Attributes:
        numbers: by name.
        figures: in their order.
        files: {name of an .npz file in the run's folder: its arrays by name}.
        texts: {name of a text file in the run's folder: what it holds}.
        notes: what was left out and why, and how what is there was counted; a sentence each.
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


def shown(value: float | int | None) -> str:
    """A number for people: five digits, or as it is where it is whole."""
    if value is None:
        return "not finite"
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def need_autoencoder(run: Run, asker: str) -> None:
    """Raises InputError where a run's model has no encode and decode.

    Args:
        run: what config.json holds.
        asker: the task or program that cannot do without.
    """
    if not run.config.model.decodes:
        kind = KINDS.name(run.config.model)
        raise InputError(
            f"{asker}: config.model is {kind}, which has no encode() and decode()"
            f"{'; accepted: --tasks=classify' if run.config.model.classes else ''}"
        )


def need_whole(spec: Spec, asker: str) -> None:
    """Raises InputError where rows have padding, or missing values."""
    if spec.padded:
        raise InputError(f"{asker}: rows have a length each; must be whole")
    if spec.missing:
        raise InputError(f"{asker}: values are missing in these rows; must be whole")
