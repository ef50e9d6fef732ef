"""The plain code: the encoder's features through an activation."""

import dataclasses

import jax

from aejax.models.batch import Context
from aejax.models.bottlenecks.code import Code
from aejax.nn.activation import activate, check


@dataclasses.dataclass
class Plain:
    """z = activation(features).

    Attributes:
        activation: linear (as PCA), relu (as the Keras tutorial), or any name in nn/activation.
    """

    activation: str = "linear"

    def __post_init__(self):
        check("activation", self.activation)

    def features(self, latent_dim: int) -> int:
        """How many features it needs for a code of this size."""
        return latent_dim

    def encode(self, features: jax.Array) -> jax.Array:
        """The deterministic code: features [rows, n] -> z [rows, n]."""
        return activate(self.activation, features)

    def __call__(self, features: jax.Array, context: Context) -> Code:
        return Code(self.encode(features)[None])
