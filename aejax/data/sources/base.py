"""What a source of examples is: rows with random access, and a description of one row."""

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np


class Rows(NamedTuple):
    """Raw examples, as stored.

    Attributes:
        x: array [rows, *shape] of the source's dtype.
        label: int array [rows], or None where the source has no labels.
    """

    x: np.ndarray
    label: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Spec:
    """One raw row of a source.

    Attributes:
        shape: shape of one row; images are [height, width, channels], text is [length].
        dtype: NumPy's name of the stored type, such as "uint8".
        maximum: the largest value that the format can hold (255 for bytes, 16 for the digits);
            None where only the data know (floating point).
        labelled: whether rows come with a class label.
    """

    shape: tuple[int, ...]
    dtype: str
    maximum: float | None
    labelled: bool


class Source(Protocol):
    """Rows with random access; one split of one data set."""

    @property
    def spec(self) -> Spec: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Reads the rows at `index` (an int array, in its order, or a slice)."""
        ...


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A source whose rows are already in memory (or memory-mapped)."""

    x: np.ndarray
    label: np.ndarray | None
    maximum: float | None

    @property
    def spec(self) -> Spec:
        return Spec(self.x.shape[1:], str(self.x.dtype), self.maximum, self.label is not None)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        return Rows(self.x[index], None if self.label is None else self.label[index])
