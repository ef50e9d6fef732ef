"""The deep belief network: directed layers below a restricted Boltzmann machine (RBM).

    p(x, h1, ..., hn) = p(x given h1) p(h1 given h2) ... p(h_n-1, h_n),   the last one of the RBM

Stages of `config.pretrain` train it greedily, with an RBM for each layer (Hinton, Osindero and Teh
2006, "A Fast Learning Algorithm for Deep Belief Nets"). The run itself trains it by contrastive
wake-sleep ("up-down", section 5 and appendix B there), with separate recognition weights (up) and
generative weights (down):

    wake   the layers' states are sampled upwards from x; the generative layers learn to predict
           each layer's states from the layer above
    top    the RBM learns the states of the layer below it, by contrastive divergence
    sleep  from the end of the RBM's chain states are sampled downwards; the recognition layers
           learn to predict each layer's states from the layer below
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.errors import check_least
from aejax.models.batch import Batch, Context, row_mean
from aejax.models.interfaces import Trainable
from aejax.models.rbm import RBM, RBMModule, coins
from aejax.nn import bernoulli
from aejax.nn.activation import initializer
from aejax.nn.linear import Mirrored


@dataclasses.dataclass
class DeepBelief(Trainable):
    """Settings of a deep belief network of binary units; data lie in [0, 1].

    Attributes:
        hidden: units of the layers from the data up, without the last.
        latent_dim: units of the last layer, the hidden ones of the RBM.
        k: steps of Gibbs sampling in the RBM in each update.
        persistent: whether its chains continue from update to update; else they begin at the states
            of the layer below.
    """

    hidden: tuple[int, ...] = (500, 500)
    latent_dim: int = 2000
    k: int = 1
    persistent: bool = True

    decodes = True

    def __post_init__(self):
        self.hidden = tuple(self.hidden)
        if not self.hidden or any(size < 1 for size in self.hidden):
            raise ValueError(f"hidden={self.hidden}: must be one number or more, each at least 1")
        check_least("latent_dim", self.latent_dim, 1)
        check_least("k", self.k, 1)

    @property
    def top(self) -> RBM:
        """Settings of the RBM."""
        return RBM(self.latent_dim, k=self.k, persistent=self.persistent)

    def check(self, interval: bool) -> None:
        """Raises ValueError where the data are not in [0, 1]."""
        self.top.check(interval)

    def prior(self, module: Any, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Units of the last layer after Gibbs sampling in the RBM, as `RBM.prior`."""
        return module.top.sample_hidden(key, shape[0])

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "DeepBeliefModule":
        """Builds the module for batches of these shapes; values are not read.

        Raises:
            ValueError: rows have padding or missing values.
        """
        if batch.mask is not None:
            raise ValueError("deep_belief takes whole rows; these have a length each, or holes")
        return DeepBeliefModule(self, batch.x.shape, rngs)


class DeepBeliefModule(nnx.Module):
    """The network, built from its settings.

    Attributes:
        up: recognition layers: logits of each layer from the layer below.
        down: generative layers: logits of each layer from the layer above; the data's first.
        top: the RBM.
    """

    def __init__(self, settings: DeepBelief, shape: tuple[int, ...], rngs: nnx.Rngs):
        self.shape, initial = nnx.static(shape[1:]), initializer("sigmoid")
        sizes = list(itertools.pairwise([math.prod(shape[1:]), *settings.hidden]))
        self.up = nnx.List(Mirrored(n, m, bias=True, initial=initial, rngs=rngs) for n, m in sizes)
        self.down = nnx.List(nnx.Linear(m, n, kernel_init=initial, rngs=rngs) for n, m in sizes)
        self.top = RBMModule(settings.top, (shape[0], settings.hidden[-1]), rngs)

    def encode(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x [rows, *shape] -> means of the last layer [rows, latent_dim], without sampling."""
        h = x.reshape(len(x), -1)
        for layer in self.up:
            h = jax.nn.sigmoid(layer(h))
        return self.top.encode(h)

    def decode(self, z: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Units of the last layer z [..., latent_dim] -> means of x [..., *shape], no sampling."""
        return jax.nn.sigmoid(self._logits(z)).reshape(*z.shape[:-1], *self.shape)

    def _logits(self, z: jax.Array) -> jax.Array:
        """The logits of `decode`'s result, [..., elements]."""
        first, *others = self.down
        h = self.top.decode(z)
        for layer in reversed(others):
            h = jax.nn.sigmoid(layer(h))
        return first(h)

    def loss(self, batch: Batch, context: Context | None = None):
        """The sum of the wake, top and sleep losses of this module's docstring, in nats a row.

        Without a context: the cross-entropy between a row and its reconstruction.

        Args:
            batch: prepared rows, without padding or missing values.
            context: of the training step; None for deterministic evaluation.

        Returns:
            A scalar and named terms: in training `wake`, `top` (a difference of free energies) and
            `sleep`; in evaluation `mse` of an element.
        """
        x = batch.x.reshape(len(batch.x), -1)
        if context is None:
            logits = self._logits(self.encode(batch.x))
            nll = -jnp.sum(bernoulli.log_prob(logits, x), axis=1)
            error = jnp.mean(jnp.square(jax.nn.sigmoid(logits) - x), axis=1)
            return row_mean(nll, batch.mask), {"mse": row_mean(error, batch.mask)}
        still = jax.lax.stop_gradient
        states = [x]
        for number, layer in enumerate(self.up):
            states.append(coins(still(layer(states[-1])), context.draw(f"wake {number}")))
        wake = _nll(self.down, states[1:], states[:-1])
        end = self.top.chain(states[-1], context)
        machine = self.top.machine
        top = jnp.mean(machine.free_energy(states[-1])) - jnp.mean(machine.free_energy(end))
        dreams = [end]
        for number, layer in enumerate(reversed(self.down)):
            logits = still(layer(dreams[0]))
            last = number == len(self.down) - 1
            # The data are not sampled: grey values stay probabilities.
            drawn = (
                jax.nn.sigmoid(logits) if last else coins(logits, context.draw(f"dream {number}"))
            )
            dreams.insert(0, drawn)
        sleep = _nll(self.up, dreams[:-1], dreams[1:])
        return wake + top + sleep, {"wake": wake, "top": top, "sleep": sleep}


def _nll(layers: Any, inputs: list[jax.Array], outputs: list[jax.Array]) -> jax.Array:
    """-log p of each layer's outputs given its inputs, summed over layers: nats a row, []."""
    total = jnp.zeros(())
    for layer, given, wanted in zip(layers, inputs, outputs, strict=True):
        log_p = bernoulli.log_prob(layer(given), wanted)
        total = total - jnp.mean(jnp.sum(log_p, axis=1))
    return total
