"""The blocks of a transformer: x + dropout(block(norm(x))).

This is the pre-norm residual block (Xiong et al. 2020, "On Layer Normalization in the Transformer
Architecture"). One layer of a transformer is two of them (`nn/layout.py`).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.nn import activation
from aejax.nn.attention import attend
from aejax.nn.product import product

# Glorot and Bengio 2010, as in the other coders.
_INITIAL = nnx.initializers.glorot_uniform()
# The initial bias of each head's own offset; see `Attention`.
_OWN_OFFSET = 4.0
_SEES = {"l": "left", "r": "right", "s": "self"}
# Dropout draws 16-bit levels: two of them from one 32-bit random word.
_LEVELS = 2**16


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Settings that all blocks of a network share.

    Attributes:
        width: size of a token's vector.
        heads: of attention; must divide the width.
        feed_forward: hidden units of a feed-forward block.
        window: how many tokens to either side windowed attention sees.
        norm: layer (Ba et al. 2016) or rms (Zhang and Sennrich 2019).
        activation: of feed-forward blocks.
        dropout: rate of dropout of a block's output in training.
        relative: whether scores have a learned bias for each offset.
        rotary: [tokens, size / 2], rotary angles of queries and keys, or None.
        tokens: tokens of a row.
    """

    width: int
    heads: int
    feed_forward: int
    window: int
    norm: str
    activation: str
    dropout: float
    relative: bool
    rotary: np.ndarray | None
    tokens: int


def angles(grid: tuple[int, ...], size: int) -> np.ndarray:
    """Rotary angles of tokens on a grid: float32 [tokens, size / 2].

    Each axis of the grid gets an equal share of the pairs (for two axes as in Heo et al. 2024).
    Pair m of n turns by 10000^(-m / n) for each step along the axis (Su et al. 2021, equation 15).

    Raises:
        ValueError: the size is not divisible by twice the number of axes.
    """
    pairs, rest = divmod(size, 2 * len(grid))
    if rest:
        raise ValueError(
            f"positions=rotary: heads of {size} numbers do not divide into {len(grid)} axes of"
            f" pairs; width / heads must be a multiple of {2 * len(grid)}"
        )
    speeds = 10000.0 ** (-np.arange(pairs) / pairs)
    places = np.indices(grid).reshape(len(grid), -1)
    return np.concatenate([np.outer(place, speeds) for place in places], 1).astype(np.float32)


def turn(x: jax.Array, angle: np.ndarray) -> jax.Array:
    """Rotates pair m of each token's vector by its angle (Su et al. 2021, equation 34).

    Args:
        x: [..., tokens, heads, size]; elements m and m + size / 2 are a pair.
        angle: [tokens, size / 2].
    """
    cos, sin = (jnp.asarray(f(angle)[:, None], x.dtype) for f in (np.cos, np.sin))
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Norm(nnx.Module):
    """Scales each token to mean 0 and variance 1 ("layer") or to mean square 1 ("rms").

    Statistics are computed in float32, whatever the type of the parameters.
    """

    def __init__(self, kind: str, width: int):
        self.kind = kind
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width)) if kind == "layer" else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.bias is not None:
            y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-6)
        y = y.astype(self.scale.dtype) * self.scale[...]
        return y if self.bias is None else y + self.bias[...]


class Attention(nnx.Module):
    """Self-attention of all heads and a linear layer: x [rows, tokens, width] -> the same shape.

    With learned offset biases each head starts by attending to one neighbour, at offset -1, 1, -2,
    2, ... in turn. Biases that start at 0 give every head the mean of the row, and training of a
    masked model of text then stays on a plateau, where it predicts the symbols' frequencies.

    Attributes:
        into: [width, heads * 3 * size]; queries, keys and values of a head are adjacent, so that a
            sharded last axis leaves whole heads on each device.
        out: [width, width].
        offsets: [heads, 2 tokens - 1], or None.
    """

    def __init__(self, letter: str, blocks: Blocks, rngs: nnx.Rngs):
        self.blocks, self.letter = nnx.static(blocks), letter
        width, tokens = blocks.width, blocks.tokens
        each = [_INITIAL(rngs.params(), (width, width)) for _ in range(3)]
        parts = [kernel.reshape(width, blocks.heads, 1, -1) for kernel in each]
        self.into = nnx.Param(jnp.concatenate(parts, axis=2).reshape(width, 3 * width))
        self.into_bias = nnx.Param(jnp.zeros(3 * width))
        self.out = nnx.Linear(width, width, kernel_init=_INITIAL, rngs=rngs)
        start = _own_offsets(blocks.heads, tokens)
        self.offsets = nnx.Param(jnp.asarray(start)) if blocks.relative else None

    def __call__(self, x: jax.Array, real: jax.Array | None) -> jax.Array:
        rows, tokens, width = x.shape
        heads = self.blocks.heads
        made = product(x, self.into[...]) + self.into_bias[...]
        q, k, v = jnp.moveaxis(made.reshape(rows, tokens, heads, 3, width // heads), 3, 0)
        if self.blocks.rotary is not None:
            q, k = (turn(each, self.blocks.rotary) for each in (q, k))
        bias = None if self.offsets is None else self.offsets[...]
        window = self.blocks.window if self.letter == "w" else 0
        sees = _SEES.get(self.letter, "all")
        seen = attend(q, k, v, real=real, bias=bias, window=window, sees=sees)
        return self.out(seen.reshape(-1, width)).reshape(x.shape)


def _own_offsets(heads: int, tokens: int) -> np.ndarray:
    """Initial biases [heads, 2 tokens - 1]: 0 except at each head's own offset (-1, 1, -2, ...)."""
    start = np.zeros((heads, 2 * tokens - 1), np.float32)
    for head in range(heads if tokens > 1 else 0):
        offset = (-1) ** (head + 1) * (1 + head // 2 % (tokens - 1))
        start[head, tokens - 1 + offset] = _OWN_OFFSET
    return start


class FeedForward(nnx.Module):
    """Two linear layers with an activation between: x [rows, tokens, width] -> the same shape."""

    def __init__(self, blocks: Blocks, rngs: nnx.Rngs):
        self.activation = blocks.activation
        sizes = (blocks.width, blocks.feed_forward)
        self.into = nnx.Linear(*sizes, kernel_init=_INITIAL, rngs=rngs)
        self.out = nnx.Linear(*sizes[::-1], kernel_init=_INITIAL, rngs=rngs)

    def __call__(self, x: jax.Array, real: jax.Array | None) -> jax.Array:
        flat = x.reshape(-1, x.shape[-1])  # one leading axis: see nn/product.py
        return self.out(activation.activate(self.activation, self.into(flat))).reshape(x.shape)


class Slot(nnx.Module):
    """One slot of a layout with its block; the identity, `i`, has no block.

    Attributes:
        norm: Norm, or None.
        block: Attention, FeedForward, or None.
    """

    def __init__(self, letter: str, blocks: Blocks, rngs: nnx.Rngs):
        self.dropout = blocks.dropout
        self.norm = None if letter == "i" else Norm(blocks.norm, blocks.width)
        self.block = _block(letter, blocks, rngs)

    def __call__(
        self, x: jax.Array, real: jax.Array | None = None, keys: jax.Array | None = None
    ) -> jax.Array:
        """x [rows, tokens, width] -> the same shape.

        Args:
            x: tokens.
            real: bool [rows, tokens], False for padding; None for no padding.
            keys: one a row [rows], for dropout; None for none.
        """
        y = self.adds(x, real, keys)
        return x if y is None else x + y

    def adds(self, x: jax.Array, real: jax.Array | None, keys: jax.Array | None):
        """What the slot adds to its input; None for nothing."""
        if self.norm is None or self.block is None:
            return None
        y = self.block(self.norm(x), real)
        return y if keys is None else _dropped(y, keys, self.dropout)


def _block(letter: str, blocks: Blocks, rngs: nnx.Rngs) -> Attention | FeedForward | None:
    if letter == "i":
        return None
    if letter == "f":
        return FeedForward(blocks, rngs)
    return Attention(letter, blocks, rngs)


class Mixture(nnx.Variable):
    """The weight of each candidate of a `Choice`; set by a search, not by the optimizer."""


class Choice(nnx.Module):
    """A slot with several candidate blocks: x + sum over candidates of weight * block output.

    Mandava et al. 2021, section 3; a search sets the weights (`aejax/search`).

    Attributes:
        candidates: a `Slot` for each letter.
        mix: float32 [candidates], the weights, with sum 1; equal at the start.
        imitating: None, or the index of the candidate whose output alone is passed on, without a
            gradient; the others learn to imitate it, and `error` holds their errors.
        error: float32 [candidates], squared error of a candidate's output, over the mean square of
            the imitated candidate's output.
        similarity: float32 [], mean cosine between a token before and after the imitated candidate.
    """

    def __init__(self, letters: str, blocks: Blocks, rngs: nnx.Rngs):
        count = len(letters)
        self.candidates = nnx.List(Slot(letter, blocks, rngs) for letter in letters)
        self.mix = Mixture(jnp.full(count, 1 / count))
        self.error = Mixture(jnp.zeros(count))
        self.similarity = Mixture(jnp.zeros(()))
        self.imitating: int | None = None

    def __call__(
        self, x: jax.Array, real: jax.Array | None = None, keys: jax.Array | None = None
    ) -> jax.Array:
        """As a slot's."""
        if self.imitating is not None:
            return self._imitated(jax.lax.stop_gradient(x), real, keys)
        out, mix = x, self.mix[...].astype(x.dtype)
        for number, candidate in enumerate(self.candidates):
            own = None
            if keys is not None:
                own = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
            y = candidate.adds(x, real, own)
            if y is not None:
                out = out + mix[number] * y
        return out

    def _imitated(self, x, real, keys) -> jax.Array:
        added = [each.adds(x, real, keys) for each in self.candidates]
        target = added[self.imitating or 0]
        target = jnp.zeros_like(x) if target is None else jax.lax.stop_gradient(target)
        scale = jnp.mean(jnp.square(target)) + 1e-9
        errors = [
            jnp.mean(jnp.square(target - (0 if each is None else each))) / scale for each in added
        ]
        self.error.set_value(jnp.stack(errors).astype(jnp.float32))
        self.similarity.set_value(_cosine(x, x + target))
        return x + target


def _cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cosine of the angle between two tokens."""
    product = jnp.sum(x * y, axis=-1)
    return jnp.mean(product / (jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1) + 1e-9))


def _dropped(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """Dropout by a key a row: 0 with probability `rate` (to 1 / 65536), else scaled up."""
    draw = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint16))
    left_out = draw(keys).astype(jnp.int32) < round(rate * _LEVELS)
    return jnp.where(left_out, 0.0, x / (1 - rate)).astype(x.dtype)


class Stack(nnx.Module):
    """The slots of a layout in sequence, then a norm: [rows, tokens, width] -> the same shape.

    Attributes:
        slots: of the layout's letters.
        norm: of the result.
    """

    def __init__(self, layout: Sequence[str], blocks: Blocks, remat: bool, rngs: nnx.Rngs):
        self.remat, self.dropout = remat, blocks.dropout
        self.slots = nnx.List(
            (Slot if len(letters) == 1 else Choice)(letters, blocks, rngs) for letters in layout
        )
        self.norm = Norm(blocks.norm, blocks.width)

    def __call__(
        self, x: jax.Array, real: jax.Array | None = None, keys: jax.Array | None = None
    ) -> jax.Array:
        """As `Slot`; each slot draws from keys of its own."""

        def run(slot: Slot | Choice, x, real, keys):
            return slot(x, real, keys)

        if self.remat:
            run = nnx.remat(run)
        for number, slot in enumerate(self.slots):
            own = None
            if keys is not None and self.dropout:
                own = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
            x = run(slot, x, real, own)
        return self.norm(x)
