"""One convolution up and one down, with a small image as the code: the coder of a greedy stage.

    x [height, width, channels]  ->  code [height / 2, width / 2, latent_dim]  ->  x

The layers are those of one stage of `Convolutional` (Masci et al. 2011). There the activation comes
before max pooling, here it is the bottleneck's and comes after, which is the same for activations
that are non-decreasing.
"""

import dataclasses
import math

import jax
from flax import nnx

from aejax.models.batch import Context, spread
from aejax.models.coders.convolutional import Convolutional
from aejax.models.interfaces import Coder
from aejax.nn.convolution import Convolution, ConvolutionUp
from aejax.nn.pooling import max_pool


@dataclasses.dataclass
class ConvolutionalStage(Coder):
    """A convolution and pooling, and unpooling and a convolution.

    Attributes:
        kernel: side of the convolution's kernel; where it is odd, the decoder's is larger by one.
        bias: whether both have biases.
    """

    kernel: int = 3
    bias: bool = True

    def encoder(self, shape: tuple[int, ...], features: int, rngs: nnx.Rngs) -> nnx.Module:
        """An encoder of images to so many channels.

        Raises:
            ValueError: rows are not images, or have an odd side.
        """
        return StageEncoder(self, self.image(shape), features, rngs)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs
    ) -> nnx.Module:
        """A decoder of small images to `outputs` numbers for each element.

        Raises:
            ValueError: as `encoder`.
        """
        return StageDecoder(self, latent_dim, shape, outputs, rngs)

    def image(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(height, width, channels) of rows of this shape.

        Raises:
            ValueError: as `encoder`.
        """
        return Convolutional(channels=(1,)).image(shape)


class StageEncoder(nnx.Module):
    """x [rows, *shape] -> features [rows, height / 2, width / 2, channels].

    Hidden elements and padding are replaced by 0.
    """

    def __init__(
        self,
        settings: ConvolutionalStage,
        image: tuple[int, int, int],
        features: int,
        rngs: nnx.Rngs,
    ):
        self.image, size, bias = image, settings.kernel, settings.bias
        self.stage = Convolution(image[-1], features, size, bias=bias, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        hidden: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        for seen in (None if hidden is None else ~hidden, None if mask is None else mask != 0):
            if seen is not None:
                x = x * spread(seen, x.ndim)
        x = x.reshape(len(x), *self.image).astype(self.stage.kernel.dtype)
        return max_pool(self.stage(x))


class StageDecoder(nnx.Module):
    """z [..., height / 2, width / 2, latent] -> parameters of p(x given z) [..., *shape, n]."""

    def __init__(
        self,
        settings: ConvolutionalStage,
        latent_dim: int,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
    ):
        self.shape = (*shape, outputs)
        size, channels = math.ceil(settings.kernel / 2), settings.image(shape)[-1] * outputs
        self.stage = ConvolutionUp(latent_dim, channels, size, bias=settings.bias, rngs=rngs)

    def __call__(
        self,
        z: jax.Array,
        target: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        x = z.reshape(-1, *z.shape[-3:]).astype(self.stage.kernel.dtype)
        return self.stage(x).reshape(*z.shape[:-3], *self.shape)
