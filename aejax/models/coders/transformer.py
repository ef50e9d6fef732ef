"""A transformer as encoder and decoder, with any block in any slot (Vaswani et al. 2017).

Tokens are patches of an image (Dosovitskiy et al. 2021), frames of a sequence, or symbols. There
are two uses.

With a code: all tokens together become one vector, which is the decoder's only input. The decoder's
tokens are a linear function of it.

Masked (`latent_dim=0`, with `corruption=hidden`): the code of a row is its tokens, and the model
predicts the hidden ones from the others (Devlin et al. 2019, BERT; He et al. 2022, masked
autoencoders, whose encoder leaves hidden tokens out; here a learned vector replaces them).
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.models.batch import Context
from aejax.models.interfaces import Coder
from aejax.nn import activation
from aejax.nn.blocks import Blocks, Stack, angles
from aejax.nn.embedding import embedded
from aejax.nn.layout import ATTENTION, slots
from aejax.nn.product import product
from aejax.nn.tokens import Cut, cut

_INITIAL = nnx.initializers.glorot_uniform()
_POSITIONS = ("learned", "rotary", "relative")
_NORMS = ("layer", "rms")
_POOLS = ("flatten", "mean")


@dataclasses.dataclass
class Transformer(Coder):
    """Slots that each hold one block, in the encoder and in the decoder.

    Attributes:
        width: numbers of a token.
        heads: of attention; divide the width.
        feed_forward: hidden units of a feed-forward block.
        encoder_layout: letters of a (attention), f (feed-forward), w (attention in a window), i
            (nothing), a slot each, or a rule: interleaved:LAYERS, sandwich:K:LAYERS, par:P:LAYERS.
        decoder_layout: as encoder_layout.
        patch: side of the patches that an image is cut into; 0 for sequences, a token a step.
        symbols: how many kinds of symbols there are (256 for bytes), 0 where elements are numbers.
        window: how far w sees, in tokens to either side.
        positions: learned (added to tokens), rotary (queries and keys turn), relative (a bias for
            each offset, started with heads that look at their neighbours; of sequences alone).
        pool: how tokens become the code: flatten (one linear layer of all) or mean.
        norm: layer | rms.
        activation: of feed-forward blocks.
        dropout: share of what a block adds that is left out in training.
        remat: compute blocks again in the backward pass instead of keeping what is in them.
    """

    width: int = 64
    heads: int = 4
    feed_forward: int = 256
    encoder_layout: str = "afaf"
    decoder_layout: str = "afaf"
    patch: int = 0
    symbols: int = 0
    window: int = 16
    positions: str = "learned"
    pool: str = "flatten"
    norm: str = "layer"
    activation: str = "gelu"
    dropout: float = 0.0
    remat: bool = False

    # latent_dim=0 is accepted: the code is then the tokens.
    code_is_tokens = True
    # Heads and hidden units are sharded over the mesh's axis tensor: they are the last axis of a
    # block's input kernel and the first of its output kernel, so that a block needs one sum over
    # devices (Shoeybi et al. 2019).
    sharding_rules = (r".*/block/into(/kernel)?=fsdp tensor", r".*/block/out/kernel=tensor fsdp")

    def __post_init__(self):
        activation.check("activation", self.activation)
        for name in ("width", "heads", "feed_forward", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads}: must divide width={self.width}")
        if self.patch < 0:
            raise ValueError(f"patch={self.patch}: must be at least 0")
        if self.symbols < 0 or self.symbols == 1:
            raise ValueError(f"symbols={self.symbols}: must be 0 (numbers) or at least 2")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must be at least 0 and below 1")
        for name, accepted in (("positions", _POSITIONS), ("pool", _POOLS), ("norm", _NORMS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)}: must be {' or '.join(accepted)}")
        if self.symbols and self.patch:
            raise ValueError(f"patch={self.patch}: must be 0 with symbols={self.symbols}")
        if self.positions == "relative" and self.patch:
            raise ValueError("positions=relative: is for sequences; with patches learned or rotary")
        for name in ("encoder_layout", "decoder_layout"):
            try:
                slots(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}={error}") from None

    def check(self, model: Any) -> None:
        if model.symbols == self.symbols:
            return
        if model.symbols:
            raise ValueError(
                f"symbols={self.symbols}: must be model.likelihood.classes={model.symbols}"
            )
        raise ValueError(
            f"symbols={self.symbols}: needs model.likelihood=categorical, as many classes"
        )

    def check_platform(self, platform: str, compute: str, tensor: int) -> None:
        if platform == "gpu" and compute == "bfloat16" and self.heads % tensor:
            raise ValueError(
                f"config.mesh.tensor={tensor} does not divide model.coder.heads={self.heads}:"
                " on a GPU in bfloat16 it must"
            )

    def is_transferable(self, name: str, other: Any) -> bool:
        """Whether a parameter of this name has the same meaning in a coder with settings `other`.

        It has not if the two layouts have different kinds of blocks in its slot, although name and
        shape may be the same. All kinds of attention count as the same block.
        """
        if type(other) is not type(self):
            return True
        found = re.fullmatch(r"(encoder|decoder)/stack/slots/(\d+)/.*", name)
        if not found:
            return True
        stack, number = f"{found[1]}_layout", int(found[2])
        kinds = [
            ["a" if letters in ATTENTION else letters for letters in slots(getattr(each, stack))]
            for each in (self, other)
        ]
        return all(number < len(kind) for kind in kinds) and kinds[0][number] == kinds[1][number]

    def encoder(self, shape: tuple[int, ...], features: int, rngs: nnx.Rngs) -> nnx.Module:
        """An encoder of rows of this shape to `features` numbers; with 0, to its tokens.

        Raises:
            ValueError: rows cannot be cut into tokens, or heads are too small for rotary positions.
        """
        return TransformerEncoder(self, shape, features, rngs)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs
    ) -> nnx.Module:
        """A decoder of codes (with latent_dim 0 of tokens) to `outputs` numbers for each element.

        Raises:
            ValueError: as `encoder`.
        """
        return TransformerDecoder(self, latent_dim, shape, outputs, rngs)

    def blocks(self, grid: tuple[int, ...]) -> Blocks:
        """The settings that all blocks share, for tokens on this grid."""
        turning = self.positions == "rotary"
        return Blocks(
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            window=self.window,
            norm=self.norm,
            activation=self.activation,
            dropout=self.dropout,
            relative=self.positions == "relative",
            rotary=angles(grid, self.width // self.heads) if turning else None,
            tokens=math.prod(grid),
        )


def _real(mask: jax.Array | None, pieces: Cut) -> jax.Array | None:
    """Tokens with at least one real element, bool [rows, tokens]; None without padding.

    A mask of shape [rows] means that there is no padding within rows.
    """
    if mask is None or mask.ndim == 1:
        return None
    return jnp.any(pieces.marks(mask != 0), axis=-1)


def _keys(context: Context | None, part: str, rate: float) -> jax.Array | None:
    if context is None or not context.training or not rate:
        return None
    return context.draw(f"dropout {part}")


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs, bias: bool = True) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=_INITIAL, rngs=rngs)


class TransformerEncoder(nnx.Module):
    """x [rows, *shape] -> features [rows, n], or tokens [rows, tokens, width].

    Tokens that are hidden as a whole are replaced by a learned vector, hidden elements of other
    tokens by 0. The values of hidden elements and padding do not change any bit of the result.
    """

    def __init__(self, settings: Transformer, shape: tuple[int, ...], features: int, rngs):
        self.settings = settings
        self.pieces = nnx.static(cut(shape, settings.patch, settings.symbols))
        width, tokens = settings.width, self.pieces.tokens
        normal = nnx.initializers.normal
        if settings.symbols:
            table = normal(1.0)(rngs.params(), (settings.symbols, width))
        else:
            table = _INITIAL(rngs.params(), (self.pieces.elements, width))
        self.table = nnx.Param(table)
        self.hidden = nnx.Param(normal(0.02)(rngs.params(), (width,)))
        learned = settings.positions == "learned"
        # About as large as the tokens: attention depends on positions from the first step.
        start = normal(0.5)(rngs.params(), (tokens, width)) if learned else None
        self.positions = None if start is None else nnx.Param(start)
        blocks = settings.blocks(self.pieces.grid)
        self.stack = Stack(slots(settings.encoder_layout), blocks, settings.remat, rngs)
        size = tokens * width if settings.pool == "flatten" else width
        self.code = _linear(size, features, rngs) if features else None

    def __call__(
        self,
        x: jax.Array,
        hidden: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        real = _real(mask, self.pieces)
        keys = _keys(context, "encoder", self.settings.dropout)
        tokens = self.stack(self._tokens(x, hidden, mask), real, keys)
        if self.code is None:
            return tokens
        if real is not None:
            tokens = jnp.where(real[..., None], tokens, 0)
        if self.settings.pool == "flatten":
            return self.code(tokens.reshape(len(x), -1))
        total = jnp.sum(tokens, axis=1)
        if real is None:
            return self.code(total / tokens.shape[1])
        return self.code(total / jnp.maximum(jnp.sum(real, axis=1), 1)[:, None].astype(total.dtype))

    def _tokens(self, x, hidden, mask) -> jax.Array:
        """[rows, tokens, width], with positions."""
        pieces, dtype = self.pieces, self.table.dtype
        x = pieces.patchify(x)
        gone = None if hidden is None else pieces.marks(hidden)
        # A mask of shape [rows] means that there is no padding within rows.
        padding = None if mask is None or mask.ndim == 1 else pieces.marks(mask == 0)
        nothing = -1 if self.settings.symbols else 0
        for unseen in (gone, padding):
            if unseen is not None:
                x = jnp.where(unseen, nothing, x)
        if self.settings.symbols:
            tokens = embedded(self.table[...], x[..., 0].astype(jnp.int32))
        else:
            tokens = product(x.astype(dtype), self.table[...])
        if gone is not None:
            whole = jnp.all(gone, axis=-1, keepdims=True)
            tokens = jnp.where(whole, self.hidden[...], tokens)
        return tokens if self.positions is None else tokens + self.positions[...]


class TransformerDecoder(nnx.Module):
    """z [..., latent] or tokens [..., tokens, width] -> parameters of p(x given z).

    These are [..., *shape, outputs]. With a code, tokens are a linear function of it; learned
    positions are added.
    """

    def __init__(
        self, settings: Transformer, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs
    ):
        self.settings, self.outputs, self.latent_dim = settings, outputs, latent_dim
        self.pieces = nnx.static(cut(shape, settings.patch, settings.symbols))
        width, tokens = settings.width, self.pieces.tokens
        size = tokens * width if settings.pool == "flatten" else width
        # No bias: it would be redundant with the positions.
        self.start = _linear(latent_dim, size, rngs, bias=False) if latent_dim else None
        # With a code, learned positions are always added: they are also the bias of `start`.
        learned = settings.positions == "learned" or bool(latent_dim)
        normal = nnx.initializers.normal(0.5)
        start = normal(rngs.params(), (tokens, width)) if learned else None
        self.positions = None if start is None else nnx.Param(start)
        blocks = settings.blocks(self.pieces.grid)
        self.stack = Stack(slots(settings.decoder_layout), blocks, settings.remat, rngs)
        self.out = _linear(width, self.pieces.elements * outputs, rngs)

    def __call__(
        self,
        z: jax.Array,
        target: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        leading = z.shape[: -1 if self.latent_dim else -2]
        tokens = self._tokens(z.reshape(-1, *z.shape[len(leading) :]))
        rows = len(tokens)
        real = _real(mask, self.pieces)
        keys = _keys(context, "decoder", self.settings.dropout)
        if real is not None:  # the same for each sample of a code
            real = jnp.tile(real, (rows // len(real), 1))
        if keys is not None:
            samples = jnp.arange(rows // len(keys))
            each = jax.vmap(lambda n: jax.vmap(lambda key: jax.random.fold_in(key, n))(keys))
            keys = each(samples).reshape(rows)
        tokens = self.stack(tokens, real, keys)
        # One leading axis: see nn/product.py.
        out = self.out(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:2], -1)
        return self.pieces.unpatchify(out, self.outputs).reshape(
            *leading, *self.pieces.shape, self.outputs
        )

    def _tokens(self, z: jax.Array) -> jax.Array:
        z = z.astype(self.out.kernel.dtype)
        if self.start is not None:
            flatten = self.settings.pool == "flatten"
            z = self.start(z).reshape(len(z), -1 if flatten else 1, self.settings.width)
        return z if self.positions is None else z + self.positions[...]
