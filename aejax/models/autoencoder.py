"""The autoencoder as a sequence of parts.
    x -> corruption -> encoder -> bottleneck -> decoder -> likelihood of x    (+ penalties)

Every classical variant is a choice of parts, and all of them minimise

    -mean over rows of log mean over samples of exp(log p(x given z) + log weight) + penalties

(One sample with log weight -beta KL gives the ELBO. Several samples give the importance-weighted
bound of Burda et al. 2016. A plain bottleneck has one sample of log weight 0.)
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
from aejax.models.coders import Dense
from aejax.models.interfaces import Code, Corrupted, PenaltyInputs, Target, Trainable, Update
from aejax.models.likelihood import Bernoulli
from aejax.registry import Kinds

TARGETS = Kinds("aejax.targets", Target, {"none": None})


@dataclasses.dataclass
class Autoencoder(Trainable):
    """Settings of an autoencoder: its parts and the size of its code.

    Attributes:
        coder: encoder and decoder.
        latent_dim: size of the code; 0 for a masked model, whose code is the encoder's tokens (with
            coder=transformer and corruption=hidden).
        bottleneck: what a code is.
        likelihood: p(x given z).
        corruption: what is done to the input in training.
        penalty: terms that are added to the loss; none for no terms.
        target: the decoder's target; none for x itself.
    """

    coder: Any = part(coders.KINDS, Dense)
    latent_dim: int = 32
    bottleneck: Any = part(bottlenecks.KINDS, Plain)
    likelihood: Any = part(likelihood.KINDS, Bernoulli)
    corruption: Any = part(corruption.KINDS, lambda: None)
    penalty: Any = part(penalties.KINDS, lambda: None)
    target: Any = part(TARGETS, lambda: None)

    decodes = True

    def check(self, interval: bool) -> None:
        """Raises ValueError, by name, for parts that do not fit each other or the data.

        Args:
            interval: whether prepared data lie in [0, 1].
        """
        if self.latent_dim < 0:
            raise ValueError(f"latent_dim={self.latent_dim}: must be at least 0")
        if self.masked:
            self._check_masked()
        for begin, check in (
            ("bottleneck.", lambda: self.bottleneck.features(self.latent_dim)),
            ("bottleneck.", lambda: self.bottleneck.check(self)),
            ("likelihood: ", lambda: self.likelihood.check(interval)),
            ("corruption: ", self._check_corruption),
            ("coder.", lambda: self.coder.check(self)),
            ("penalty: ", lambda: self.penalty is None or self.penalty.check(self)),
        ):
            try:
                check()
            except ValueError as error:
                raise ValueError(f"{begin}{error}") from None

    def _check_corruption(self) -> None:
        if self.symbols and self.corruption is not None and not self.corruption.for_symbols:
            raise ValueError(
                "noise and salt_and_pepper are for numbers, and model.likelihood="
                "categorical is for symbols; it takes masking, which puts 0 in their place"
            )

    @property
    def masked(self) -> bool:
        """Whether this is a masked model: its code is the tokens, and it predicts hidden ones."""
        return self.latent_dim == 0

    def _check_masked(self) -> None:
        for setting, fits, accepted in (
            ("coder", self.coder.code_is_tokens, "transformer"),
            ("bottleneck", self.bottleneck.takes_tokens, "plain"),
            ("corruption", self.corruption is not None and self.corruption.hides, "hidden"),
            ("penalty", self.penalty is None, "none"),
        ):
            if not fits:
                raise ValueError(f"latent_dim=0: needs model.{setting}={accepted}, or at least 1")

    def check_platform(self, platform: str, compute: str, tensor: int) -> None:
        if self.penalty is not None:
            self.penalty.check_platform(platform, compute, self.coder)
        self.coder.check_platform(platform, compute, tensor)

    @property
    def symbols(self) -> int:  # pyright: ignore - of its likelihood
        """How many kinds of symbols the data are made of; 0 where they are numbers."""
        return self.likelihood.classes

    @property
    def has_posterior(self) -> bool:  # pyright: ignore - of its bottleneck
        """Whether codes have a posterior (`Bottleneck.has_posterior`)."""
        return self.bottleneck.has_posterior

    @property
    def sharding_rules(self) -> tuple[str, ...]:  # pyright: ignore - of its coder
        """The coder's rules for the sharding of parameters (as `config.mesh.rules`)."""
        return self.coder.sharding_rules

    @property
    def gradient_by_device(self) -> bool:  # pyright: ignore - of its coder
        """Whether each device computes the gradient of its own rows (as the coder says)."""
        return self.coder.gradient_by_device

    def prior(self, module: Any, key: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
        return self.bottleneck.prior(key, shape)

    def is_transferable(self, name: str, other: Any) -> bool:
        return not isinstance(other, Autoencoder) or self.coder.is_transferable(name, other.coder)

    def after_update(self, update: Update) -> Update:
        for hooked in (self.coder, self.bottleneck, self.penalty):
            if hooked is not None:
                update = hooked.after_update(update)
        return update

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "AutoencoderModule":
        """Builds the module for batches of these shapes; values are not read."""
        return AutoencoderModule(self, batch.x.shape[1:], rngs)


class ForwardOutput(NamedTuple):
    """The result of an autoencoder's forward pass.

    Attributes:
        weight: weights of elements in the likelihood, set by the corruption; None for 1.
        code: the bottleneck's output.
        parameters: of p(x given z), [(samples,) rows, *shape, outputs].
    """

    weight: jax.Array | None
    code: Code
    parameters: jax.Array


class AutoencoderModule(nnx.Module):
    """The autoencoder's Flax module, built from its settings.

    It holds no random streams, devices or files: `encode` and `decode` are deterministic, and all
    random keys come with the context of `loss`.
    """

    def __init__(self, settings: Autoencoder, shape: tuple[int, ...], rngs: nnx.Rngs):
        outputs = settings.likelihood.outputs()
        features = settings.bottleneck.features(settings.latent_dim)
        self.settings = nnx.static(settings)
        self.encoder = settings.coder.encoder(shape, features, rngs)
        # None where the bottleneck has neither parameters nor state.
        self.code = settings.bottleneck.build(settings.latent_dim, rngs)
        if settings.target is not None:
            shape = settings.target.shape(shape)
        self.decoder = settings.coder.decoder(settings.latent_dim, shape, outputs, rngs)
        settings.coder.connect(self.encoder, self.decoder, settings.likelihood)

    @property
    def bottleneck(self) -> Any:
        """The bottleneck's module, or its settings where it needs none."""
        return self.settings.bottleneck if self.code is None else self.code

    def encode(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x [rows, *shape] -> code z [rows, latent_dim], or tokens [rows, tokens, width]."""
        return self.bottleneck.encode(self.encoder(x, None, mask))

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
            In evaluation the decoder gets the code alone (no teacher forcing).
        """
        context = context or evaluation(batch.mask)
        return self.objective(batch, context, self.forward(batch, context))

    def forward(self, batch: Batch, context: Context) -> ForwardOutput:
        """Encodes and decodes a batch; `objective` computes the loss from the result."""
        parts, x, mask = self.settings, batch.x, batch.mask
        noisy = self._corrupted(batch, context)
        # Coders compute in their parameters' type, which may be bfloat16; all else in x's type.
        features = self.encoder(noisy.x, noisy.hidden, mask, context).astype(x.dtype)
        code = self.bottleneck(features, context)
        # A leading axis of size 1 makes XLA on a CPU fuse less: a training step took 1.3 x as long.
        z = code.z[0] if len(code.z) == 1 else code.z
        # In evaluation there is no teacher forcing.
        teacher = parts.coder.teacher_inputs(x, context) if context.training else None
        parameters = self.decoder(z, teacher, mask, context).astype(x.dtype)
        return ForwardOutput(noisy.weight, code, parameters)

    def objective(self, batch: Batch, context: Context, output: ForwardOutput):
        """The loss and its terms, as `loss` returns them, from the output of `forward`."""
        parts, mask, code = self.settings, batch.mask, output.code
        x = batch.x if parts.target is None else parts.target(batch)
        weight = _weight(x, mask, output.weight)
        each = parts.likelihood.log_prob(*_flat(output.parameters, x))
        log_p = _per_row(each, weight).reshape(len(code.z), -1)
        bound = log_p if code.log_weight is None else log_p + code.log_weight
        objective = bound[0] if len(bound) == 1 else _log_mean_exp(bound)
        terms = {"nll": -row_mean(jnp.mean(log_p, axis=0), mask)}
        if not context.training:
            means, flat = _flat(parts.likelihood.mean(output.parameters)[..., None], x)
            mean = jnp.mean(means.reshape(-1, *flat.shape), axis=0)
            for name, error in parts.likelihood.error(mean, flat).items():
                terms[name] = _mean_element(error, _weight(x, mask, output.weight), context)
            if parts.masked:
                terms["nll_element"] = _mean_element(-each, weight, context)
        total = -row_mean(objective, mask)
        for name, value in {**code.penalties, **self._penalties(batch, output, context)}.items():
            terms[name] = row_mean(value, mask) if value.ndim else value
            total = total + terms[name]
        return total, terms

    def divergence(self, batch: Batch, teacher: ForwardOutput, output: ForwardOutput) -> jax.Array:
        """KL(teacher's p(x given z) || this model's), summed over elements, in nats a row.

        Args:
            batch: the rows of both outputs.
            teacher: output of a model with the same likelihood, as many samples and the same keys.
            output: output of this model.
        """
        weight = _weight(batch.x, batch.mask, output.weight)
        pair = [_flat(each.parameters, batch.x)[0] for each in (teacher, output)]
        each = _per_row(self.settings.likelihood.divergence(*pair), weight)
        return row_mean(jnp.mean(each.reshape(len(output.code.z), -1), axis=0), batch.mask)

    def _corrupted(self, batch: Batch, context: Context) -> Corrupted:
        """The encoder's input: corrupted in training, clean in evaluation.

        A masked model's input is corrupted in evaluation too, with keys that depend only on a row's
        index, so that the same tokens are hidden each time.
        """
        if self.settings.corruption is None or not (context.training or self.settings.masked):
            return Corrupted(batch.x)
        if not context.training:
            index = jnp.arange(len(batch.x)) if batch.index is None else batch.index
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), index)
            context = dataclasses.replace(context, keys=keys)
        return self.settings.corruption(batch.x, context)

    def _penalties(
        self, batch: Batch, output: ForwardOutput, context: Context
    ) -> dict[str, jax.Array]:
        settings, z = self.settings, output.code.z
        if settings.penalty is None:
            return {}
        parameters = output.parameters if len(z) == 1 else output.parameters[0]
        inputs = PenaltyInputs(
            self, batch.x, batch.mask, jnp.mean(z, axis=0), settings.likelihood.mean(parameters)
        )
        return settings.penalty(inputs, context)


def _flat(parameters: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Flattens a row's axes: [..., rows, elements, outputs] and [rows, elements].

    XLA on a CPU does not vectorise over a last axis of one channel, so elementwise work is done on
    flat rows.
    """
    leading = parameters.ndim - x.ndim
    outputs = parameters.shape[-1]
    flat = parameters.reshape(*parameters.shape[:leading], -1, outputs)
    return flat, x.reshape(len(x), -1)


def _weight(x: jax.Array, mask: jax.Array | None, weight: jax.Array | None) -> jax.Array | None:
    """The product of mask and weight, [rows, elements], or None for 1 everywhere."""
    factors = [f for f in (mask, weight) if f is not None]
    if not factors:
        return None
    product = jnp.ones(x.shape, jnp.float32)
    for factor in factors:
        product = product * spread(factor, x.ndim)
    return product.reshape(len(x), -1)


def _mean_element(values: jax.Array, weight: jax.Array | None, context: Context) -> jax.Array:
    """Mean over the real elements of the real rows: values [rows, elements] -> []."""
    size = jnp.ones_like(values) if weight is None else weight
    total = context.mean(_per_row(values, weight))
    return total / jnp.maximum(context.mean(jnp.sum(size, axis=-1)), 1e-9)


def _per_row(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Sums over the elements of a row: [..., rows, elements] -> [..., rows]."""
    return jnp.sum(values if weight is None else values * weight, axis=-1)


def _log_mean_exp(values: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(values, axis=0) - math.log(len(values))
