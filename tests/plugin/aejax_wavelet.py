"""A coder from outside of aejax: sums and differences of neighbours (Haar), then a linear code."""

import dataclasses
import math

import jax.numpy as jnp
from flax import nnx

from aejax.models.interfaces import Coder


@dataclasses.dataclass
class Wavelet(Coder):
    detail: float = 0.5  # how much differences count

    def encoder(self, shape, features, rngs):
        return Encoder(self.detail, math.prod(shape), features, rngs)

    def decoder(self, latent_dim, shape, outputs, rngs):
        return Decoder(latent_dim, (*shape, outputs), rngs)


class Encoder(nnx.Module):
    def __init__(self, detail, size, features, rngs):
        self.detail, self.linear = detail, nnx.Linear(size, features, rngs=rngs)

    def __call__(self, x, hidden, mask, context=None):
        a, b = jnp.moveaxis(x.reshape(len(x), -1, 2), -1, 0)
        return self.linear(jnp.concatenate([a + b, self.detail * (a - b)], axis=1))


class Decoder(nnx.Module):
    def __init__(self, latent_dim, shape, rngs):
        self.shape, self.linear = shape, nnx.Linear(latent_dim, math.prod(shape), rngs=rngs)

    def __call__(self, z, target, mask, context=None):
        return self.linear(z).reshape(*z.shape[:-1], *self.shape)
