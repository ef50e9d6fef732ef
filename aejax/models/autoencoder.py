"""The autoencoder: parts in a row.

    x -> corruption -> encoder -> bottleneck -> decoder -> likelihood of x    (+ penalties)

Every classical variant is a choice of parts, and all of them minimise

    -mean over rows of log mean over samples of exp(log p(x given z) + log weight) + penalties

(one sample with log weight -beta KL is the ELBO, several are the importance-weighted bound of
Burda et al. 2016, a plain bottleneck has one sample and weight 0).
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.kinds import part
from aejax.models import bottlenecks, coders, corruption, likelihood, penalties
from aejax.models.batch import Batch, Context, evaluation, row_mean, spread
from aejax.models.bottlenecks import Plain
from aejax.models.bottlenecks.code import Code
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.models.penalties.encode import Encode


@dataclasses.dataclass
class Autoencoder:
    """Settings of an autoencoder: its parts and the size of its code.

    Attributes:
        coder: encoder and decoder.
        latent_dim: size of the code; 0 for a masked model, whose code is the encoder's tokens (with
            coder=transformer and corruption=hidden).
        bottleneck: what a code is.
        likelihood: p(x given z).
        corruption: what is done to the input in training.
        penalty: what the code costs beside.
    """

    coder: Any = part(coders.KINDS, Dense)
    latent_dim: int = 32
    bottleneck: Any = part(bottlenecks.KINDS, Plain)
    likelihood: Any = part(likelihood.KINDS, Bernoulli)
    corruption: Any = part(corruption.KINDS, lambda: None)
    penalty: Any = part(penalties.KINDS, lambda: None)

    def check(self, interval: bool) -> None:
        """Raises ValueError, by name, for parts that do not fit each other or the data.

        Args:
            interval: whether prepared data lie in [0, 1].
        """
        if self.latent_dim < 0:
            raise ValueError(f"latent_dim={self.latent_dim}: must be at least 0")
        if self.masked:
            self._check_masked()
        try:
            self.bottleneck.features(self.latent_dim)
        except ValueError as error:
            raise ValueError(f"bottleneck.{error}") from None
        if problem := self.likelihood.check(interval):
            raise ValueError(f"likelihood: {problem}")
        if self.symbols and isinstance(
            self.corruption, (corruption.Noise, corruption.SaltAndPepper)
        ):
            raise ValueError(
                "corruption: noise and salt_and_pepper are for numbers, and model.likelihood="
                "categorical is for symbols; it takes masking, which puts 0 in their place"
            )
        if hasattr(self.coder, "check") and (problem := self.coder.check(self)):
            raise ValueError(f"coder.{problem}")
        if self.penalty is not None and (problem := self.penalty.check(self)):
            raise ValueError(f"penalty: {problem}")

    @property
    def masked(self) -> bool:
        """Whether the code is the encoder's tokens, and the task to find what was hidden."""
        return self.latent_dim == 0

    def _check_masked(self) -> None:
        for setting, fits, accepted in (
            ("coder", getattr(self.coder, "takes_tokens", False), "transformer"),
            ("bottleneck", isinstance(self.bottleneck, Plain), "plain"),
            (
                "corruption",
                isinstance(self.corruption, corruption.Hidden | corruption.Half),
                "hidden",
            ),
            ("penalty", self.penalty is None, "none"),
        ):
            if not fits:
                raise ValueError(f"latent_dim=0: needs model.{setting}={accepted}, or at least 1")

    @property
    def symbols(self) -> int:
        """How many kinds of symbols the data are made of; 0 where they are numbers."""
        return getattr(self.likelihood, "classes", 0)

    @property
    def rules(self) -> tuple[str, ...]:
        """Where parameters lie on a mesh, as its coder would have it (`config.mesh.rules`)."""
        return getattr(self.coder, "rules", ())

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "AutoencoderModule":
        """Builds the module for batches like this one (shapes alone are looked at)."""
        return AutoencoderModule(self, batch.x.shape[1:], rngs)


class Ran(NamedTuple):
    """What an autoencoder gives for a batch.

    Attributes:
        weight: of elements in the likelihood, as corruption has it; None for 1.
        code: of the bottleneck.
        parameters: of p(x given z), [(samples,) rows, *shape, outputs].
    """

    weight: jax.Array | None
    code: Code
    parameters: jax.Array


class AutoencoderModule(nnx.Module):
    """The one autoencoder, built from its settings.

    Keeps no random streams, no devices and no files: `encode` and `decode` are deterministic and
    usable alone, and all that is random comes with `loss`'s context.
    """

    def __init__(self, settings: Autoencoder, shape: tuple[int, ...], rngs: nnx.Rngs):
        outputs = settings.likelihood.outputs()
        features = settings.bottleneck.features(settings.latent_dim)
        self.settings = nnx.static(settings)
        self.encoder = settings.coder.encoder(shape, features, rngs)
        self.decoder = settings.coder.decoder(settings.latent_dim, shape, outputs, rngs)
        if getattr(settings.coder, "tied", False):
            settings.coder.tie(self.encoder, self.decoder)
        if hasattr(self.decoder, "likelihood"):  # it feeds back what it gives
            self.decoder.likelihood = nnx.static(settings.likelihood)

    def encode(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x [rows, *shape] -> code z [rows, latent_dim], or tokens [rows, tokens, width]."""
        return self.settings.bottleneck.encode(self.encoder(x, None, mask))

    def decode(self, z: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """z [..., latent_dim] -> mean of p(x given z) [..., *shape]."""
        return self.settings.likelihood.mean(self.decoder(z, None, mask))

    def loss(self, batch: Batch, context: Context | None = None):
        """The objective of this module's docstring in nats a row, and its named terms.

        Args:
            batch: prepared rows.
            context: of the training step; None for deterministic evaluation.

        Returns:
            A scalar and {"nll": -log p(x given z), "mse": squared error an element, ...}, scalars.
            In evaluation the decoder runs freely: it is shown nothing of x but the code.
        """
        context = context or evaluation(batch.mask)
        return self.objective(batch, context, self.run(batch, context))

    def run(self, batch: Batch, context: Context) -> Ran:
        """Encodes and decodes: what `objective` is a function of."""
        parts, x, mask = self.settings, batch.x, batch.mask
        noisy = self._corrupted(batch, context)
        # Coders compute in their parameters' type, which may be bfloat16; the rest in that of x.
        features = _coded(self.encoder, noisy.x, noisy.hidden, mask, context).astype(x.dtype)
        code = parts.bottleneck(features, context)
        # XLA on a CPU fuses less around an axis of one sample: a training step took 1.3 x the time.
        z = code.z[0] if len(code.z) == 1 else code.z
        shown = self._shown(x, context)
        parameters = _coded(self.decoder, z, shown, mask, context).astype(x.dtype)
        return Ran(noisy.weight, code, parameters)

    def objective(self, batch: Batch, context: Context, ran: Ran):
        """`loss` of what has run."""
        parts, x, mask, code = self.settings, batch.x, batch.mask, ran.code
        weight = _weight(x, mask, ran.weight)
        each = parts.likelihood.log_prob(*_flat(ran.parameters, x))
        log_p = _per_row(each, weight).reshape(len(code.z), -1)
        bound = log_p if code.log_weight is None else log_p + code.log_weight
        objective = bound[0] if len(bound) == 1 else _log_mean_exp(bound)
        terms = {"nll": -row_mean(jnp.mean(log_p, axis=0), mask)}
        if not context.training:
            means, flat = _flat(parts.likelihood.mean(ran.parameters)[..., None], x)
            mean = jnp.mean(means.reshape(-1, *flat.shape), axis=0)
            for name, error in parts.likelihood.error(mean, flat).items():
                terms[name] = self._mean_element(error, _weight(x, mask, ran.weight), mask)
            if parts.masked:
                terms["nll_element"] = self._mean_element(-each, weight, mask)
        total = -row_mean(objective, mask)
        for name, value in {**code.penalties, **self._penalties(batch, code.z, context)}.items():
            terms[name] = row_mean(value, mask) if value.ndim else value
            total = total + terms[name]
        return total, terms

    def divergence(self, batch: Batch, teacher: Ran, ran: Ran) -> jax.Array:
        """KL from what another model gives for the same rows to what this one does, nats a row.

        Args:
            batch: what both saw, with the same draws.
            teacher: of a model with the same likelihood and as many samples.
            ran: of this one.
        """
        weight = _weight(batch.x, batch.mask, ran.weight)
        pair = [_flat(each.parameters, batch.x)[0] for each in (teacher, ran)]
        each = _per_row(self.settings.likelihood.divergence(*pair), weight)
        return row_mean(jnp.mean(each.reshape(len(ran.code.z), -1), axis=0), batch.mask)

    def _corrupted(self, batch: Batch, context: Context) -> corruption.Corrupted:
        """What the encoder is given: the clean rows in evaluation, but for a masked model.

        Of those, what is hidden in evaluation is drawn by a row's number alone, the same each time.
        """
        if self.settings.corruption is None or not (context.training or self.settings.masked):
            return corruption.Corrupted(batch.x)
        if not context.training:
            index = jnp.arange(len(batch.x)) if batch.index is None else batch.index
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), index)
            context = dataclasses.replace(context, keys=keys)
        return self.settings.corruption(batch.x, context)

    def _shown(self, x: jax.Array, context: Context) -> jax.Array | None:
        """What the decoder is shown of x beside the code: nothing, but for teacher forcing."""
        if not context.training:
            return None
        choose = getattr(self.settings.coder, "shown", None)
        return x if choose is None else choose(x, context)

    def _penalties(self, batch: Batch, z: jax.Array, context: Context) -> dict[str, jax.Array]:
        if self.settings.penalty is None:
            return {}
        encode = Encode(self, batch.mask)
        return self.settings.penalty(encode, batch.x, jnp.mean(z, axis=0), context)

    @staticmethod
    def _mean_element(values: jax.Array, weight: jax.Array | None, mask: jax.Array | None):
        """Mean over the real elements of the real rows: values [rows, elements] -> []."""
        size = jnp.ones_like(values) if weight is None else weight
        total = row_mean(_per_row(values, weight), mask)
        return total / jnp.maximum(row_mean(jnp.sum(size, axis=-1), mask), 1e-9)


def _coded(coder: nnx.Module, *inputs: Any) -> jax.Array:
    """coder(inputs, hidden or shown, mask); with the context where it asks for it (dropout)."""
    return coder(*(inputs if getattr(coder, "takes_context", False) else inputs[:-1]))  # pyright: ignore


def _flat(parameters: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both with the axes of a row as one: [..., rows, elements, outputs] and [rows, elements].

    XLA on a CPU does not vectorise over a last axis of one channel: elementwise work is done flat.
    """
    leading = parameters.ndim - x.ndim
    outputs = parameters.shape[-1]
    flat = parameters.reshape(*parameters.shape[:leading], -1, outputs)
    return flat, x.reshape(len(x), -1)


def _weight(x: jax.Array, mask: jax.Array | None, weight: jax.Array | None) -> jax.Array | None:
    """The product of what weighs elements, [rows, elements], or None for 1 everywhere."""
    factors = [f for f in (mask, weight) if f is not None]
    if not factors:
        return None
    product = jnp.ones(x.shape, jnp.float32)
    for factor in factors:
        product = product * spread(factor, x.ndim)
    return product.reshape(len(x), -1)


def _per_row(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Sums over the elements of a row: [..., rows, elements] -> [..., rows]."""
    return jnp.sum(values if weight is None else values * weight, axis=-1)


def _log_mean_exp(values: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(values, axis=0) - math.log(len(values))
