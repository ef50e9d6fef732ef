"""The variational code (Kingma and Welling 2014; Burda et al. 2016 with several samples)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from aejax.models.batch import Context
from aejax.models.interfaces import Bottleneck, Code, Posterior


@dataclasses.dataclass
class Variational(Bottleneck):
    """z = mean + exp(log_variance / 2) * noise, the prior is a standard normal.

    With one sample the loss is the negative ELBO, with the divergence in closed form (Kingma and
    Welling 2014, appendix B),

        -log p(x given z) + beta KL,   KL = 1/2 sum_j (mean_j^2 + variance_j - log variance_j - 1),

    with several the importance-weighted bound (Burda et al. 2016, equation 8): log weight =
    log p(z) - log q(z given x) of each sample. Evaluation of a run is deterministic: the code is
    the mean, and the divergence is reported as a term, so its `loss` is no bound on log p(x).

    Attributes:
        beta: what the divergence costs (Higgins et al. 2017, beta-VAE); 1 is the ELBO.
        samples: codes drawn for each row in training.
        free_bits: nats a unit of the code that cost nothing, on the mean over the batch: sum over j
            of max(free_bits, mean KL_j) (Kingma et al. 2016, equation 15).
    """

    beta: float = 1.0
    samples: int = 1
    free_bits: float = 0.0

    has_posterior = True

    def __post_init__(self):
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta={self.beta}: must be at least 0, and finite")
        if self.samples < 1:
            raise ValueError(f"samples={self.samples}: must be at least 1")
        if not self.free_bits >= 0:
            raise ValueError(f"free_bits={self.free_bits}: must be at least 0")
        if self.samples > 1 and (self.beta != 1 or self.free_bits):
            raise ValueError(
                f"samples={self.samples}: the importance-weighted bound takes beta=1 and"
                f" free_bits=0 (they are {self.beta} and {self.free_bits})"
            )

    def features(self, latent_dim: int) -> int:
        """How many features it needs for a code of this size: a mean and a log variance each."""
        return 2 * latent_dim

    def encode(self, features: jax.Array) -> jax.Array:
        """The deterministic code, the mean: features [rows, 2 n] -> z [rows, n]."""
        return self.posterior(features).mean

    def posterior(self, features: jax.Array) -> Posterior:
        """q(z given x): features [rows, 2 n] are the means, then the log variances."""
        return Posterior(*jnp.split(features, 2, axis=-1))

    def __call__(self, features: jax.Array, context: Context) -> Code:
        posterior = self.posterior(features)
        mean, log_variance = posterior
        if not context.training:
            return Code(mean[None], penalties={"kl": self._cost(posterior, context)})
        shape = (self.samples, mean.shape[-1])
        draw = jax.vmap(lambda key: jax.random.normal(key, shape, mean.dtype), out_axes=1)
        noise = draw(context.draw("bottleneck"))
        z = mean + jnp.exp(0.5 * log_variance) * noise
        if self.samples == 1:
            return Code(z, penalties={"kl": self._cost(posterior, context)})
        # log N(z; 0, 1) - log N(z; mean, variance); the constants cancel.
        log_weight = 0.5 * jnp.sum(noise**2 + log_variance - z**2, axis=-1)
        return Code(z, log_weight)

    def prior(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Codes of this shape drawn from the prior, a standard normal."""
        return jax.random.normal(key, shape)

    def _cost(self, posterior: Posterior, context: Context) -> jax.Array:
        """beta KL, [rows], or [] with free bits."""
        each = posterior.divergence()
        if self.free_bits:
            return self.beta * jnp.sum(jnp.maximum(self.free_bits, context.mean(each)))
        return self.beta * jnp.sum(each, axis=-1)
