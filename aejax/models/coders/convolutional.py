"""Encoder of convolutions and pooling with a fully connected code, and its mirror as decoder.

A stage of the encoder is a convolution, its activation, and max pooling of 2x2 pixels (Masci et al.
2011, "Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction"). A stage of the
decoder is unpooling, where each pixel becomes the corner of a 2x2 block of zeros, and a convolution
of the enlarged image (Dosovitskiy et al. 2015, "Learning to Generate Chairs with Convolutional
Neural Networks"). Nothing is computed for the zeros: each of the four pixels of a block depends on
its own quarter of the kernel, so that one small convolution gives all four as channels, and depth
to space moves them to their pixels (Shi et al. 2016, "Is the deconvolution layer the same as a
convolutional layer?").
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.models.batch import Context
from aejax.models.interfaces import Coder
from aejax.nn.activation import activate, check, initializer
from aejax.nn.convolution import Convolution, ConvolutionUp
from aejax.nn.linear import Mirrored
from aejax.nn.pooling import max_pool


@dataclasses.dataclass
class Convolutional(Coder):
    """Stages that halve the image, then layers from what is left of it to the code; mirrored back.

    Attributes:
        channels: of each stage, from the image inwards; each stage halves height and width, which
            must divide.
        kernel: side of the convolutions' kernels; where it is odd, the decoder's are larger by one.
        hidden: sizes of the fully connected hidden layers between the stages and the code.
        activation: of stages and hidden layers (the code's own is the bottleneck's setting).
        bias: whether convolutions and layers have biases.
        remat: compute stages and hidden layers again in the backward pass instead of keeping them.
    """

    channels: tuple[int, ...] = (16, 32)
    kernel: int = 3
    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    bias: bool = True
    remat: bool = False

    def __post_init__(self):
        check("activation", self.activation)
        self.channels, self.hidden = tuple(self.channels), tuple(self.hidden)
        if not self.channels or any(size < 1 for size in self.channels):
            raise ValueError(
                f"channels={self.channels}: must be one number or more, each at least 1"
            )
        if self.kernel < 1:
            raise ValueError(f"kernel={self.kernel}: must be at least 1")
        if any(size < 1 for size in self.hidden):
            raise ValueError(f"hidden={self.hidden}: layer sizes must be at least 1")

    @property
    def sharding_rules(self) -> tuple[str, ...]:
        """Shards only the fully connected layers over the mesh's axis tensor (Krizhevsky 2014).

        Activations of stages are larger than kernels, so kernels are sharded over fsdp and gathered
        where they are used. The layers before the code and before the decoder's image are sharded
        along their inputs, the layers before them in turn along units and inputs: a sum over
        devices then gives the code, or the image, in full on each device.
        """
        inputs, units = (
            ("[02468]", "[13579]") if len(self.hidden) % 2 == 0 else ("[13579]", "[02468]")
        )
        return (
            r"encoder/stages/\d*/kernel=- - - fsdp",
            r"decoder/stages/\d*/kernel=- - fsdp -",
            rf"encoder/layers/\d*{inputs}/weight=fsdp tensor",
            rf"encoder/layers/\d*{units}/weight=tensor fsdp",
            rf"decoder/layers/\d*{inputs}/kernel=tensor fsdp",
            rf"decoder/layers/\d*{units}/kernel=fsdp tensor",
        )

    def encoder(self, shape: tuple[int, ...], features: int, rngs: nnx.Rngs) -> nnx.Module:
        """An encoder of images (height, width) or (height, width, channels) to `features` numbers.

        Raises:
            ValueError: rows are not images, or cannot be halved so often.
        """
        return ConvolutionalEncoder(self, shape, features, rngs)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs
    ) -> nnx.Module:
        """A decoder of codes to `outputs` numbers for each element of images of this shape.

        Raises:
            ValueError: as `encoder`.
        """
        return ConvolutionalDecoder(self, latent_dim, shape, outputs, rngs)

    def as_hidden(self, features: jax.Array) -> jax.Array:
        return activate(self.activation, features)

    def image(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(height, width, channels) of rows of this shape.

        Raises:
            ValueError: as `encoder`.
        """
        if len(shape) not in (2, 3):
            raise ValueError(
                f"coder=convolutional: rows of shape {shape} are no images; they must be (height,"
                " width) or (height, width, channels)"
            )
        height, width = shape[:2]
        stages = len(self.channels)
        if height % 2**stages or width % 2**stages:
            # The lowest set bit is the largest power of 2 that divides both.
            fit = ((height | width) & -(height | width)).bit_length() - 1
            raise ValueError(
                f"coder.channels={self.channels}: {stages} stages halve an image {stages} times,"
                f" so its sides must be multiples of {2**stages}; images of {height} x {width} take"
                f" {f'at most {fit}' if fit else 'none'}"
            )
        return height, width, shape[2] if len(shape) == 3 else 1

    def innermost(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(height, width, channels) after the last stage."""
        height, width, _ = self.image(shape)
        factor = 2 ** len(self.channels)
        return height // factor, width // factor, self.channels[-1]


def _activated(settings: Convolutional, then: Callable = lambda x: x) -> Callable:
    """(layer, x) -> then(activation(layer(x))); one function of both, for remat."""

    def run(layer: Callable, x: jax.Array) -> jax.Array:
        return then(activate(settings.activation, layer(x)))

    return nnx.remat(run) if settings.remat else run


class ConvolutionalEncoder(nnx.Module):
    """x [rows, *shape] -> features [rows, n]; the last layer is linear.

    Hidden elements and padding are replaced by 0.
    """

    def __init__(
        self, settings: Convolutional, shape: tuple[int, ...], features: int, rngs: nnx.Rngs
    ):
        self.settings = settings
        self.image = settings.image(shape)
        initial, linear = initializer(settings.activation), initializer("linear")
        self.stages = nnx.List(
            Convolution(n, m, settings.kernel, bias=settings.bias, initial=initial, rngs=rngs)
            for n, m in itertools.pairwise([self.image[-1], *settings.channels])
        )
        sizes = [math.prod(settings.innermost(shape)), *settings.hidden, features]
        last = len(sizes) - 2
        self.layers = nnx.List(
            Mirrored(n, m, bias=settings.bias, initial=linear if k == last else initial, rngs=rngs)
            for k, (n, m) in enumerate(itertools.pairwise(sizes))
        )

    def __call__(
        self,
        x: jax.Array,
        hidden: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        for seen in (None if hidden is None else ~hidden, None if mask is None else mask != 0):
            if seen is not None:
                x = jnp.where(seen.reshape(seen.shape + (1,) * (x.ndim - seen.ndim)), x, 0.0)
        *before, last = self.layers
        # Activation after pooling would be a quarter of the work, but a step took 1.1 x the time.
        stage, layer = _activated(self.settings, max_pool), _activated(self.settings)
        x = x.reshape(len(x), *self.image).astype(last.kernel.dtype)
        for convolution in self.stages:
            x = stage(convolution, x)
        x = x.reshape(len(x), -1)
        for each in before:
            x = layer(each, x)
        return last(x)


class ConvolutionalDecoder(nnx.Module):
    """z [..., latent] -> parameters of p(x given z) [..., *shape, outputs]; logits are linear."""

    def __init__(
        self,
        settings: Convolutional,
        latent_dim: int,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
    ):
        self.settings = settings
        self.shape = (*shape, outputs)
        self.innermost = settings.innermost(shape)
        initial, linear = initializer(settings.activation), initializer("linear")
        sizes = [latent_dim, *reversed(settings.hidden), math.prod(self.innermost)]
        self.layers = nnx.List(
            nnx.Linear(n, m, use_bias=settings.bias, kernel_init=initial, rngs=rngs)
            for n, m in itertools.pairwise(sizes)
        )
        # A kernel of side k here is one of side 2k on the enlarged image.
        size = math.ceil(settings.kernel / 2)
        channels = [*reversed(settings.channels), settings.image(shape)[-1] * outputs]
        last = len(channels) - 2
        self.stages = nnx.List(
            ConvolutionUp(
                n, m, size, bias=settings.bias, initial=linear if k == last else initial, rngs=rngs
            )
            for k, (n, m) in enumerate(itertools.pairwise(channels))
        )

    def __call__(
        self,
        z: jax.Array,
        target: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        run = _activated(self.settings)
        # One leading axis: with several the kernels' gradients are slow (aejax/nn/product.py).
        x = z.reshape(-1, z.shape[-1]).astype(self.layers[0].kernel.dtype)
        for layer in self.layers:
            x = run(layer, x)
        x = x.reshape(-1, *self.innermost)
        *before, last = self.stages
        for stage in before:
            x = run(stage, x)
        return last(x).reshape(z.shape[:-1] + self.shape)
