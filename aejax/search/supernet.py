"""The supernet of PAR (Mandava et al. 2021, section 3): all candidates in each slot, mixed.

    x + sum over candidates b of m_b block_b(x),   m = softmax((a + g) / t),   g ~ Gumbel(0, 1)

The blocks learn on one part of the rows and the architecture weights a on another. Blocks learn
alone until the supernet has learned what it can: until the average of its loss is below `learned`.
From then on they go on learning, the temperature t falls, and in a share of the steps a descends

    loss + cost_weight * max(0, sum over slots of softmax(a) . cost - target)

by every second row of its part, for half of the time: all rows share one draw of g (what that costs
is measured in docs/log/search.md and benchmarks/README.md). Without a price attention never hurts,
and stays everywhere (DARTS-like searches need one: PLANER, Latifi et al. 2022, adds the latency
above a target). Architecture weights are kept divided by `rate`, which makes Adam move them that
many times faster than the blocks.
"""

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.data.sources.base import Rows, Source, Spec
from aejax.errors import InputError
from aejax.models import Autoencoder
from aejax.models.batch import Batch, Context
from aejax.models.interfaces import Trainable
from aejax.search import space as spaces
from aejax.search.settings import Search
from aejax.search.space import Space

# Of the loss's running average, in steps.
_MEMORY = 50


class Architecture(nnx.Param):
    """Architecture weights, divided by the rate."""


class SearchState(nnx.Variable):
    """How far a supernet has come: the running average of its loss, and when it had learned."""


@dataclasses.dataclass
class Supernet(Trainable):
    """What trains as a supernet.

    Attributes:
        model: the autoencoder, with any layout.
        space: the candidates of its slots.
        cost: {letter: price} of a block.
        cost_weight: of the sum of prices, in nats a row.
        target: sum of prices below which nothing is paid.
        learned: loss, in nats a row, below which the supernet has learned; then the search begins.
        warmup: steps before which it never begins.
        steps: over which the temperature falls.
        temperature: the first and the last.
        share: of the steps in which architecture weights have a gradient as well.
        rate: how much faster they move.
        seed: of the Gumbel noise.
    """

    model: Autoencoder
    space: Space
    cost: dict[str, float]
    cost_weight: float
    target: float
    learned: float
    warmup: int
    steps: int
    temperature: tuple[float, float]
    share: float
    rate: float
    seed: int

    @classmethod
    def of(cls, settings: Search, cost: dict[str, float]) -> Self:
        """That of a search, where a block of each letter costs so much."""
        own = settings.supernet
        return cls(
            model=settings.run.model,
            space=settings.space(),
            cost=cost,
            cost_weight=own.cost_weight,
            target=own.target,
            learned=settings.learned if own.patient else 1e9,
            warmup=own.warmup,
            steps=own.anneal,
            temperature=(own.temperature[0], own.temperature[1]),
            share=own.share,
            rate=own.rate,
            seed=settings.run.seed,
        )

    def check(self, interval: bool) -> None:
        self.model.check(interval)

    @property
    def symbols(self) -> int:  # pyright: ignore - of its model
        return self.model.symbols

    @property
    def sharding_rules(self) -> tuple[str, ...]:  # pyright: ignore - of its model
        return self.model.sharding_rules

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "SupernetModule":
        """Builds the module for batches of pairs of rows (`Pairs`)."""
        return SupernetModule(self, batch, rngs)


class SupernetModule(nnx.Module):
    """The supernet of one search; its architecture weights are one array a slot.

    Attributes:
        model: the autoencoder with all candidates.
        architecture: logits / rate of each searched slot.
        average: of the loss.
        learned_at: the step at which the supernet had learned; -1 before.
    """

    def __init__(self, settings: Supernet, batch: Batch, rngs: nnx.Rngs):
        self.settings = nnx.static(settings)
        row = jax.ShapeDtypeStruct((len(batch.x), *batch.x.shape[2:]), batch.x.dtype)
        self.model = settings.space.model(settings.model).init(rngs, Batch(row))  # pyright: ignore
        self.rows = len(batch.x)
        self.architecture = nnx.List(
            Architecture(jnp.zeros(len(letters))) for _, _, letters in settings.space.searched
        )
        self.average = SearchState(jnp.zeros(()))
        self.learned_at = SearchState(jnp.full((), -1, jnp.int32))

    def logits(self) -> list[jax.Array]:
        """The architecture weights of each searched slot."""
        return [each[...] * self.settings.rate for each in self.architecture]

    def best(self) -> list[jax.Array]:
        """1 for the candidate with the largest weight of each slot."""
        return [jax.nn.one_hot(jnp.argmax(each), len(each)) for each in self.logits()]

    def loss(self, batch: Batch, context: Context | None = None):
        """As the autoencoder's; without a context that of the layout chosen so far."""
        if context is None or context.step is None:
            own = Batch(batch.x[:, 0], batch.mask, None, batch.index)
            return spaces.mixed(self.model, self.best()).loss(own, context)
        return self._searching(batch, context, context.step)

    def _searching(self, batch: Batch, context: Context, step: jax.Array):
        settings, logits = self.settings, self.logits()
        begun = self.learned_at[...] >= 0
        since = jnp.where(begun, step - self.learned_at[...], 0)
        turn = jnp.floor((since + 1) * settings.share) > jnp.floor(since * settings.share)
        noise = self._noise(step, since)
        learning, judging = (Batch(batch.x[:, half], index=batch.index) for half in (0, 1))
        judging, keys = jax.tree.map(lambda leaf: leaf[::2], (judging, context.keys))
        mean = functools.partial(self._mean, len(batch.x))
        here = jax.lax.stop_gradient(logits)
        loss, terms = spaces.mixed(self.model, noise(here)).loss(learning, context)
        self._note(context.mean(jax.lax.stop_gradient(loss)[None]), step)
        still = spaces.frozen(self.model)
        inside = dataclasses.replace(context, keys=keys, mean=mean)

        def priced(weights: list[jax.Array]) -> jax.Array:
            judged = spaces.mixed(still, noise(weights)).loss(judging, inside)[0]
            return judged + settings.cost_weight * self._price(weights)

        # The gradient is made in the branch: what a branch keeps for a backward pass outside is
        # written in every step, also where it is not taken.
        slopes = jax.lax.cond(
            begun & turn,
            jax.grad(priced),
            lambda weights: jax.tree.map(jnp.zeros_like, weights),
            here,
        )
        for (stack, number, letters), each in zip(settings.space.searched, logits, strict=True):
            for letter, share in zip(letters, jax.nn.softmax(each), strict=True):
                terms[f"{stack}_{number}_{letter}"] = jax.lax.stop_gradient(share)
        return loss + _sloping(logits, here, slopes), terms

    def _mean(self, rows: int, values: jax.Array) -> jax.Array:
        """Batch mean for use inside lax.cond.

        Collectives cannot run in a branch, so this process must hold the whole batch.

        Raises:
            InputError: this process holds a part of the batch only.
        """
        if rows < self.rows:
            raise InputError(
                "config.run.model averages over the batch (config.run.model.penalty=activity, or"
                " free bits): a supernet then needs config.run.micro_batches=1 and"
                " config.run.parallel=pjit"
            )
        return jnp.mean(values, axis=0)

    def _noise(self, step: jax.Array, since: jax.Array):
        """weights -> Gumbel-softmax of them, with the same noise each time."""
        settings = self.settings
        first, last = settings.temperature
        share = jnp.clip(since / settings.steps, 0.0, 1.0)
        heat = first * (last / first) ** share
        key = jax.random.fold_in(jax.random.key(settings.seed), step)

        def noisy(weights: list[jax.Array]) -> list[jax.Array]:
            return [
                jax.nn.softmax(
                    (each + jax.random.gumbel(jax.random.fold_in(key, n), each.shape)) / heat
                )
                for n, each in enumerate(weights)
            ]

        return noisy

    def _price(self, weights: list[jax.Array]) -> jax.Array:
        total = jnp.zeros(())
        for each, (_, _, letters) in zip(weights, self.settings.space.searched, strict=True):
            price = jnp.array([self.settings.cost[letter] for letter in letters])
            total = total + jax.nn.softmax(each) @ price
        return jnp.maximum(total - self.settings.target, 0.0)

    def _note(self, loss: jax.Array, step: jax.Array) -> None:
        """Keeps the average of the loss, and the step at which it was low enough."""
        settings = self.settings
        keep = jnp.minimum(step, _MEMORY) / (jnp.minimum(step, _MEMORY) + 1.0)
        average = keep * self.average[...] + (1 - keep) * loss
        low = (average < settings.learned) & (step >= settings.warmup)
        begins = low & (self.learned_at[...] < 0)
        self.average.set_value(average)
        self.learned_at.set_value(jnp.where(begins, step + 1, self.learned_at[...]))


def _sloping(values: Any, here: Any, slopes: Any) -> jax.Array:
    """0, with these slopes as the gradient by the values, which are `here`."""
    away = jax.tree.map(jnp.subtract, values, here)
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes, away)), jnp.zeros(()))


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Rows of one source beside rows of another: [rows, 2, *shape], as many as the first has.

    Attributes:
        learning: the blocks learn from these.
        judging: the architecture weights learn from these.
    """

    learning: Source
    judging: Source

    @property
    def spec(self) -> Spec:
        spec = self.learning.spec
        return dataclasses.replace(spec, shape=(2, *spec.shape), labelled=False)

    def __len__(self) -> int:
        return len(self.learning)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        other: Any = self.judging[index % len(self.judging)]
        return Rows(np.stack([self.learning[index].x, other.x], axis=1))
