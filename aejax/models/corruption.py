"""Corruption of the encoder's input in training; the target stays clean.

A denoising autoencoder (Vincent et al. 2008, 2010, "Stacked Denoising Autoencoders") learns to undo
it: its loss is -log p(x given the code of the corrupted x). With emphasis (section 4.2 there)
corrupted elements have the weight alpha in the loss, and all others the weight beta.
"""

import dataclasses

import jax
import jax.numpy as jnp

from aejax.models.batch import Context
from aejax.models.interfaces import Corrupted, Corruption
from aejax.registry import Kinds


@dataclasses.dataclass
class Masking(Corruption):
    """Each element becomes 0 with probability `rate` (Vincent et al. 2008).

    Attributes:
        rate: share of the elements that are corrupted.
        emphasis: weight in the loss of the corrupted elements (alpha).
        rest: weight of the others (beta); 0 looks at the corrupted ones alone.
    """

    rate: float = 0.25
    emphasis: float = 1.0
    rest: float = 1.0

    def __post_init__(self):
        _check(self)

    def __call__(self, x: jax.Array, context: Context) -> Corrupted:
        chosen = _chosen(context.draw("corruption"), self.rate, x.shape[1:])
        return Corrupted(jnp.where(chosen, 0.0, x), weight=_weight(self, chosen))


@dataclasses.dataclass
class SaltAndPepper(Corruption):
    """Each element becomes 0 or 1, evenly, with probability `rate` (Vincent et al. 2010).

    Attributes:
        rate: share of the elements that are corrupted.
        emphasis: weight in the loss of the corrupted elements (alpha).
        rest: weight of the others (beta); 0 looks at the corrupted ones alone.
    """

    rate: float = 0.25
    emphasis: float = 1.0
    rest: float = 1.0

    for_symbols = False

    def __post_init__(self):
        _check(self)

    def __call__(self, x: jax.Array, context: Context) -> Corrupted:
        level = _levels(context.draw("corruption"), x.shape[1:])
        threshold = round(self.rate * _LEVELS)
        chosen = level < threshold
        noisy = jnp.where(chosen, (2 * level < threshold).astype(x.dtype), x)
        return Corrupted(noisy, weight=_weight(self, chosen))


@dataclasses.dataclass
class Noise(Corruption):
    """Normal noise is added to each element (Vincent et al. 2010).

    Attributes:
        deviation: its standard deviation, in units of x.
    """

    deviation: float = 0.3

    for_symbols = False

    def __post_init__(self):
        if not self.deviation >= 0:
            raise ValueError(f"deviation={self.deviation}: must be at least 0")

    def __call__(self, x: jax.Array, context: Context) -> Corrupted:
        draw = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))
        return Corrupted(x + self.deviation * draw(context.draw("corruption")))


@dataclasses.dataclass
class Hidden(Corruption):
    """Whole tokens are hidden with probability `rate`, and the loss looks at them alone.

    The encoder decides what stands in their place (0, or a learned vector). Examples are the masked
    language model of Devlin et al. 2019 and the masked autoencoder of He et al. 2022.

    Attributes:
        rate: share of the tokens that are hidden.
        patch: side of the squares that are hidden of an image, as the coder's; 0 for steps along
            the first axis of a sequence.
        rest: weight in the loss of what is not hidden.
    """

    rate: float = 0.2
    patch: int = 0
    rest: float = 0.0

    hides = True

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate={self.rate}: must be above 0 and at most 1")
        if self.patch < 0:
            raise ValueError(f"patch={self.patch}: must be at least 0")
        if not self.rest >= 0:
            raise ValueError(f"rest={self.rest}: must be at least 0")

    def __call__(self, x: jax.Array, context: Context) -> Corrupted:
        hidden = self._hidden(context.draw("corruption"), x.shape[1:])
        gone = hidden.reshape(hidden.shape + (1,) * (x.ndim - hidden.ndim))
        return Corrupted(jnp.where(gone, 0.0, x), hidden, jnp.where(hidden, 1.0, self.rest))

    def _hidden(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """bool [rows, length] or [rows, height, width]."""
        if not self.patch:
            return _chosen(keys, self.rate, shape[:1])
        if len(shape) < 2 or shape[0] % self.patch or shape[1] % self.patch:
            raise ValueError(
                f"corruption.patch={self.patch}: must divide both sides of an image; rows have"
                f" shape {shape}"
            )
        squares = _chosen(keys, self.rate, (shape[0] // self.patch, shape[1] // self.patch))
        return jnp.repeat(jnp.repeat(squares, self.patch, axis=1), self.patch, axis=2)


@dataclasses.dataclass
class Half(Corruption):
    """Hides the first or the second half of a sequence; only hidden steps count in the loss.

    Attributes:
        rest: weight in the loss of what is not hidden.
    """

    rest: float = 0.0

    hides = True

    def __post_init__(self):
        if not self.rest >= 0:
            raise ValueError(f"rest={self.rest}: must be at least 0")

    def __call__(self, x: jax.Array, context: Context) -> Corrupted:
        length = x.shape[1]
        second = _chosen(context.draw("corruption"), 0.5, (1,))
        hidden = (jnp.arange(length) >= length // 2) == second
        gone = hidden.reshape(hidden.shape + (1,) * (x.ndim - 2))
        return Corrupted(jnp.where(gone, 0.0, x), hidden, jnp.where(hidden, 1.0, self.rest))


# Draws have 16 bits: two from one 32-bit random word, which takes half the time of uniform floats.
_LEVELS = 2**16


def _levels(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform integers from 0 to 65535: keys [rows] -> int32 [rows, *shape]."""
    draw = jax.vmap(lambda key: jax.random.bits(key, shape, jnp.uint16))
    return draw(keys).astype(jnp.int32)


def _chosen(keys: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """True with probability `rate` (to 1 / 65536): keys [rows] -> [rows, *shape]."""
    return _levels(keys, shape) < round(rate * _LEVELS)


def _weight(settings: Masking | SaltAndPepper, chosen: jax.Array) -> jax.Array | None:
    if settings.emphasis == settings.rest == 1:
        return None
    return jnp.where(chosen, settings.emphasis, settings.rest)


def _check(settings: Masking | SaltAndPepper) -> None:
    if not 0 <= settings.rate <= 1:
        raise ValueError(f"rate={settings.rate}: must be from 0 to 1")
    for name in ("emphasis", "rest"):
        if not getattr(settings, name) >= 0:
            raise ValueError(f"{name}={getattr(settings, name)}: must be at least 0")
    if settings.emphasis == settings.rest == 0:
        raise ValueError("emphasis=0.0: must be above 0 where rest=0.0: no element would count")


KINDS = Kinds(
    "aejax.corruptions",
    Corruption,
    {
        "none": None,
        "masking": Masking,
        "salt_and_pepper": SaltAndPepper,
        "noise": Noise,
        "hidden": Hidden,
        "half": Half,
    },
)
