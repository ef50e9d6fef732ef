"""Restricted Boltzmann machine (Smolensky 1986; Hinton 2002).

Visible units v and hidden units h in {0, 1}, with no connection inside of either layer:

    binary v      E(v, h) = -b'v - c'h - v'W h
    gaussian v    E(v, h) = |v - b|^2 / (2 s^2) - c'h - v'W h / s,   s: the deviation
    gaussian h    E(v, h) = |h - c|^2 / 2 - b'v - v'W h              (Hinton and Salakhutdinov 2006)

p(v) = exp(-F(v)) / Z with the free energy F(v) = -log sum over h of exp(-E(v, h)). Training makes

    mean of F(data) - mean of F(chain),   no gradient through the chain

small, whose gradient is that of contrastive divergence: <v h'> of the chain less <v h'> of the data
(with p(h = 1 given v) for h). The chain is k steps of Gibbs sampling from the data (CD-k; Hinton
2002), or continues from its last state in the update before (persistent; Tieleman 2008).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.errors import check_choice, check_least
from aejax.models.batch import Batch, Context, PerRow, row_mean
from aejax.models.interfaces import Trainable
from aejax.nn import bernoulli
from aejax.nn.product import product

UNITS = ("binary", "gaussian")
# Standard deviation of the first weights (Hinton 2012, section 8).
_WEIGHT = 0.01
# Steps of Gibbs sampling before units count as samples.
_BURN_IN = 1000
# Evaluation's pseudo-likelihood flips one element at a time and computes the hidden inputs of each
# flip. A row may take so many numbers: machines with more weights flip only some of the elements.
_NUMBERS_A_ROW = 2**13


@dataclasses.dataclass
class RBM(Trainable):
    """Settings of a restricted Boltzmann machine.

    The code is the mean of h given v, and decoding gives the mean of v given h, so that it can be
    evaluated as an autoencoder.

    Attributes:
        latent_dim: hidden units.
        visible: binary, for data in [0, 1] (grey values are read as probabilities), or gaussian,
            for centred data.
        hidden: binary, or gaussian with variance 1, for codes that are any number.
        deviation: standard deviation of gaussian units, in units of x.
        k: steps of Gibbs sampling in each update.
        persistent: whether chains go on from update to update, one for each row of a batch; else
            they begin at the data.
    """

    latent_dim: int = 128
    visible: str = "binary"
    hidden: str = "binary"
    deviation: float = 1.0
    k: int = 1
    persistent: bool = True

    decodes = True

    def __post_init__(self):
        check_least("latent_dim", self.latent_dim, 1)
        check_least("k", self.k, 1)
        check_choice("visible", self.visible, UNITS)
        check_choice("hidden", self.hidden, UNITS)
        if self.visible == self.hidden == "gaussian":
            raise ValueError("hidden=gaussian: needs visible=binary; with both Z may be infinite")
        if not 0 < self.deviation < math.inf:
            raise ValueError(f"deviation={self.deviation}: must be above 0, and finite")

    @property
    def binary(self) -> bool:
        """Whether visible units are binary."""
        return self.visible == "binary"

    @property
    def scale(self) -> float:
        """The deviation of gaussian units, which divides their weights; 1 for binary ones."""
        return 1.0 if self.binary else self.deviation

    def check(self, interval: bool) -> None:
        """Raises ValueError where the data do not suit the visible units."""
        if self.binary and not interval:
            raise ValueError(
                "visible=binary: needs data in [0, 1]: data.prepare.scale=True and"
                " data.prepare.centre=none, or model.visible=gaussian"
            )

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "RBMModule":
        """Builds the module for batches of these shapes; values are not read.

        Raises:
            ValueError: rows have padding or missing values.
        """
        if batch.mask is not None:
            raise ValueError("rbm takes whole rows; these have a length each, or missing values")
        return RBMModule(self, batch.x.shape, rngs)

    def prior(self, module: Any, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Hidden units of this shape, [rows, hidden], after 1000 steps of Gibbs sampling.

        Chains start at the persistent chains of the training, where there are any, else at visible
        units drawn from their biases alone.
        """
        return module.sample_hidden(key, shape[0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Machine:
    """The distribution of a machine as pure functions; rows are flat, [rows, visible units].

    Attributes:
        weight: W [visible, hidden].
        visible_bias: b [visible].
        hidden_bias: c [hidden].
        binary: whether visible units are binary, else gaussian.
        scale: s, the deviation of gaussian units; 1 of binary ones.
        binary_hidden: whether hidden units are binary, else gaussian of variance 1.
    """

    weight: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array
    binary: bool = dataclasses.field(metadata={"static": True}, default=True)
    scale: float = dataclasses.field(metadata={"static": True}, default=1.0)
    binary_hidden: bool = dataclasses.field(metadata={"static": True}, default=True)

    def free_energy(self, v: jax.Array) -> jax.Array:
        """F(v) in nats: v [..., visible] -> [...]."""
        hidden = jnp.sum(self.hidden_energy(self.hidden_input(v)), axis=-1)
        return self.visible_energy(v, self.visible_bias) - hidden

    def hidden_energy(self, hidden_input: jax.Array) -> jax.Array:
        """Each hidden unit's term of -F(v), from `hidden_input`; elementwise.

        For a gaussian unit without the constant log(2 pi) / 2.
        """
        if self.binary_hidden:
            return softplus(hidden_input)
        return (jnp.square(hidden_input) - jnp.square(self.hidden_bias)) / 2

    def visible_energy(self, v: jax.Array, bias: jax.Array) -> jax.Array:
        """The terms of E in v alone, with `bias` in place of b: v [..., visible] -> [...]."""
        if self.binary:
            return -v @ bias.astype(v.dtype)
        return jnp.sum(jnp.square(v - bias), axis=-1) / (2 * self.scale**2)

    def hidden_input(self, v: jax.Array) -> jax.Array:
        """c + W'v / s, logits or means of h given v: v [..., visible] -> [..., hidden]."""
        sums = product((v / self.scale).astype(self.weight.dtype), self.weight)
        return sums.astype(v.dtype) + self.hidden_bias

    def visible_input(self, h: jax.Array) -> jax.Array:
        """b + s W h, logits or means of v given h: h [..., hidden] -> [..., visible]."""
        sums = product(h.astype(self.weight.dtype), self.weight.T)
        return self.visible_bias + self.scale * sums.astype(h.dtype)

    def visible_mean(self, visible_input: jax.Array) -> jax.Array:
        """The mean of v given h, from `visible_input`."""
        return jax.nn.sigmoid(visible_input) if self.binary else visible_input

    def visible_sample(self, visible_input: jax.Array, keys: jax.Array) -> jax.Array:
        """Samples v given h from `visible_input` [rows, visible], with one key a row."""
        if self.binary:
            return coins(visible_input, keys)
        return visible_input + self.scale * _normal(keys, visible_input)

    def hidden_mean(self, hidden_input: jax.Array) -> jax.Array:
        """The mean of h given v, from `hidden_input`."""
        return jax.nn.sigmoid(hidden_input) if self.binary_hidden else hidden_input

    def hidden_sample(self, hidden_input: jax.Array, keys: jax.Array) -> jax.Array:
        """Samples h given v from `hidden_input` [rows, hidden], with one key a row."""
        if self.binary_hidden:
            return coins(hidden_input, keys)
        return hidden_input + _normal(keys, hidden_input)

    def gibbs(self, v: jax.Array, keys: jax.Array, steps: int | jax.Array) -> jax.Array:
        """Runs Gibbs sampling: each step samples h given v, then v given h; v [rows, visible].

        Step i uses `fold_in(key, 2 i)` for h and `fold_in(key, 2 i + 1)` for v, with a row's key.
        """

        def step(i: jax.Array, v: jax.Array) -> jax.Array:
            up, down = (
                jax.vmap(jax.random.fold_in, (0, None))(keys, 2 * i + side) for side in (0, 1)
            )
            h = self.hidden_sample(self.hidden_input(v), up)
            return self.visible_sample(self.visible_input(h), down)

        return jax.lax.fori_loop(0, steps, step, v)


class RBMModule(nnx.Module):
    """The machine, built from its settings.

    Attributes:
        weight: W [visible, hidden].
        visible_bias: b [visible].
        hidden_bias: c [hidden].
        chains: [rows of a batch, visible], the persistent chains; or None.
    """

    def __init__(self, settings: RBM, shape: tuple[int, ...], rngs: nnx.Rngs):
        visible = math.prod(shape[1:])
        self.settings, self.shape = nnx.static(settings), nnx.static(shape[1:])
        first = jax.random.normal(rngs.params(), (visible, settings.latent_dim))
        self.weight = nnx.Param(_WEIGHT * first)
        self.visible_bias = nnx.Param(jnp.zeros(visible))
        self.hidden_bias = nnx.Param(jnp.zeros(settings.latent_dim))
        keys = jax.random.split(rngs.params(), shape[0])
        start = self.machine.visible_sample(jnp.zeros((shape[0], visible)), keys)
        self.chains = PerRow(start) if settings.persistent else None

    @property
    def machine(self) -> Machine:
        """The distribution with the current parameters."""
        biases, settings = (self.visible_bias[...], self.hidden_bias[...]), self.settings
        hidden = settings.hidden == "binary"
        return Machine(self.weight[...], *biases, settings.binary, settings.scale, hidden)

    def encode(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x [rows, *shape] -> the mean of h given x [rows, hidden]."""
        machine = self.machine
        return machine.hidden_mean(machine.hidden_input(x.reshape(len(x), -1)))

    def decode(self, z: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Hidden units, or their means, z [..., hidden] -> the mean of v given z [..., *shape]."""
        mean = self.machine.visible_mean(self.machine.visible_input(z))
        return mean.reshape(*z.shape[:-1], *self.shape)

    def sample_hidden(self, key: jax.Array, rows: int) -> jax.Array:
        """Samples hidden units [rows, hidden], as `RBM.prior`."""
        machine, keys = self.machine, jax.random.split(key, (3, rows))
        if self.chains is None:
            inputs = jnp.broadcast_to(machine.visible_bias, (rows, len(machine.visible_bias)))
            v = machine.visible_sample(inputs, keys[0])
        else:
            v = self.chains[...][jnp.arange(rows) % len(self.chains)]
        v = machine.gibbs(v, keys[1], _BURN_IN)
        return machine.hidden_sample(machine.hidden_input(v), keys[2])

    def loss(self, batch: Batch, context: Context | None = None):
        """The difference of free energies of this module's docstring, in nats a row.

        Without a context the loss measures the machine's quality: the negative pseudo-likelihood
        for binary visible units, the squared error of a row's reconstruction for gaussian ones.

        Args:
            batch: prepared rows, without padding or missing values.
            context: of the training step; None for deterministic evaluation.

        Returns:
            A scalar and named terms: `free_energy` of the rows; in evaluation also `mse` of an
            element's reconstruction, `pseudo_likelihood` (binary) and `free_energy_gap`, which is
            free_energy less that of the persistent chains.
        """
        v, machine = batch.x.reshape(len(batch.x), -1), self.machine
        if context is None:
            return self._evaluated(batch, v)
        end = self.chain(v, context)
        energy = jnp.mean(machine.free_energy(v))
        return energy - jnp.mean(machine.free_energy(end)), {"free_energy": energy}

    def chain(self, v: jax.Array, context: Context) -> jax.Array:
        """The last states of this step's chains [rows, visible]; persistent chains keep them.

        Args:
            v: the rows [rows, visible], at which chains begin that are not persistent.
            context: of the training step.
        """
        start = v if self.chains is None else self.chains[...]
        still = jax.lax.stop_gradient(self.machine)
        end = still.gibbs(start, context.draw("gibbs"), self.settings.k)
        if self.chains is not None:
            self.chains[...] = end
        return end

    def _evaluated(self, batch: Batch, v: jax.Array):
        machine, mask = self.machine, batch.mask
        energy = row_mean(machine.free_energy(v), mask)
        error = jnp.square(self.decode(self.encode(batch.x)).reshape(v.shape) - v)
        terms = {"free_energy": energy, "mse": row_mean(jnp.mean(error, axis=-1), mask)}
        if self.chains is not None:
            terms["free_energy_gap"] = energy - jnp.mean(machine.free_energy(self.chains[...]))
        if not self.settings.binary:
            return row_mean(jnp.sum(error, axis=-1), mask), terms
        index = jnp.arange(len(v)) if batch.index is None else batch.index
        each = pseudo_likelihood(machine, v, index)
        terms["pseudo_likelihood"] = row_mean(each, mask)
        return -terms["pseudo_likelihood"], terms


def pseudo_likelihood(machine: Machine, v: jax.Array, index: jax.Array) -> jax.Array:
    """sum_i log p(v_i given all others) (Besag 1975) in nats: v [rows, visible] -> [rows].

    p(v_i given all others) is sigmoid(F(v with 1 - v_i) - F(v)). In a machine of more than 2^13
    weights the sum is estimated from evenly spaced elements. Their offset is drawn by the row's
    index, so that evaluation gives the same result each time.

    Args:
        machine: with binary units.
        v: rows.
        index: their numbers, int [rows].
    """
    visible, hidden = machine.weight.shape
    count = max(1, min(visible, _NUMBERS_A_ROW // hidden))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), index)
    first = jax.vmap(lambda key: jax.random.randint(key, (), 0, visible))(keys)
    chosen = (first[:, None] + jnp.arange(count) * visible // count) % visible
    change = 1 - 2 * jnp.take_along_axis(v, chosen, axis=1)
    inputs = machine.hidden_input(v)[:, None]
    moved = inputs + change[..., None] * machine.weight[chosen].astype(v.dtype)
    energy = machine.hidden_energy
    hidden_terms = jnp.sum(energy(inputs), axis=-1) - jnp.sum(energy(moved), axis=-1)
    differences = hidden_terms - change * machine.visible_bias[chosen]
    return -visible / count * jnp.sum(softplus(-differences), axis=1)


def softplus(x: jax.Array) -> jax.Array:
    """log(1 + exp(x)), elementwise, with its gradient in closed form."""
    return -bernoulli.log_prob(x, jnp.zeros((), x.dtype))


def _normal(keys: jax.Array, like: jax.Array) -> jax.Array:
    """Standard normal numbers in the shape and type of `like` [rows, n], with one key a row."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)


def coins(logits: jax.Array, keys: jax.Array) -> jax.Array:
    """Bernoulli samples, 1.0 with probability sigmoid(logits): [rows, n], with one key a row."""
    size = logits.shape[-1]
    draws = jax.vmap(lambda key: jax.random.uniform(key, (size,), logits.dtype))(keys)
    return (draws < jax.nn.sigmoid(logits)).astype(logits.dtype)
