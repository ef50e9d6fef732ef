"""The preparation of raw rows on the device: augment, scale, binarise, centre."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data.deform import deform
from aejax.data.outliers import Range, chunks
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError

# Scaling by one range is refused if half of a table's columns have less than this share of it.
_UNITS = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Raw rows -> the model's input x, and its inverse.

    Attributes:
        settings: `config.Prepare`.
        spec: of the raw rows.
        statistics: of the training split: low and high (where `scale` needs them), mean and
            deviation [elements] (where `centre` needs them), in units after scaling.
    """

    settings: Any
    spec: Spec
    statistics: dict[str, Any]

    @property
    def draws(self) -> bool:
        """Whether training uses random numbers here."""
        settings = self.settings
        sampled = settings.binarise == "sampled"
        return bool(settings.shift or settings.flip or settings.deform or sampled)

    def __call__(
        self,
        raw: jax.Array,
        keys: jax.Array | None = None,
        stream_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Prepares rows.

        Args:
            raw: as stored, [rows, *shape] or flat [rows, elements].
            keys: one a row, for all random numbers; None for evaluation, without augmentation and
                with binary values by threshold.
            stream_keys: one a row that depends only on its index and the epoch, for deformation;
                None for no deformation.

        Returns:
            float32 [rows, *shape]; missing values are 0, which is the mean of centred rows.
        """
        settings, shape = self.settings, (len(raw), *self.spec.shape)
        if stream_keys is not None and settings.deform:
            raw = deform(raw.reshape(shape), stream_keys, settings.deform, self.spec.maximum)
        if keys is not None and (settings.shift or settings.flip):
            raw = _augment(raw.reshape(shape), keys, settings.shift, settings.flip)
        # Elementwise work is done on flat rows: XLA on a CPU does not vectorise over a last axis
        # of one channel (measured: the whole training step was ten times slower).
        x = raw.reshape(len(raw), -1).astype(jnp.float32)
        if settings.scale:
            low, high = self._range()
            x = (x - low if low else x) * _at_most_one_over(high - low)
        if settings.binarise == "sampled" and keys is not None:
            draws = jax.vmap(
                lambda key: jax.random.uniform(jax.random.fold_in(key, 2), x.shape[1:])
            )(keys)
            x = (draws < x).astype(jnp.float32)
        elif settings.binarise != "none":
            x = (x > 0.5).astype(jnp.float32)
        if settings.centre != "none":
            x = x - self._element("mean")
        if settings.centre == "standardise":
            x = x / self._element("deviation")
        if self.spec.missing:
            x = jnp.where(jnp.isnan(x), 0.0, x)
        return x.reshape(shape)

    def inverse(self, x: Any) -> Any:
        """x [rows, *shape] -> values before centring: [0, 1] where rows were scaled."""
        flat = x.reshape(len(x), -1)
        if self.settings.centre == "standardise":
            flat = flat * self._element("deviation")
        if self.settings.centre != "none":
            flat = flat + self._element("mean")
        return flat.reshape(x.shape)

    def measured(self, x: Any) -> Any:
        """x in the units of reported errors: those of `inverse`; a table's rows stay as they are.

        In a table's original units the column with the largest numbers would dominate the error.
        """
        return x if self.spec.columns else self.inverse(x)

    def _range(self) -> tuple[float, float]:
        if self.spec.maximum is not None:
            return 0.0, self.spec.maximum
        return self.statistics["low"], self.statistics["high"]

    def _element(self, name: str) -> np.ndarray:
        return np.asarray(self.statistics[name], np.float32)


def statistics(
    settings: Any, source: Source, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The statistics of the training split that `Preparation` needs with these settings.

    Args:
        settings: `config.Prepare`.
        source: the training split.
        say: called with one line if a single value makes up nearly the whole range.

    Raises:
        InputError: values that are not finite, or that do not vary at all, so that they cannot be
            scaled.
    """
    out: dict[str, Any] = {}
    if source.spec.maximum is None and (settings.scale or settings.centre == "standardise"):
        found = Range(source)
        for first, rows in chunks(source):
            found.add(first, rows)
        low, high = found.low, found.high
        name = "scale=True" if settings.scale else f"centre={settings.centre}"
        if settings.scale and not high > low:
            raise InputError(
                f"config.data.prepare.scale=True: every value of the training split is {low:g},"
                " which cannot be scaled to [0, 1]"
            )
        if settings.scale and source.spec.columns:
            _check_units(found)
        if line := found.outlier():
            say(
                f"config.data.prepare.{name}: hardly anything is left of the training split: {line}"
            )
        if settings.scale:
            out |= {"low": low, "high": high}
    if settings.centre == "none":
        return out
    plain = dataclasses.replace(settings, centre="none")
    prepared = Preparation(plain, source.spec, out)
    # Sums of differences to the first chunk's mean: squares of values far from 0 lose digits.
    total = square = count = np.zeros(source.spec.shape, np.float64)
    first: Any = None
    for _, chunk in chunks(source):
        real = chunk.real
        x = np.where(real, np.asarray(prepared(jnp.asarray(chunk.x)), np.float64), 0)
        if first is None:
            first = x.sum(0) / np.maximum(real.sum(0), 1)
        x = np.where(real, x - first, 0)
        total, square, count = total + x.sum(0), square + np.square(x).sum(0), count + real.sum(0)
    count = np.maximum(count, 1)  # an element may be missing in all rows
    mean = total / count
    # Categories stay 0 or 1: standardised, rare ones would dominate the loss.
    left = np.zeros(source.spec.shape, np.bool_)
    if source.spec.columns:
        left = np.array([category is not None for _, category in source.spec.elements])
    out["mean"] = np.where(left, 0.0, mean + first).ravel().tolist()
    if settings.centre == "standardise":
        deviation = np.sqrt(np.maximum(square / count - np.square(mean), 0))
        # A constant element is not divided: its deviation is 0.
        out["deviation"] = np.where((deviation > 0) & ~left, deviation, 1.0).ravel().tolist()
    return out


def _check_units(found: Range) -> None:
    """Raises InputError if the columns of a table have too different ranges for one scale."""
    spans = found.most - found.least
    spans = spans[spans > 0]
    if np.median(spans) < _UNITS * (found.high - found.low):
        raise InputError(
            f"config.data.prepare.scale=True: the table's values reach from {found.low:g} to"
            f" {found.high:g}, and half of its columns less than {100 * _UNITS:g} % of that; use"
            " --config=table, or --config.data.prepare.scale=False"
            " --config.data.prepare.centre=standardise --config.model.likelihood=gaussian"
        )


def _at_most_one_over(span: float) -> np.float32:
    """1 / span, rounded down if span times it would exceed 1."""
    share = np.float32(1.0 / span)
    return np.nextafter(share, np.float32(0)) if np.float32(span) * share > 1 else share


def _augment(raw: jax.Array, keys: jax.Array, shift: int, flip: bool) -> jax.Array:
    if shift:
        raw = jax.vmap(lambda x, key: _shifted(x, key, shift))(raw, keys)
    if flip:
        heads = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1)))(keys)
        raw = jnp.where(heads.reshape(-1, *(1,) * (raw.ndim - 1)), raw[:, :, ::-1], raw)
    return raw


def _shifted(x: jax.Array, key: jax.Array, most: int) -> jax.Array:
    """One image [height, width, ...] moved by up to `most` pixels, its edges filled with 0."""
    around = [(most, most), (most, most)] + [(0, 0)] * (x.ndim - 2)
    start = jax.random.randint(key, (2,), 0, 2 * most + 1)
    return jax.lax.dynamic_slice(jnp.pad(x, around), [*start] + [0] * (x.ndim - 2), x.shape)


def check_symbols(settings: Any, source: Source, count: int) -> None:
    """Checks that x is whole numbers from 0 to count - 1; reads rows unless their type ensures it.

    Raises:
        InputError: preparation changes the symbols, or a value is no such number.
    """
    accepted = f"{count} symbols are whole numbers from 0 to {count - 1}"
    for name, value, plain in (
        ("scale", settings.scale, False),
        ("centre", settings.centre, "none"),
        ("deform", settings.deform, 0.0),
    ):
        if value != plain:
            raise InputError(
                f"config.data.prepare.{name}={value}: {accepted} as they are stored; must be"
                f" {plain}"
            )
    maximum = source.spec.maximum
    if maximum is not None and maximum < count:
        return
    for values in (rows.real_values for _, rows in chunks(source)):
        wrong = (values < 0) | (values >= count) | (values != np.floor(values))
        if wrong.any():
            raise InputError(f"config.data.source: {accepted}; there is {values[wrong][0]:g}")


def check(settings: Any, spec: Spec) -> None:
    """Raises InputError if such rows cannot be augmented."""
    if (settings.shift or settings.flip) and spec.missing:
        raise InputError(
            f"config.data.prepare.shift={settings.shift} and flip={settings.flip} move images;"
            " these rows have missing values, which would stay behind"
        )
    if (settings.shift or settings.flip) and len(spec.shape) < 2:
        raise InputError(
            f"config.data.prepare.shift={settings.shift} and flip={settings.flip} move images;"
            f" these rows have shape {spec.shape}"
        )
    if settings.shift and settings.shift >= min(spec.shape[:2]):
        raise InputError(
            f"config.data.prepare.shift={settings.shift}: must be below the image's"
            f" {spec.shape[0]} x {spec.shape[1]} pixels"
        )
    images = len(spec.shape) >= 2 and min(spec.shape[:2]) >= 2
    if settings.deform and (not images or spec.missing or spec.padded):
        raise InputError(
            f"config.data.prepare.deform={settings.deform} deforms images of at least 2 x 2 pixels,"
            f" all of one size and with every value; these are {spec.describe()}"
        )
