"""Rows as tokens: patches of an image, frames of a sequence, or symbols; and back."""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Cut:
    """How rows of one shape are cut into tokens.

    Attributes:
        shape: of a row.
        grid: tokens along each axis: (down, across) for patches, (length,) otherwise.
        patch: side of a patch; 0 where rows are not cut into patches.
    """

    shape: tuple[int, ...]
    grid: tuple[int, ...]
    patch: int

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def elements(self) -> int:
        """Elements of a row in one token."""
        return math.prod(self.shape) // self.tokens

    def patchify(self, x: jax.Array) -> jax.Array:
        """x [rows, *shape] -> [rows, tokens, elements]."""
        if not self.patch:
            return x.reshape(len(x), self.tokens, self.elements)
        down, across = self.grid
        # The pixels of a patch's line and their channels stay one axis, which XLA copies at once.
        lines = x.reshape(len(x), down, self.patch, across, -1)
        return lines.swapaxes(2, 3).reshape(len(x), self.tokens, self.elements)

    def unpatchify(self, x: jax.Array, outputs: int) -> jax.Array:
        """x [rows, tokens, elements * outputs] -> [rows, *shape, outputs]."""
        if self.patch:
            down, across = self.grid
            x = x.reshape(len(x), down, across, self.patch, -1).swapaxes(2, 3)
        return x.reshape(len(x), *self.shape, outputs)

    def marks(self, marks: jax.Array) -> jax.Array:
        """Broadcasts a bool array, whose shape is a prefix of [rows, *shape], and cuts it as x."""
        ahead = marks.reshape(marks.shape + (1,) * (1 + len(self.shape) - marks.ndim))
        return self.patchify(jnp.broadcast_to(ahead, (len(marks), *self.shape)))


def cut(shape: tuple[int, ...], patch: int, symbols: int) -> Cut:
    """How rows of this shape are cut.

    Args:
        shape: (height, width) or (height, width, channels) with patches, (length, ...) without.
        patch: side of the patches of an image; 0 where the first axis is time.
        symbols: how many kinds of symbols there are; 0 where elements are numbers.

    Raises:
        ValueError: rows are not images, or the patch does not divide their sides.
    """
    if symbols or not patch:
        tokens = math.prod(shape) if symbols else shape[0]
        return Cut(shape, (tokens,), 0)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"coder.patch={patch}: rows of shape {shape} are no images; it must be 0, or they"
            " (height, width) or (height, width, channels)"
        )
    height, width = shape[:2]
    if height % patch or width % patch:
        raise ValueError(
            f"coder.patch={patch}: must divide both sides of images of {height} x {width}, as"
            f" {math.gcd(height, width)} does; 0 takes lines for tokens"
        )
    return Cut(shape, (height // patch, width // patch), patch)
