"""Likelihoods p(x given z): how the decoder's outputs parametrise a distribution of the data."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from aejax.models.interfaces import Likelihood
from aejax.nn import bernoulli
from aejax.nn.activation import activate, check
from aejax.registry import Kinds


@dataclasses.dataclass
class Bernoulli(Likelihood):
    """Binary pixels, or grey ones in [0, 1] read as probabilities; the decoder gives logits.

    -log p is the binary cross-entropy. It has a floor on grey data, the entropy of the pixels
    themselves (MNIST: 0.0581 nats a pixel), so squared error is reported as well.
    """

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """parameters [..., *shape, 1], x [rows, *shape] -> log p of each element, nats."""
        return bernoulli.log_prob(parameters[..., 0], x)

    def divergence(self, teacher: jax.Array, parameters: jax.Array) -> jax.Array:
        """KL(p(x given teacher's parameters) || p(x given these)) of each element, nats."""
        likely = self.mean(teacher)
        return self.log_prob(teacher, likely) - self.log_prob(parameters, likely)

    def mean(self, parameters: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(parameters[..., 0])

    def mode(self, parameters: jax.Array) -> jax.Array:
        return (parameters[..., 0] > 0).astype(parameters.dtype)

    def check(self, interval: bool) -> None:
        if not interval:
            raise ValueError(
                "bernoulli needs data in [0, 1]: data.prepare.scale=True and"
                " data.prepare.centre=none, or model.likelihood=gaussian"
            )


VARIANCES = ("fixed", "learned")


@dataclasses.dataclass
class Gaussian(Likelihood):
    """Real values: -log p = (x - mean)^2 / (2 deviation^2) + log deviation + log(2 pi) / 2.

    With one fixed deviation this is the squared error over 2 deviation^2; the default, sqrt(1/2),
    makes it the squared error itself (plus a constant). A learned one comes from the decoder's
    second number for each element (Kingma and Welling 2014, appendix C.2),

        deviation = least + exp(number),   log deviation = log least + softplus(number - log least),

    with the soft floor of Rybkin, Daniilidis and Levine (2021). Without a floor the likelihood of
    an element that never varies is unbounded, and training diverges.

    Attributes:
        deviation: standard deviation of each element, in units of x, where it is fixed.
        activation: of the mean, for data that are such activations themselves: any name in
            nn/activation.
        variance: fixed, or learned: a number of its own for each element and row.
        least: floor of a learned deviation, in units of x.
    """

    deviation: float = math.sqrt(0.5)
    activation: str = "linear"
    variance: str = "fixed"
    least: float = 0.01

    def __post_init__(self):
        for name in ("deviation", "least"):
            if not 0 < getattr(self, name) < math.inf:
                value = getattr(self, name)
                raise ValueError(f"{name}={value}: must be above 0, and finite")
        check("activation", self.activation)
        if self.variance not in VARIANCES:
            raise ValueError(f"variance={self.variance}: must be {' or '.join(VARIANCES)}")

    @property
    def learned(self) -> bool:
        return self.variance == "learned"

    def outputs(self) -> int:
        """How many numbers the decoder gives for each element of x."""
        return 2 if self.learned else 1

    def log_deviation(self, parameters: jax.Array) -> jax.Array:
        """A learned deviation's logarithm: parameters [..., *shape, 2] -> [..., *shape]."""
        least = math.log(self.least)
        return least + jax.nn.softplus(parameters[..., 1] - least)

    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """parameters [..., *shape, outputs], x [rows, *shape] -> log p of each element, nats."""
        square = jnp.square(x - self.mean(parameters))
        if not self.learned:
            constant = 0.5 * math.log(2 * math.pi * self.deviation**2)
            return -square / (2 * self.deviation**2) - constant
        log_deviation = self.log_deviation(parameters)
        # Multiplies by the precision, which the floor bounds; the variance itself could overflow.
        precision = jnp.exp(-2 * log_deviation)
        return -0.5 * square * precision - log_deviation - 0.5 * math.log(2 * math.pi)

    def divergence(self, teacher: jax.Array, parameters: jax.Array) -> jax.Array:
        """KL(p(x given teacher's parameters) || p(x given these)) of each element, nats."""
        square = jnp.square(self.mean(teacher) - self.mean(parameters))
        if not self.learned:
            return square / (2 * self.deviation**2)
        own, other = self.log_deviation(parameters), self.log_deviation(teacher)
        ratio = jnp.exp(2 * (other - own)) + square * jnp.exp(-2 * own)
        return own - other + 0.5 * (ratio - 1)

    def mean(self, parameters: jax.Array) -> jax.Array:
        return activate(self.activation, parameters[..., 0])


@dataclasses.dataclass
class Categorical(Likelihood):
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
        # A masked sum instead of indexing: its gradient is no scatter, and XLA can fuse it.
        own = jnp.arange(self.classes) == x[..., None].astype(jnp.int32)
        chosen = jnp.sum(jnp.where(own, parameters, 0.0), axis=-1)
        return chosen - jax.nn.logsumexp(parameters, axis=-1)

    def divergence(self, teacher: jax.Array, parameters: jax.Array) -> jax.Array:
        """KL(p(x given teacher's parameters) || p(x given these)) of each element, nats."""
        own, other = (jax.nn.log_softmax(each, axis=-1) for each in (parameters, teacher))
        return jnp.sum(jnp.exp(other) * (other - own), axis=-1)

    def mean(self, parameters: jax.Array) -> jax.Array:
        """The mode: symbols have no order in which they could be averaged."""
        return self.mode(parameters)

    def mode(self, parameters: jax.Array) -> jax.Array:
        """The likeliest symbol, float32."""
        return jnp.argmax(parameters, axis=-1).astype(jnp.float32)

    def error(self, mean: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        """{"wrong": 1 where the symbol is another, 0 where it is right}, elementwise."""
        return {"wrong": (mean != x).astype(jnp.float32)}

    def check(self, interval: bool) -> None:
        if interval:
            raise ValueError(
                f"categorical needs whole numbers from 0 to {self.classes - 1}, as they are"
                " stored: data.prepare.scale=False"
            )


KINDS = Kinds(
    "aejax.likelihoods",
    Likelihood,
    {"bernoulli": Bernoulli, "gaussian": Gaussian, "categorical": Categorical},
)
