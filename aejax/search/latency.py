"""What a block and a layout cost in time, measured in place: the whole model with and without.

Blocks timed by themselves promise more than a whole model saves. A letter's latency here is that of
the whole model with this block in every searched slot, less that with none, by the number of slots.
All layouts are timed in turn, many rounds, and the lower quartile of each is taken: what disturbs a
machine adds to most, and on a shared one a few are faster than it lasts.
Training steps are timed many to a dispatch, as they run in the trainer, but without the optimizer:
with one to a dispatch half of the time went into memory that the system hands out anew for each.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax import cluster
from aejax.models import Autoencoder
from aejax.models.batch import Batch, Context
from aejax.search import space as spaces
from aejax.search.space import Layout, Space
from aejax.training.step import cast, row_keys

_ROUNDS = 24
# Of one round: long enough that a clock's and a dispatch's own time do not count. So many training
# steps are in it at least.
_SECONDS, _STEPS = 0.03, 4
# Of the descent that keeps one step from being the next one's repetition.
_RATE = 1e-6


@dataclasses.dataclass(frozen=True)
class Latency:
    """Seconds of one batch.

    Attributes:
        forward: of the loss, without dropout.
        training: of the loss and its gradient, in a loop.
    """

    forward: float
    training: float


@dataclasses.dataclass(frozen=True)
class Table:
    """What each block adds to the whole.

    Attributes:
        empty: the model with nothing in its searched slots.
        blocks: {letter: what one adds}.
    """

    empty: Latency
    blocks: dict[str, Latency]

    def predicted(self, layout: Layout, space: Space) -> Latency | None:
        """The sum for a layout's searched slots; None where it is not one of the space's."""
        if not space.holds(layout):
            return None
        letters = [getattr(layout, stack)[number] for stack, number, _ in space.searched]
        return Latency(
            *(
                getattr(self.empty, name)
                + sum(getattr(self.blocks[letter], name) for letter in letters)
                for name in ("forward", "training")
            )
        )


def measure(
    base: Autoencoder,
    layouts: Sequence[Layout],
    rows: np.ndarray,
    compute: str = "float32",
    rounds: int = _ROUNDS,
) -> dict[Layout, Latency]:
    """Times layouts in turn on one batch of prepared rows [batch, *shape], over many rounds.

    `compute` is the type that the model computes in, as in a run (`config.compute`).
    """
    different = list(dict.fromkeys(layouts))
    models = [spaces.with_layout(base, layout) for layout in different]
    return dict(zip(different, of_models(models, rows, compute, rounds), strict=True))


def of_models(
    models: Sequence[Autoencoder], rows: np.ndarray, compute: str, rounds: int = _ROUNDS
) -> list[Latency]:
    """Times models in turn; arguments as `measure`."""
    # A GPU's compiler times kernels, which nothing may run beside.
    at_once = cluster.cores() if jax.default_backend() == "cpu" else 1
    with ThreadPoolExecutor(at_once) as pool:
        programs = list(pool.map(lambda model: _programs(model, rows, compute), models))
    counts = [
        [
            max(least, int(_SECONDS / max(_seconds(run, 1), 1e-9)))
            for run, least in zip(pair, (1, _STEPS), strict=True)
        ]
        for pair in programs
    ]
    seen: list[Any] = [([], []) for _ in programs]
    for _ in range(rounds):
        for pair, times, count in zip(programs, seen, counts, strict=True):
            for number, run in enumerate(pair):
                run(1)  # what ran before leaves its memory behind
                times[number].append(_seconds(run, count[number]))
    return [Latency(*(float(np.quantile(each, 0.25)) for each in times)) for times in seen]


def table(
    base: Autoencoder,
    space: Space,
    rows: np.ndarray,
    compute: str = "float32",
    rounds: int = _ROUNDS,
) -> Table:
    """Times each letter of the space in place; arguments as `measure`."""
    return compared(base, space, [], rows, compute, rounds)[0]


def compared(
    base: Autoencoder,
    space: Space,
    layouts: Sequence[Layout],
    rows: np.ndarray,
    compute: str = "float32",
    rounds: int = _ROUNDS,
) -> tuple[Table, dict[Layout, Latency]]:
    """The table, and layouts timed in the same rounds: a machine's speed changes over minutes."""
    filled = {letter: space.filled(letter) for letter in sorted({"i", *space.letters})}
    seen = measure(base, [*filled.values(), *layouts], rows, compute, rounds)
    empty, slots = seen[filled["i"]], len(space.searched)
    blocks = {
        letter: Latency(
            *(
                (getattr(seen[filled[letter]], name) - getattr(empty, name)) / slots
                for name in ("forward", "training")
            )
        )
        for letter in space.letters - {"i"}
    }
    table = Table(empty, {"i": Latency(0.0, 0.0), **blocks})
    return table, {layout: seen[layout] for layout in layouts}


def _programs(
    model: Autoencoder, rows: np.ndarray, compute: str
) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """Run the loss of a model so many times, and its gradient; each run waits for its end."""
    batch = Batch(jnp.asarray(rows), index=jnp.arange(len(rows)))
    graph, params, rest = nnx.split(model.init(nnx.Rngs(0), batch), nnx.Param, ...)

    def module(params):
        used = jax.tree.map(lambda leaf: cast(leaf, compute), params)
        return nnx.merge(graph, used, rest)

    def forward(params, x):
        return module(params).loss(Batch(x, index=batch.index))[0]

    def training(params, x, count):
        def loss(params, number):
            keys = row_keys(jax.random.key(0), number, jnp.arange(len(x), dtype=jnp.uint32))
            context = Context(keys, number, lambda values: jnp.mean(values, axis=0))
            return module(params).loss(Batch(x, index=batch.index), context)[0]

        def step(number, params):
            gradient = jax.grad(loss)(params, number)
            return jax.tree.map(lambda p, g: p - _RATE * g, params, gradient)

        return jax.lax.fori_loop(0, count, step, params)

    once = jax.jit(forward).lower(params, batch.x).compile()
    steps = jax.jit(training).lower(params, batch.x, np.int32(1)).compile()

    def run_forward(count: int) -> jax.Array:
        losses = [jax.block_until_ready(once(params, batch.x)) for _ in range(count)]
        return losses[-1]

    def run_training(count: int) -> Any:
        return jax.block_until_ready(steps(params, batch.x, np.int32(count)))

    return run_forward, run_training


def _seconds(run: Callable[[int], Any], count: int) -> float:
    """Seconds of one of `count` times."""
    start = time.perf_counter()
    run(count)
    return (time.perf_counter() - start) / count
