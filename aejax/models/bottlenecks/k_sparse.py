"""The k-sparse code (Makhzani and Frey 2013, "k-Sparse Autoencoders")."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from aejax.models.batch import Context
from aejax.models.bottlenecks.code import Code


@dataclasses.dataclass
class KSparse:
    """Keeps the k largest features of each row and sets the others to 0; ties are all kept.

    The gradient goes through the kept ones alone.

    Attributes:
        k: how many features stay.
        test_scale: encoding keeps test_scale * k of them (the paper's alpha, 1 to 3).
    """

    k: int = 25
    test_scale: float = 1.0

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"k={self.k}: must be at least 1")
        if not 1 <= self.test_scale < math.inf:
            raise ValueError(f"test_scale={self.test_scale}: must be at least 1, and finite")

    def features(self, latent_dim: int) -> int:
        """How many features it needs for a code of this size; refuses a code smaller than k."""
        kept = round(self.test_scale * self.k)
        if kept > latent_dim:
            raise ValueError(
                f"k={self.k} (test_scale={self.test_scale}) keeps {kept} features of"
                f" latent_dim={latent_dim}: must be at most {latent_dim}"
            )
        return latent_dim

    def encode(self, features: jax.Array) -> jax.Array:
        """The deterministic code: features [rows, n] -> z [rows, n]."""
        return _largest(features, round(self.test_scale * self.k))

    def __call__(self, features: jax.Array, context: Context) -> Code:
        z = _largest(features, self.k) if context.training else self.encode(features)
        return Code(z[None])


def _largest(features: jax.Array, k: int) -> jax.Array:
    smallest_kept = jax.lax.top_k(features, k)[0][..., -1:]
    # In this form what is not a number stays, and the loss shows it.
    return jnp.where(features < smallest_kept, 0.0, features)
