"""Base classes of an autoencoder's parts; parts of your own derive from them.

A part is a dataclass of its settings. Only the methods that are marked as required must be written;
all others have a default. Checks raise ValueError with a message that begins with the
setting, as "hidden=(0,): must be at least 1".
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.models.batch import Batch, Context
from aejax.registry import required

Tree = Any


class Code(NamedTuple):
    """The code of a batch.

    Attributes:
        z: [samples, rows, *code], the decoder's input; a deterministic code is one sample.
        log_weight: [samples, rows] in nats, added to log p(x given z) inside the mean over samples
            (-beta KL for a variational code), or None for 0.
        penalties: named terms added to the loss, each [rows] or [].
    """

    z: jax.Array
    log_weight: jax.Array | None = None
    penalties: dict[str, jax.Array] = {}  # noqa: RUF012 - never changed


class Posterior(NamedTuple):
    """q(z given x): a normal with independent numbers, where the prior is a standard normal.

    Attributes:
        mean: [rows, *code].
        log_variance: [rows, *code].
    """

    mean: jax.Array
    log_variance: jax.Array

    def divergence(self) -> jax.Array:
        """KL(q(z given x) || N(0, 1)) of each number, in nats, [rows, *code]."""
        variance = jnp.exp(self.log_variance)
        return 0.5 * (self.mean**2 + variance - self.log_variance - 1)


class Corrupted(NamedTuple):
    """The output of a corruption.

    Attributes:
        x: the noisy input [rows, *shape].
        hidden: bool array whose shape is a prefix of x's, True for positions that the encoder must
            not see; or None.
        weight: float array that broadcasts against x from the left: the weight of each element in
            the loss; or None for 1 everywhere.
    """

    x: jax.Array
    hidden: jax.Array | None = None
    weight: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class PenaltyInputs:
    """The inputs of a penalty.

    Attributes:
        module: the autoencoder, for penalties with a closed form for some encoders.
        x: clean rows [rows, *shape].
        mask: of the batch, as in `Batch`.
        z: their code [rows, *code], the mean over samples.
        reconstruction: the mean of p(x given z) [rows, *shape], of the first sample.
    """

    module: Any
    x: jax.Array
    mask: jax.Array | None
    z: jax.Array
    reconstruction: jax.Array

    def encode(self, x: jax.Array) -> jax.Array:
        """x [rows, *shape] -> z [rows, *code], the deterministic encoder."""
        return self.module.encode(x, self.mask)


class Update(NamedTuple):
    """The state after an optimizer update, the argument of `Hooked.after_update`.

    Attributes:
        params: the new parameters, nested dictionaries.
        opt_state: optax's new state.
        model_state: {"rows": entries of `PerRow`, "other": other variables}, nested dictionaries.
        key: of this step, the same on all devices.
        step: number of updates made, int32 [].
    """

    params: Tree
    opt_state: Tree
    model_state: Tree
    key: jax.Array
    step: jax.Array

    def map_moments(self, function: Callable[[Tree], Tree]) -> "Update":
        """Applies a function to each tree in the optimizer's state with the structure of `params`.

        Such trees are the moments of Adam, and momenta.
        """
        structure = jax.tree.structure(self.params)

        def is_moments(tree: Tree) -> bool:
            return jax.tree.structure(tree) == structure

        changed = jax.tree.map(
            lambda tree: function(tree) if is_moments(tree) else tree,
            self.opt_state,
            is_leaf=is_moments,
        )
        return self._replace(opt_state=changed)


class Hooked:
    """A part that may change parameters after each update, inside the compiled step."""

    def after_update(self, update: Update) -> Update:
        """Returns the parameters, optimizer state and model state for the next step.

        For constraints such as columns of norm 1, or to re-initialise unused units.
        """
        return update


@dataclasses.dataclass
class Coder(Hooked):
    """Encoder and decoder. Required: `encoder` and `decoder`.

    Attributes:
        sharding_rules: the sharding of parameters, as in `config.mesh.rules`.
        gradient_by_device: whether, with parallel=pjit too, each device computes the gradient of
            its own rows, and in evaluation their loss, because the compiler would not divide the
            work (scans over time).
        code_is_tokens: whether latent_dim=0 is accepted; the code is then the encoder's tokens.
        symbols: number of kinds of symbols that it reads; 0 for numbers. May be a setting.
    """

    sharding_rules: ClassVar[tuple[str, ...]] = ()
    gradient_by_device: ClassVar[bool] = False
    code_is_tokens: ClassVar[bool] = False
    symbols = 0

    @required()
    def encoder(self, shape: tuple[int, ...], features: int, rngs: nnx.Rngs) -> Any:
        """A module (x [rows, *shape], hidden, mask, context) -> [rows, ..., features].

        `hidden` marks positions that it must not see (as in `Corrupted`, or None), `mask` is the
        batch's (as in `Batch`, or None), `context` is that of the step, for dropout, or None.
        """
        raise NotImplementedError

    @required()
    def decoder(self, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs) -> Any:
        """A module (z [..., *code], target, mask, context) -> [..., *shape, outputs].

        z has a leading axis of samples where there are several; `target` is the result of
        `teacher_inputs`, or None.
        """
        raise NotImplementedError

    def connect(self, encoder: Any, decoder: Any, likelihood: "Likelihood") -> None:
        """Called once both modules are built, for example to share weights between them."""

    def teacher_inputs(self, x: jax.Array, context: Context) -> jax.Array | None:
        """The decoder's inputs for teacher forcing in training, from x [rows, *shape]; or None."""
        return None

    def check(self, model: Any) -> None:
        """Raises ValueError if it does not fit the model's other parts."""

    def check_platform(self, platform: str, compute: str, tensor: int) -> None:
        """Raises ValueError if it cannot run on such devices.

        Args:
            platform: of the devices: cpu, gpu or tpu.
            compute: the type of matrix products, `config.compute`.
            tensor: number of devices along the mesh's axis `tensor`.
        """

    def as_hidden(self, features: jax.Array) -> jax.Array:
        """Applies the hidden layers' activation, if there is one, to the encoder's features.

        For models that put a further layer on top, such as a classifier.
        """
        return features

    def is_transferable(self, name: str, other: Any) -> bool:
        """Whether a parameter of this name means the same in a coder with settings `other`."""
        return True


@dataclasses.dataclass
class Bottleneck(Hooked):
    """Between encoder and decoder. Required: `encode`, or a module from `build` that has it.

    Attributes:
        takes_tokens: whether it encodes tokens [rows, tokens, n] as well, for latent_dim=0.
        has_posterior: whether codes are drawn from a normal, which `posterior` gives, with a
            standard normal as prior. Evaluations then have likelihoods, bounds and divergences.
    """

    takes_tokens: ClassVar[bool] = False
    has_posterior: ClassVar[bool] = False

    def features(self, latent_dim: int) -> int:
        """How many features it needs for a code of this size."""
        return latent_dim

    def build(self, latent_dim: int, rngs: nnx.Rngs) -> Any:
        """A module with `encode(features)` and `__call__(features, context)`, where it has
        parameters or state (with `has_posterior` also `posterior(features)`); None where the
        settings themselves are enough.

        State that is updated in training must be an `nnx.Variable` (no `nnx.Param`), and its update
        a function of `context.mean` and `context.pmean` alone, so that all devices have the same.
        """
        return None

    @required(unless="build")
    def encode(self, features: jax.Array) -> jax.Array:
        """The deterministic code: features [rows, ..., n] -> z [rows, *code]."""
        raise NotImplementedError

    def __call__(self, features: jax.Array, context: Context) -> Code:
        """The code in training; with an evaluation's context, the deterministic code."""
        return Code(self.encode(features)[None])

    @required(unless="build", when="has_posterior")
    def posterior(self, features: jax.Array) -> Posterior:
        """q(z given x) of features [rows, ..., n]. Required with `has_posterior`."""
        raise NotImplementedError

    def prior(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
        """Codes of this shape drawn from the prior, or None where there is none."""
        return None

    def check(self, model: Any) -> None:
        """Raises ValueError where the model's other parts do not suit it."""


@dataclasses.dataclass
class Likelihood:
    """p(x given z). Required: `log_prob` and `mean`.

    Attributes:
        classes: how many kinds of symbols x holds; 0 for numbers.
    """

    classes: ClassVar[int] = 0

    def outputs(self) -> int:
        """How many numbers the decoder gives for each element of x."""
        return 1

    @required()
    def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
        """parameters [..., elements, outputs], x [rows, elements] -> log p of each, nats."""
        raise NotImplementedError

    @required()
    def mean(self, parameters: jax.Array) -> jax.Array:
        """parameters [..., outputs] -> the mean of p [...]."""
        raise NotImplementedError

    def mode(self, parameters: jax.Array) -> jax.Array:
        """parameters [..., outputs] -> the likeliest value [...]."""
        return self.mean(parameters)

    def divergence(self, teacher: jax.Array, parameters: jax.Array) -> jax.Array:
        """KL(p(x given teacher's parameters) || p(x given these)) of each element, nats."""
        raise NotImplementedError

    def error(self, mean: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        """Further errors of `mean` that evaluation reports, by name, elementwise."""
        return {"mse": jnp.square(mean - x)}

    def check(self, interval: bool) -> None:
        """Raises ValueError for data that do not fit; `interval`: whether x lies in [0, 1]."""


@dataclasses.dataclass
class Corruption:
    """Corrupts the encoder's input in training. Required: `__call__`.

    Attributes:
        hides: whether it hides positions, as a masked model needs.
        for_symbols: whether it can be applied to symbols.
    """

    hides: ClassVar[bool] = False
    for_symbols: ClassVar[bool] = True

    @required()
    def __call__(self, x: jax.Array, context: Context) -> Corrupted:
        """x [rows, *shape] -> the corrupted input; random keys come from `context.draw`."""
        raise NotImplementedError


@dataclasses.dataclass
class Penalty(Hooked):
    """Terms that are added to the loss. Required: `__call__`."""

    @required()
    def __call__(self, inputs: PenaltyInputs, context: Context) -> dict[str, jax.Array]:
        """Named terms, each [rows] or []; means over rows go through `context.mean`."""
        raise NotImplementedError

    def check(self, model: Any) -> None:
        """Raises ValueError where the model's other parts do not suit it."""

    def check_platform(self, platform: str, compute: str, coder: Coder) -> None:
        """Raises ValueError if it cannot run; arguments as in `Coder.check_platform`."""


@dataclasses.dataclass
class Target:
    """The decoder's target, where it is not the input. Required: `__call__`."""

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a target, for rows of this shape."""
        return shape

    @required()
    def __call__(self, batch: Batch) -> jax.Array:
        """The targets [rows, *shape] of prepared rows."""
        raise NotImplementedError


class Trainable(Hooked):
    """Settings of any model that can be trained. Required: `init`.

    The module has `loss(batch, context) -> (scalar, named terms)`; without a context this is the
    deterministic evaluation. A module with `encode(x, mask)` and `decode(z, mask)` can be evaluated
    as an autoencoder.

    Attributes:
        sharding_rules: the sharding of parameters, as in `config.mesh.rules`.
        gradient_by_device: as `Coder.gradient_by_device`; the context of an evaluation may then be
            one without keys in place of None, so that means over its rows go through it.
        symbols: number of kinds of symbols in its rows; 0 for numbers.
        classes: number of labels that its loss distinguishes; 0 if it needs no labels.
        shares: names of terms of its loss that are shares of the rows; lines show them in %.
        loss_inputs: constant arrays that the loss reads from `Context.loss_inputs`; they are
            neither trained nor saved. None for none.
        decodes: whether its module has `encode` and `decode`.
        has_posterior: whether its codes have a posterior, as `Bottleneck.has_posterior`.
        bottleneck: settings of the bottleneck, or None.
        likelihood: settings of the likelihood, or None.
    """

    sharding_rules: tuple[str, ...] = ()
    gradient_by_device: bool = False
    symbols: int = 0
    classes: int = 0
    shares: tuple[str, ...] = ()
    loss_inputs: Any = None
    decodes: bool = False
    has_posterior: bool = False
    bottleneck: Any = None
    likelihood: Any = None

    @required()
    def init(self, rngs: nnx.Rngs, batch: Batch) -> Any:
        """Builds the module for batches of these shapes; values are not read."""
        raise NotImplementedError

    def check(self, interval: bool) -> None:
        """Raises ValueError for settings that do not fit; `interval`: whether x lies in [0, 1]."""

    def check_platform(self, platform: str, compute: str, tensor: int) -> None:
        """Raises ValueError if it cannot run; arguments as in `Coder.check_platform`."""

    def prior(self, module: Any, key: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
        """Codes of this shape [rows, *code] drawn from the module's prior; None without a prior."""
        return None

    def is_transferable(self, name: str, other: Any) -> bool:
        """Whether a parameter of this name means the same in a model with settings `other`."""
        return True
