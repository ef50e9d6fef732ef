"""The plain code: the encoder's features through an activation."""

import dataclasses

import jax

from aejax.models.interfaces import Bottleneck
from aejax.nn.activation import activate, check


@dataclasses.dataclass
class Plain(Bottleneck):
    """z = activation(features).

    Attributes:
        activation: linear (as PCA), relu (as the Keras tutorial), or any name in nn/activation.
    """

    activation: str = "linear"

    takes_tokens = True

    def __post_init__(self):
        check("activation", self.activation)

    def encode(self, features: jax.Array) -> jax.Array:
        """The deterministic code: features [rows, n] -> z [rows, n]."""
        return activate(self.activation, features)
