"""Fully connected encoder and decoder: linear without hidden layers, deep with several.

With no hidden layer, a linear code and squared error, the optimum spans the principal components
(Baldi and Hornik 1989; Oja 1982). With a relu code, 784-32-784 and cross-entropy it is the first
model of the Keras tutorial "Building autoencoders in Keras".
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.models.batch import Context, spread
from aejax.models.interfaces import Coder, Likelihood
from aejax.nn import dropout
from aejax.nn.activation import activate, check, initializer
from aejax.nn.linear import Mirrored


@dataclasses.dataclass
class Dense(Coder):
    """Layers of sizes `hidden` from the data to the code, and mirrored back.

    Attributes:
        hidden: sizes of the hidden layers, from the data inwards; () for none.
        activation: of the hidden layers (the code's own is the bottleneck's setting).
        bias: whether layers have biases.
        remat: compute hidden layers again in the backward pass instead of keeping them.
        tied: the decoder's kernels are the encoder's weights, transposed (Vincent et al. 2010); its
            biases are its own.
        dropout: share of the units of the encoder's hidden layers that are put to 0 in training.
    """

    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    bias: bool = True
    remat: bool = False
    tied: bool = False
    dropout: float = 0.0

    # Over the mesh's axis tensor layers are sharded along their units and along their inputs, in
    # turn, so that two layers need one sum over devices (Shoeybi et al. 2019, "Megatron-LM").
    sharding_rules = (
        r"encoder/layers/\d*[02468]/weight=tensor fsdp",
        r"encoder/layers/\d*[13579]/weight=fsdp tensor",
        r"decoder/layers/\d*[02468]/kernel=fsdp tensor",
        r"decoder/layers/\d*[13579]/kernel=tensor fsdp",
    )

    def __post_init__(self):
        check("activation", self.activation)
        dropout.check("dropout", self.dropout)
        self.hidden = tuple(self.hidden)
        if any(size < 1 for size in self.hidden):
            raise ValueError(f"hidden={self.hidden}: layer sizes must be at least 1")

    def encoder(self, shape: tuple[int, ...], features: int, rngs: nnx.Rngs) -> nnx.Module:
        """An encoder of rows of this shape to `features` numbers."""
        return DenseEncoder(self, shape, features, rngs)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs
    ) -> nnx.Module:
        """A decoder of codes to `outputs` numbers for each element of rows of this shape."""
        return DenseDecoder(self, latent_dim, shape, outputs, rngs)

    def as_hidden(self, features: jax.Array) -> jax.Array:
        return activate(self.activation, features)

    def connect(self, encoder: Any, decoder: Any, likelihood: Likelihood) -> None:
        """With `tied`, gives each layer of the decoder the weight of the encoder's mirror layer.

        Raises:
            ValueError: encoder and decoder do not mirror each other.
        """
        if not self.tied:
            return
        for into, out in zip(encoder.layers, reversed(decoder.layers), strict=True):
            if into.weight.shape != out.kernel.shape:
                raise ValueError(
                    f"coder.tied=True: the encoder's {into.kernel.shape} does not mirror the"
                    f" decoder's {out.kernel.shape}; it takes a bottleneck with one feature a unit"
                    " and a likelihood with one number an element"
                )
            out.kernel = into.weight


def _initial(settings: Dense, sizes: list[int]) -> list[nnx.Initializer]:
    """The initializer of each layer's kernel; the last layer is linear."""
    hidden = initializer(settings.activation)
    return [hidden] * (len(sizes) - 2) + [initializer("linear")]


def _run(
    layers: nnx.List, settings: Dense, x: jax.Array, context: Context | None = None
) -> jax.Array:
    """Applies all layers in the type of their kernels; the last one is linear.

    With the context of a training step hidden layers have dropout (`Dense.dropout`).
    """

    def hidden(layer: Mirrored | nnx.Linear, x: jax.Array) -> jax.Array:
        return activate(settings.activation, layer(x))

    if settings.remat:
        hidden = nnx.remat(hidden)
    *before, last = layers
    # One leading axis: with several the kernels' gradients are slow (aejax/nn/product.py).
    rows = x.reshape(-1, x.shape[-1]).astype(last.kernel.dtype)
    for number, layer in enumerate(before):
        rows = hidden(layer, rows)
        if settings.dropout and context is not None and context.training:
            rows = dropout.dropout(rows, settings.dropout, context.draw(f"dropout {number}"))
    return last(rows).reshape(*x.shape[:-1], -1)


class DenseEncoder(nnx.Module):
    """x [rows, *shape] -> features [rows, n]; the last layer is linear."""

    def __init__(self, settings: Dense, shape: tuple[int, ...], features: int, rngs: nnx.Rngs):
        self.settings = settings
        sizes = [math.prod(shape), *settings.hidden, features]
        self.layers = nnx.List(
            Mirrored(n, m, bias=settings.bias, initial=initial, rngs=rngs)
            for (n, m), initial in zip(
                itertools.pairwise(sizes), _initial(settings, sizes), strict=True
            )
        )

    def __call__(
        self,
        x: jax.Array,
        hidden: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        if mask is not None:
            x = jnp.where(spread(mask, x.ndim) != 0, x, 0.0)
        return _run(self.layers, self.settings, x.reshape(len(x), -1), context)


class DenseDecoder(nnx.Module):
    """z [..., latent] -> parameters of p(x given z) [..., *shape, outputs]; logits are linear."""

    def __init__(
        self,
        settings: Dense,
        latent_dim: int,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
    ):
        self.settings = settings
        self.shape = (*shape, outputs)
        sizes = [latent_dim, *reversed(settings.hidden), math.prod(self.shape)]
        self.layers = nnx.List(
            nnx.Linear(n, m, use_bias=settings.bias, kernel_init=initial, rngs=rngs)
            for (n, m), initial in zip(
                itertools.pairwise(sizes), _initial(settings, sizes), strict=True
            )
        )

    def __call__(
        self,
        z: jax.Array,
        target: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        return _run(self.layers, self.settings, z).reshape(z.shape[:-1] + self.shape)
