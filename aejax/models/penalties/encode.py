"""What a penalty is given of the model: its deterministic encoder."""

import dataclasses
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Encode:
    """`encode(x)`: x [rows, *shape] -> z [rows, latent_dim].

    Attributes:
        module: the autoencoder; for penalties that know a shorter way for some encoders.
        mask: of the batch, as in `Batch`.
    """

    module: Any
    mask: jax.Array | None

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.module.encode(x, self.mask)
