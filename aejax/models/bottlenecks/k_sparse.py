"""The k-sparse code (Makhzani and Frey 2013, "k-Sparse Autoencoders")."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from aejax.models.batch import Context
from aejax.models.interfaces import Bottleneck, Code


@dataclasses.dataclass
class KSparse(Bottleneck):
    """Keeps the k largest features of each row and sets the others to 0; of ties the first.

    The gradient goes through the kept ones alone. A small k from the start leaves units that are
    never kept and so never learn: the paper lets k fall linearly over the first half of training.

    Attributes:
        k: how many features stay.
        test_scale: encoding keeps test_scale * k of them (the paper's alpha, 1 to 3).
        start: how many stay at the first step; 0 for k.
        anneal_steps: updates over which `start` falls to k.
    """

    k: int = 25
    test_scale: float = 1.0
    start: int = 0
    anneal_steps: int = 0

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"k={self.k}: must be at least 1")
        if not 1 <= self.test_scale < math.inf:
            raise ValueError(f"test_scale={self.test_scale}: must be at least 1, and finite")
        if self.start and self.start < self.k:
            raise ValueError(f"start={self.start}: must be 0, or at least k={self.k}")
        if self.anneal_steps < 0 or bool(self.start) != bool(self.anneal_steps):
            raise ValueError(
                f"anneal_steps={self.anneal_steps}: must be above 0 with start, and 0 without"
                f" (start={self.start})"
            )

    def features(self, latent_dim: int) -> int:
        """How many features it needs for a code of this size; refuses one that keeps too many."""
        kept = round(self.test_scale * self.k)
        if kept > latent_dim:
            raise ValueError(
                f"k={self.k} (test_scale={self.test_scale}) keeps {kept} features of"
                f" latent_dim={latent_dim}: must be at most {latent_dim}"
            )
        if self.start > latent_dim:
            raise ValueError(f"start={self.start}: must be at most latent_dim={latent_dim}")
        return latent_dim

    def encode(self, features: jax.Array) -> jax.Array:
        """The deterministic code: features [rows, n] -> z [rows, n]."""
        kept = round(self.test_scale * self.k)
        return _largest(features, kept, jnp.int32(kept))

    def __call__(self, features: jax.Array, context: Context) -> Code:
        if not context.training:
            return Code(self.encode(features)[None])
        return Code(_largest(features, max(self.k, self.start), self._now(context))[None])

    def _now(self, context: Context) -> jax.Array:
        """k at this step."""
        if context.step is None or not self.start:
            return jnp.int32(self.k)
        share = jnp.minimum(context.step / self.anneal_steps, 1.0)
        return jnp.round(self.start + (self.k - self.start) * share).astype(jnp.int32)


def _largest(features: jax.Array, most: int, k: jax.Array) -> jax.Array:
    """Keeps the k largest of each row, k [] at most `most`."""
    found = jax.lax.top_k(jax.lax.stop_gradient(features), most)
    smallest, last = (jax.lax.dynamic_index_in_dim(one, k - 1, axis=-1) for one in found)
    # Of equal features top_k has the first ones first.
    late = (features == smallest) & (jnp.arange(features.shape[-1]) > last)
    # In this form what is not a number stays, and the loss shows it.
    return jnp.where((features < smallest) | late, 0.0, features)
