"""How the decoder's numbers are read as a distribution of the data, p(x given z)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from aejax.nn import bernoulli
from aejax.nn.activation import activate, check


@dataclasses.dataclass
class Bernoulli:
    """Binary pixels, or grey ones in [0, 1] read as probabilities; the decoder gives logits.

    -log p is the binary cross-entropy. It has a floor on grey data, the entropy of the pixels
    themselves (MNIST: 0.0581 nats a pixel), so squared error is reported beside it.
    """

    def outputs(self) -> int:
        """How many numbers the decoder gives for each element of x."""
        return 1

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """parameters [..., *shape, 1], x [rows, *shape] -> log p of each element, nats."""
        return bernoulli.log_prob(parameters[..., 0], x)

    def mean(self, parameters: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(parameters[..., 0])

    def mode(self, parameters: jax.Array) -> jax.Array:
        return (parameters[..., 0] > 0).astype(parameters.dtype)

    def check(self, interval: bool) -> str | None:
        """Why these data do not suit it, or None; `interval`: x lies in [0, 1]."""
        if interval:
            return None
        return (
            "bernoulli needs data in [0, 1]: data.prepare.scale=True and data.prepare.centre=none,"
            " or model.likelihood=gaussian"
        )


@dataclasses.dataclass
class Gaussian:
    """Real values with one fixed deviation: -log p is the squared error over 2 deviation**2.

    The default, sqrt(1/2), makes it the squared error itself (plus a constant).

    Attributes:
        deviation: standard deviation of each element, in units of x.
        activation: of the mean, for data that are such activations themselves: any name in
            nn/activation.
    """

    deviation: float = math.sqrt(0.5)
    activation: str = "linear"

    def __post_init__(self):
        if not self.deviation > 0:
            raise ValueError(f"deviation={self.deviation}: must be above 0")
        check("activation", self.activation)

    def outputs(self) -> int:
        return 1

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """parameters [..., *shape, 1], x [rows, *shape] -> log p of each element, nats."""
        constant = 0.5 * math.log(2 * math.pi * self.deviation**2)
        return -jnp.square(x - self.mean(parameters)) / (2 * self.deviation**2) - constant

    def mean(self, parameters: jax.Array) -> jax.Array:
        return activate(self.activation, parameters[..., 0])

    def mode(self, parameters: jax.Array) -> jax.Array:
        return self.mean(parameters)

    def check(self, interval: bool) -> str | None:
        """Why these data do not suit it, or None: any real values do."""
        return None


KINDS = {"bernoulli": Bernoulli, "gaussian": Gaussian}
