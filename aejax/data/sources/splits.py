"""Splits of a source by name and slice, as in TFDS: train, train[:90%], train[-500:], a+b."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import numpy as np

from aejax.data.sources import checks
from aejax.data.sources.base import Arrays, Rows, Source, Spec, file_rows, names
from aejax.errors import InputError
from aejax.kinds import near

# {split: a function that opens it}, in order.
Splits = dict[str, Callable[[], Source]]

WHOLE = "all"
TRAIN_PERCENT = 90

_BOUND = r"(-?[0-9]{1,18}%?)?"
_PART = re.compile(rf"([A-Za-z_][\w-]*)(?:\[{_BOUND}:{_BOUND}\])?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Part:
    """A slice of one split; a bound is a number of rows or percent as text, "" for the end."""

    name: str
    start: str = ""
    stop: str = ""

    def __str__(self) -> str:
        return f"{self.name}[{self.start}:{self.stop}]" if self.start or self.stop else self.name


@dataclasses.dataclass(frozen=True)
class Selected:
    """A selection of another source's rows."""

    source: Source
    index: np.ndarray

    @property
    def spec(self) -> Spec:
        return self.source.spec

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        return self.source[self.index[index]]

    def names(self, index: np.ndarray) -> list[str] | None:
        """The rows' names in the other source."""
        return names(self.source, self.index[index])

    def file_rows(self) -> np.ndarray | None:
        """The rows' numbers in the other source's file."""
        found = file_rows(self.source)
        return None if found is None else found[self.index]


@dataclasses.dataclass(frozen=True)
class Joined:
    """The rows of several sources, one after the other; labels are left out unless all have them.

    Their specs differ in nothing but labels.
    """

    sources: tuple[Source, ...]

    @property
    def spec(self) -> Spec:
        labelled = all(source.spec.labelled for source in self.sources)
        return dataclasses.replace(self.sources[0].spec, labelled=labelled)

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        index = checks.positions(index, len(self))
        spec, count = self.spec, len(index)
        x = np.empty((count, *spec.shape), spec.dtype)
        label = np.empty(count, np.int32) if spec.labelled else None
        length = np.empty(count, np.int32) if spec.padded else None
        start = 0
        for source in self.sources:
            here = (start <= index) & (index < start + len(source))
            if here.any():
                rows = source[index[here] - start]
                for whole, part in zip((x, label, length), rows, strict=True):
                    if whole is not None and part is not None:
                        whole[here] = part
            start += len(source)
        return Rows(x, label, length)

    def names(self, index: np.ndarray) -> list[str] | None:
        """The rows' names in their sources, if each has names."""
        out = [""] * len(index)
        start = 0
        for source in self.sources:
            here = np.flatnonzero((start <= index) & (index < start + len(source)))
            found = names(source, index[here] - start)
            if found is None:
                return None
            for row, name in zip(here, found, strict=True):
                out[row] = name
            start += len(source)
        return out

    def file_rows(self) -> np.ndarray | None:
        """The rows' numbers in their file, if each source has one."""
        found = [rows for each in self.sources if (rows := file_rows(each)) is not None]
        return np.concatenate(found) if len(found) == len(self.sources) else None


def of_whole(whole: Callable[[], Source], shuffle: bool) -> Splits:
    """Splits of a source that has none of its own: all, and its first 90 % and last 10 %.

    Args:
        whole: reads the source.
        shuffle: take train and test after one fixed shuffle (where rows are sorted, by class for
            instance); `all` keeps the order in which they are stored.
    """

    @functools.cache
    def read() -> Source:
        source = whole()
        if isinstance(source, Arrays):
            return dataclasses.replace(source, drawn=range(len(source)))
        return source

    def piece(train: bool) -> Source:
        source = read()
        part = share(len(source), train, "row")
        return take(source, shuffled(len(source))[part] if shuffle else part)

    return {WHOLE: read, "train": lambda: piece(True), "test": lambda: piece(False)}


def shuffled(count: int) -> np.ndarray:
    """The one fixed shuffle of numbers below `count`."""
    return np.random.RandomState(0).permutation(count)


def share(count: int, train: bool, what: str) -> slice:
    """The first 90 % of so many things, or the last 10 %.

    Args:
        count: how many there are.
        train: the first, or the last.
        what: what one of them is called in messages.

    Raises:
        InputError: there are none in this part.
    """
    boundary = _percent(TRAIN_PERCENT, count)
    if boundary == (0 if train else count):
        raise InputError(
            f"it has {count} {what}{'s' * (count != 1)}, too few to be cut into train"
            f" ({TRAIN_PERCENT} %) and test: needs at least 5, or the split {WHOLE} for both"
        )
    return slice(boundary) if train else slice(boundary, None)


def select(splits: Splits, text: str) -> Source:
    """The rows that `text` stands for, such as train[:90%] or train+test[-500:].

    Percentages are rounded to the nearest row, as TFDS does, so that [:90%] and [90%:] share no
    row and leave none out. `all` is every split, one after the other.

    Raises:
        InputError: wrong syntax, an unknown split, a bound outside it, no rows at all, or splits
            whose rows have different specs.
    """
    parts = parse(text)
    known = {WHOLE: lambda: join([(name, read()) for name, read in splits.items()]), **splits}
    for part in parts:
        if part.name not in known:
            raise InputError(
                f"split={text}: there is no split {part.name}; accepted: {', '.join(known)}"
                f"{near(part.name, known)}"
            )
    opened = {name: known[name]() for name in dict.fromkeys(part.name for part in parts)}
    return join([(str(part), cut(opened[part.name], part)) for part in parts])


def parse(text: str) -> list[Part]:
    """Reads a split's name and slice, or several of them joined by "+".

    Raises:
        InputError: not the syntax.
    """
    found = [_PART.fullmatch(word.strip()) for word in text.split("+")]
    if not all(found):
        raise InputError(
            f"split={text}: cannot be read; accepted: train, train[:90%], train[100:200],"
            " train[-500:], train+test"
        )
    return [Part(match[1], match[2] or "", match[3] or "") for match in found if match]


def cut(source: Source, part: Part) -> Source:
    """The rows of `source` within the part's bounds.

    Raises:
        InputError: a bound outside the source, or no rows between them.
    """
    rows = len(source)
    start = _bound(part, part.start or "0", rows)
    stop = _bound(part, part.stop or str(rows), rows)
    if start >= stop:
        raise InputError(f"split={part} is empty: rows {start} to {stop} of {rows}")
    return source if stop - start == rows else take(source, slice(start, stop))


def take(source: Source, index: np.ndarray | slice) -> Source:
    """Some rows of a source, read when they are indexed; arrays in memory stay arrays."""
    if isinstance(source, Arrays):
        return _in_memory(source[index], source.spec, _drawn(source, index))
    return Selected(source, checks.positions(index, len(source)))


def join(parts: Sequence[tuple[str, Source]]) -> Source:
    """One source after the other, each given with its name for messages.

    Labels that one of them lacks are left out of all.

    Raises:
        InputError: their rows differ in kind.
    """
    (first, source), *others = parts
    for name, other in others:
        if dataclasses.replace(other.spec, labelled=source.spec.labelled) != source.spec:
            raise InputError(
                f"splits cannot be joined: {first} has"
                f" {source.spec.describe()}; {name} has {other.spec.describe()}"
            )
    if not others:
        return source
    sources = (source, *(other for _, other in others))
    if all(isinstance(each, Arrays) for each in sources):
        return _in_memory(Joined(sources)[:], source.spec, Joined(sources).file_rows())
    return Joined(sources)


def _in_memory(rows: Rows, spec: Spec, drawn: np.ndarray | range | None) -> Arrays:
    return Arrays(rows.x, rows.label, spec.maximum, rows.length, spec.missing, drawn)


def _drawn(source: Arrays, index: np.ndarray | slice) -> np.ndarray | range | None:
    """Some rows' numbers in the file; a slice of a range stays one, which needs no memory."""
    if isinstance(index, slice):
        return None if source.drawn is None else source.drawn[index]
    numbers = source.file_rows()
    return None if numbers is None else numbers[index]


def _bound(part: Part, bound: str, rows: int) -> int:
    """A bound as a row number in 0 .. rows."""
    if bound.endswith("%"):
        percent = int(bound[:-1])
        if abs(percent) > 100:
            raise InputError(f"split={part}: {bound} is outside -100% .. 100%")
        number = _percent(percent, rows)
    else:
        number = int(bound)
    if abs(number) > rows:
        raise InputError(f"split={part}: {bound} is outside the {rows} rows of {part.name}")
    # by the sign in the text: -10% of three rows rounds to none at the end, not to all
    return number + rows if bound.startswith("-") else number


def _percent(percent: int, rows: int) -> int:
    return round(percent * rows / 100)
