"""Detects extreme values, which spoil scaling and losses, and names their rows and elements."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from aejax.data.sources.base import Rows, Source
from aejax.errors import InputError

ROWS_AT_A_TIME = 4096
# There is an outlier if this share of the values lies within this share of the range.
_SHARE, _NARROW = 0.999, 1e-3
# With fewer values, one far from the others is no sign of an error.
_LEAST = 20
# Limits of prepared values, which are near [0, 1]; and of unscaled ones, whose squares must fit
# into float32.
_FAR, _FAR_UNSCALED = 1e6, 1e18
_MOST = 3
# Values of a large source that are sorted, evenly spaced.
_SAMPLE = 2**18


def chunks(source: Source) -> Iterator[tuple[int, Rows]]:
    """All rows in chunks, each with the index of its first row."""
    for start in range(0, len(source), ROWS_AT_A_TIME):
        yield start, source[slice(start, start + ROWS_AT_A_TIME)]


class Range:
    """The minimum and maximum of rows that are added in chunks, and where nearly all values lie.

    For a table also those of each element, `least` and `most`.
    """

    def __init__(self, source: Source):
        self.low, self.high = math.inf, -math.inf
        self.least, self.most = np.array(math.inf), np.array(-math.inf)
        self._source, self._kept = source, list[np.ndarray]()
        elements = math.prod(source.spec.shape)
        stride = -(-len(source) * elements // _SAMPLE)
        while math.gcd(stride, elements) > 1:  # so that the sample covers all elements
            stride += 1
        self._stride, self._elements = stride, elements

    def add(self, first: int, rows: Rows) -> None:
        """Adds a chunk of rows, of which the first has the index `first`.

        Raises:
            InputError: a value that is neither finite nor missing.
        """
        values = rows.x
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self._check(first, values)
        if rows.length is not None or math.isnan(low):  # leaves out padding and missing values
            values = rows.real_values
            if not values.size:
                return
            low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._kept.append(values.ravel()[:: self._stride].copy())
        if self._source.spec.columns:
            self.least = np.fmin(self.least, np.fmin.reduce(rows.x))
            self.most = np.fmax(self.most, np.fmax.reduce(rows.x))

    def _check(self, first: int, x: np.ndarray) -> None:
        fine = np.isfinite(x) | (np.isnan(x) & self._source.spec.missing)
        if not fine.all():
            flat = int(np.argmin(fine))
            where = self._where(first, flat)
            raise InputError(f"the training split: {where}: {x.flat[flat]:g}; must be finite")

    def outlier(self) -> str | None:
        """One line about an extreme value, if the range would be far narrower without it."""
        values = np.sort(np.concatenate(self._kept).astype(np.float64))
        out = max(1, int((1 - _SHARE) * values.size))
        span = self.high - self.low
        if values.size < _LEAST or not span > 0:
            return None
        widths = values[values.size - 1 - out :] - values[: out + 1]
        place = int(np.argmin(widths))
        if not widths[place] < _NARROW * span:
            return None
        low, high = values[place], values[values.size - 1 - out + place]
        far = self.high if self.high - high > low - self.low else self.low
        share = "all but one" if out == self._stride == 1 else f"{100 * _SHARE:g} %"
        return f"{self._find(far)}: {far:g}; {share} of the values lie in {low:g}..{high:g}"

    def _find(self, value: float) -> str:
        """The first row and element that have this value."""
        for first, rows in chunks(self._source):
            found = np.flatnonzero((rows.x == np.asarray(value, rows.x.dtype)) & rows.real)
            if found.size:
                return self._where(first, int(found[0]))
        raise ValueError(f"{value} is no value of these rows")

    def _where(self, first: int, flat: int) -> str:
        row, element = divmod(flat, self._elements)
        return f"row {first + row}, element {_element(self._source, element)}"


def _element(source: Source, flat: int) -> str:
    """The index of an element as text: 3, or 1,0,2 where rows have several axes."""
    return ",".join(map(str, map(int, np.unravel_index(flat, source.spec.shape))))


def describe_outliers(preparation: Any, source: Source) -> str | None:
    """One line about rows with values far outside the training split's range; None without any.

    Args:
        preparation: `prepare.Preparation` of the run.
        source: other rows.
    """
    settings, found = preparation.settings, list[int]()
    limit = _FAR if settings.scale or settings.centre == "standardise" else _FAR_UNSCALED
    for first, rows in chunks(source):
        x = np.abs(np.asarray(preparation(rows.x))).reshape(len(rows.x), -1)
        # Not `x > limit`: NaN must count as well.
        found += (first + np.flatnonzero((~(x <= limit)).any(axis=1))).tolist()
    if not found:
        return None
    more = f"; and {len(found) - _MOST} more rows" if len(found) > _MOST else ""
    return f"{describe(preparation, source, found[:_MOST])}{more}"


def describe(preparation: Any, source: Source, rows: Sequence[int]) -> str:
    """The most extreme value of each given row, and the training split's range or distribution.

    Args:
        preparation: `prepare.Preparation` of the run.
        source: the rows' source.
        rows: their numbers.

    Returns:
        row 3, element 0: 1e+25 (the training split lies in 0..1).
    """
    words = []
    for row in rows:
        one = source[np.array([row])]
        with np.errstate(over="ignore", invalid="ignore"):
            x = np.abs(np.asarray(preparation(one.x), np.float64))
        x[~one.real] = -1
        place = int(np.argmax(np.where(np.isnan(x), np.inf, x)))
        words.append(
            f"row {row}, element {_element(source, place)}: {one.x.ravel()[place]:g}"
            f"{_training(preparation, place)}"
        )
    return "; ".join(words)


def _training(preparation: Any, element: int) -> str:
    found = preparation.statistics
    if "low" in found:
        return f" (the training split lies in {found['low']:g}..{found['high']:g})"
    if "deviation" in found:
        mean, deviation = found["mean"][element], found["deviation"][element]
        return f" (the training split has mean {mean:g} and deviation {deviation:g} there)"
    return ""
