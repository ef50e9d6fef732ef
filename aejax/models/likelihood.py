"""How the decoder's numbers are read as a distribution of the data, p(x given z)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from aejax.nn import bernoulli


def squared(mean: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
    """{"mse": squared error}, elementwise."""
    return {"mse": jnp.square(mean - x)}


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

    def error(self, mean: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        """What evaluation reports of `mean` beside the likelihood, elementwise."""
        return squared(mean, x)

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
    """

    deviation: float = math.sqrt(0.5)

    def __post_init__(self):
        if not self.deviation > 0:
            raise ValueError(f"deviation={self.deviation}: must be above 0")

    def outputs(self) -> int:
        return 1

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """parameters [..., *shape, 1], x [rows, *shape] -> log p of each element, nats."""
        constant = 0.5 * math.log(2 * math.pi * self.deviation**2)
        return -jnp.square(x - parameters[..., 0]) / (2 * self.deviation**2) - constant

    def mean(self, parameters: jax.Array) -> jax.Array:
        return parameters[..., 0]

    def mode(self, parameters: jax.Array) -> jax.Array:
        return parameters[..., 0]

    def error(self, mean: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        """What evaluation reports of `mean` beside the likelihood, elementwise."""
        return squared(mean, x)

    def check(self, interval: bool) -> str | None:
        """Why these data do not suit it, or None: any real values do."""
        return None


@dataclasses.dataclass
class Categorical:
    """Symbols without an order, such as bytes of text; the decoder gives a logit for each.

    Attributes:
        classes: how many symbols there are; x holds whole numbers from 0 to classes - 1.
    """

    classes: int = 256

    def __post_init__(self):
        if self.classes < 2:
            raise ValueError(f"classes={self.classes}: must be at least 2")

    def outputs(self) -> int:
        return self.classes

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """parameters [..., *shape, classes], x [rows, *shape] -> log p of each element, nats."""
        # A sum in place of a lookup: its gradient is no scatter, and fuses with the rest.
        own = jnp.arange(self.classes) == x[..., None].astype(jnp.int32)
        chosen = jnp.sum(jnp.where(own, parameters, 0.0), axis=-1)
        return chosen - jax.nn.logsumexp(parameters, axis=-1)

    def mean(self, parameters: jax.Array) -> jax.Array:
        """The mode: symbols have no order in which they could be averaged."""
        return self.mode(parameters)

    def mode(self, parameters: jax.Array) -> jax.Array:
        """The likeliest symbol, float32."""
        return jnp.argmax(parameters, axis=-1).astype(jnp.float32)

    def error(self, mean: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        """{"wrong": 1 where the symbol is another, 0 where it is right}, elementwise."""
        return {"wrong": (mean != x).astype(jnp.float32)}

    def check(self, interval: bool) -> str | None:
        """Why these data do not suit it, or None; `interval`: x lies in [0, 1]."""
        if not interval:
            return None
        return (
            f"categorical needs whole numbers from 0 to {self.classes - 1}, as they are stored:"
            " data.prepare.scale=False"
        )


KINDS = {"bernoulli": Bernoulli, "gaussian": Gaussian, "categorical": Categorical}
