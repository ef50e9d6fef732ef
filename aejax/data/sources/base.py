"""The interface of a source of examples: rows with random access, and a spec of one row."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from aejax.data.sources import checks
from aejax.errors import InputError


class _Rows(NamedTuple):
    x: np.ndarray
    label: np.ndarray | None
    length: np.ndarray | None


class Rows(_Rows):
    """Raw examples as stored, except that padding is always 0.

    Attributes:
        x: array [rows, *shape] of the source's dtype.
        label: int array [rows], or None where the source has no labels.
        length: int array [rows], each row's length along its first axis, at least 1; the rest is
            padding. None for no padding.
    """

    def __new__(
        cls, x: np.ndarray, label: np.ndarray | None = None, length: np.ndarray | None = None
    ) -> Self:
        if length is not None:
            x = checks.without_padding(x, length)
        return super().__new__(cls, x, label, length)

    @property
    def real(self) -> np.ndarray:
        """bool [rows, *shape], False for padding and missing values."""
        real = np.broadcast_to(checks.real(self.x, self.length), self.x.shape)
        return real & ~np.isnan(self.x) if self.x.dtype.kind == "f" else real

    @property
    def real_values(self) -> np.ndarray:
        """All values except padding and missing ones, in any shape."""
        real = self.real
        return self.x if real.all() else self.x[real]


class Column(NamedTuple):
    """A column of a table: one element of a row, or one for each of its categories.

    Attributes:
        name: its name in the file.
        categories: its possible values, each with an element that is 1 for this value and else 0;
            None for a column of numbers.
    """

    name: str
    categories: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Spec:
    """One raw row of a source.

    Attributes:
        shape: shape of one row; images are [height, width, channels], text is [length].
        dtype: NumPy's name of the stored type, such as "uint8".
        maximum: the largest value that the format can hold (255 for bytes, 16 for the digits);
            None where it depends on the data (floating point).
        labelled: whether rows come with a class label.
        padded: whether each row comes with a length.
        classes: the names of labels 0, 1, ...; () without names. They are not compared when two
            specs are.
        missing: whether NaN marks missing elements.
        columns: of a table, in the order of a row's elements; () for other sources.
        rate: samples a second, for rows of a waveform with values in -1 to 1; else 0.
        reading: of a table's text, the options that say how it was read (delimiter=;, decimal=,
            and header=0), also where they were found out. They are not compared.
    """

    shape: tuple[int, ...]
    dtype: str
    maximum: float | None
    labelled: bool
    padded: bool = False
    classes: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    missing: bool = False
    columns: tuple[Column, ...] = ()
    rate: int = 0
    reading: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def __post_init__(self):
        # From a file's JSON these are lists.
        columns = (
            Column(name, None if each is None else tuple(each)) for name, each in self.columns
        )
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "reading", tuple(self.reading))
        object.__setattr__(self, "columns", tuple(columns))

    @property
    def elements(self) -> list[tuple[str, str | None]]:
        """For a table: each element's column, and its category (None for a number)."""
        return [
            (column.name, category)
            for column in self.columns
            for category in (column.categories or (None,))
        ]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Which numbers come with each row: label, length."""
        return ("label",) * self.labelled + ("length",) * self.padded

    def describe(self) -> str:
        """These rows in plain words: rows of shape 28x28x1, uint8 up to 255, with labels."""
        words = [f"rows of shape {'x'.join(map(str, self.shape))}", self.dtype]
        if self.maximum is not None:
            words[-1] += f" up to {self.maximum:g}"
        if self.numbers:
            words.append(f"with {' and '.join(f'{name}s' for name in self.numbers)}")
        if self.rate:
            words.append(f"{self.rate} samples a second")
        if self.missing:
            words.append("some values missing")
        if self.columns:
            names = [column.name for column in self.columns]
            words.append(f"columns {', '.join(names[:8])}{', ...' * (len(names) > 8)}")
        return ", ".join(words)


class Source(Protocol):
    """Rows with random access; one split of one data set."""

    @property
    def spec(self) -> Spec: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        """Reads the rows at `index` (an int array, in its order, or a slice)."""
        ...


@runtime_checkable
class Named(Protocol):
    """Optional interface of a source: names of its rows."""

    def names(self, index: np.ndarray) -> list[str] | None:
        """The names of the rows at `index`, row numbers, such as their files; None for none."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """Optional interface of a source: all labels, without reading the rows."""

    def labels(self) -> np.ndarray | None:
        """int [rows], or None where the source has no labels."""
        ...


@runtime_checkable
class Numbered(Protocol):
    """Optional interface of a source: where its rows stand in the one file that holds them."""

    def file_rows(self) -> np.ndarray | None:
        """int [rows], each row's number in its file, from 0; None where it has none."""
        ...


@runtime_checkable
class Filed(Protocol):
    """Optional interface of a source: a file for each row."""

    def paths(self) -> Sequence[str]:
        """The file of each row, in the order of the rows."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """Optional interface of a source: its own fingerprint, if its rows are computed."""

    def fingerprint(self) -> str:
        """A digest of what the rows are computed from, the same on every device and machine."""
        ...


def names(source: Source, index: np.ndarray) -> list[str] | None:
    """The names of some rows, or None where the source has none.

    Args:
        source: any, `Named` or not.
        index: int [rows], from 0.
    """
    return source.names(index) if isinstance(source, Named) else None


def file_rows(source: Source) -> np.ndarray | None:
    """Each row's number in the file from which a split was drawn, or None where there is none.

    Args:
        source: any, `Numbered` or not.

    Returns:
        int [rows], from 0; a table's header is not counted.
    """
    return source.file_rows() if isinstance(source, Numbered) else None


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A source whose rows are already in memory (or memory-mapped), in any layout.

    Attributes:
        x: [rows, *shape], of any type that `checks.stored` accepts, in the type that it returns.
        label, length: as in `Rows`; a whole number a row, or None.
        maximum, missing: as in `Spec`; without a maximum rows are scaled by their own range.
        drawn: the rows' numbers in the file from which they were drawn, [rows]; None for no file.
    """

    x: np.ndarray
    label: np.ndarray | None = None
    maximum: float | None = None
    length: np.ndarray | None = None
    missing: bool = False
    drawn: np.ndarray | range | None = None

    def __post_init__(self):
        object.__setattr__(self, "x", np.asanyarray(self.x))
        if self.x.dtype not in checks.KEPT:
            x, _ = checks.stored(self.x, "x", self.length, self.missing)
            object.__setattr__(self, "x", x)
        for name, numbers in (("label", self.label), ("length", self.length)):
            if numbers is not None and np.shape(numbers) != (len(self.x),):
                raise InputError(
                    f"{name} has shape {np.shape(numbers)}; must be ({len(self.x)},), a number for"
                    " each row"
                )

    @property
    def spec(self) -> Spec:
        shape, dtype = self.x.shape[1:], str(self.x.dtype)
        return Spec(
            shape,
            dtype,
            self.maximum,
            self.label is not None,
            self.length is not None,
            missing=self.missing,
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        numbers = (None if each is None else each[index] for each in (self.label, self.length))
        return Rows(self.x[index], *numbers)

    def file_rows(self) -> np.ndarray | None:
        """int [rows], the rows' numbers in their file, or None."""
        drawn = self.drawn
        if isinstance(drawn, range):
            return np.arange(drawn.start, drawn.stop, drawn.step)
        return drawn
