"""Recurrent encoder and decoder: a sequence becomes one code, and the code the sequence again.

The encoder's last state is projected to the code. The decoder starts from a projection of the code
and sees it at every step beside (Cho et al. 2014, "Learning Phrase Representations using RNN
Encoder-Decoder", equation 8). By default it sees nothing else, the unconditioned decoder of
Srivastava et al. (2015, "Unsupervised Learning of Video Representations using LSTMs"), and gives
the sequence in reverse as there (Sutskever et al. 2014): what was read last is written first. With
teacher forcing it is the sequence autoencoder of Dai and Le (2015, "Semi-supervised Sequence
Learning"): each step is shown the element before, in training the true one (or, where that is
dropped, none: Bowman et al. 2016), in evaluation and decoding what it gave itself.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.models.batch import Context
from aejax.models.likelihood import Gaussian
from aejax.nn.product import product
from aejax.nn.recurrence import CELLS, Recurrence, State, keep

_INITIAL = nnx.initializers.glorot_uniform()


@dataclasses.dataclass
class Recurrent:
    """Layers of LSTM or GRU over the first axis of a row, which is time; mirrored back.

    A step is what lies behind that axis, as one vector: a line of an image, a frame of speech; or
    one of `symbols`, where rows are [length] and hold whole numbers, as bytes of text.

    Attributes:
        cell: lstm | gru.
        hidden: units of each layer, from the data inwards.
        symbols: how many kinds of symbols there are (256 for bytes), 0 where elements are numbers.
        embedding: numbers that stand for a symbol.
        bidirectional: the encoder also reads from the end, with as many units again.
        reverse: the decoder gives the last step first.
        positions: gates have a bias of their own for each step, so that layers know where they are.
        teacher_forcing: share of the steps that are shown the true element before them in training;
            0 for a decoder that sees the code alone, in training too.
    """

    cell: str = "lstm"
    hidden: tuple[int, ...] = (128,)
    symbols: int = 0
    embedding: int = 64
    bidirectional: bool = False
    reverse: bool = True
    positions: bool = True
    teacher_forcing: float = 0.0

    def __post_init__(self):
        self.hidden = tuple(self.hidden)
        if self.cell not in CELLS:
            raise ValueError(f"cell={self.cell}: must be {' or '.join(CELLS)}")
        if not self.hidden or any(size < 1 for size in self.hidden):
            raise ValueError(f"hidden={self.hidden}: must be one number or more, each at least 1")
        if self.symbols < 0 or self.symbols == 1:
            raise ValueError(f"symbols={self.symbols}: must be 0 (numbers) or at least 2")
        if self.embedding < 1:
            raise ValueError(f"embedding={self.embedding}: must be at least 1")
        if not 0 <= self.teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing={self.teacher_forcing}: must be from 0 to 1")

    def check(self, model: Any) -> str | None:
        """Why it does not suit this model's other parts, or None."""
        classes = getattr(model.likelihood, "classes", None)
        if (classes or 0) == self.symbols:
            return None
        if classes is None:
            return (
                f"symbols={self.symbols} needs model.likelihood=categorical with"
                f" classes={self.symbols}"
            )
        return (
            f"symbols={self.symbols}: must be model.likelihood.classes={classes}, so that what is"
            " read is what is written"
        )

    def shown(self, x: jax.Array, context: Context) -> jax.Array | None:
        """What the decoder is shown of x [rows, *shape]; NaN is nothing. None: it runs freely."""
        if not (self.teacher_forcing and context.training):
            return None
        if self.teacher_forcing == 1:
            return x
        draw = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:2]))
        seen = draw(context.draw("teacher_forcing")) < self.teacher_forcing
        return jnp.where(seen.reshape(seen.shape + (1,) * (x.ndim - 2)), x, jnp.nan)

    def encoder(self, shape: tuple[int, ...], features: int, rngs: nnx.Rngs) -> nnx.Module:
        """An encoder of sequences of this shape, [length, ...], to `features` numbers.

        Raises:
            ValueError: symbols that are no sequence of single ones.
        """
        return RecurrentEncoder(self, shape, features, rngs)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs
    ) -> nnx.Module:
        """A decoder of codes to `outputs` numbers for each element of sequences of this shape.

        Raises:
            ValueError: as `encoder`.
        """
        return RecurrentDecoder(self, latent_dim, shape, outputs, rngs)


class Steps(nnx.Module):
    """Elements as vectors, one a step; a symbol is one of `table`'s rows [symbols, embedding]."""

    def __init__(self, settings: Recurrent, shape: tuple[int, ...], rngs: nnx.Rngs):
        self.symbols = settings.symbols
        self.elements = math.prod(shape[1:])
        self.size = settings.embedding if self.symbols else self.elements
        if self.symbols and len(shape) != 1:
            raise ValueError(
                f"coder.symbols={self.symbols}: rows of shape {shape} are no sequences of symbols;"
                " they must be (length,)"
            )
        table = (self.symbols, self.size)
        normal = nnx.initializers.normal(1.0)
        self.table = nnx.Param(normal(rngs.params(), table)) if self.symbols else None

    def __call__(self, x: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
        """x [length, rows, elements], NaN for what is not seen -> [length, rows, size]."""
        seen = ~jnp.isnan(x)
        if self.table is None:
            return jnp.where(seen, x, 0.0).astype(dtype)
        # A product, not a lookup: its gradient is one too, and needs no scatter.
        symbol = jnp.where(seen, x, -1.0).astype(jnp.int32)[..., 0]
        return product(jax.nn.one_hot(symbol, self.symbols, dtype=dtype), self.table[...])


def _timed(x: jax.Array, like: jax.Array) -> jax.Array:
    """[rows, length, ...], a prefix of `like`, broadcast -> [length, rows, elements]."""
    x = jnp.broadcast_to(x.reshape(x.shape + (1,) * (like.ndim - x.ndim)), like.shape)
    return jnp.moveaxis(x.reshape(*x.shape[:2], -1), 1, 0)


def _real(mask: jax.Array | None, shape: tuple[int, ...]) -> jax.Array | None:
    """Steps with anything real in them, bool [length, rows, 1]: mask as in `Batch`, not [rows]."""
    if mask is None or mask.ndim == 1:
        return None
    real = (mask != 0).reshape(*mask.shape[:2], -1)
    return jnp.any(real, axis=-1).T[..., None]


class RecurrentEncoder(nnx.Module):
    """x [rows, *shape] -> features [rows, n]: a linear function of the last state.

    What is hidden is 0, or no symbol; over padding the state stays as it is, bit for bit.
    """

    def __init__(self, settings: Recurrent, shape: tuple[int, ...], features: int, rngs: nnx.Rngs):
        self.settings = settings
        self.steps = Steps(settings, shape, rngs)
        ways = 2 if settings.bidirectional else 1
        sizes = [self.steps.size, *(ways * size for size in settings.hidden[:-1])]

        def layers() -> nnx.List:
            return nnx.List(
                Recurrence(
                    settings.cell, n, m, shape[0], positions=settings.positions, rngs=rngs
                )
                for n, m in zip(sizes, settings.hidden, strict=True)
            )

        self.layers = layers()
        self.backward = layers() if settings.bidirectional else None
        last = ways * CELLS[settings.cell][2] * settings.hidden[-1]
        self.code = nnx.Linear(last, features, kernel_init=_INITIAL, rngs=rngs)

    def __call__(self, x: jax.Array, hidden: jax.Array | None, mask: jax.Array | None):
        dtype = self.code.kernel.dtype
        seen = _timed(x, x)
        for unseen in (hidden, None if mask is None else mask == 0):
            if unseen is not None:
                seen = jnp.where(_timed(unseen, x), jnp.nan, seen)
        real = _real(mask, x.shape)
        y, states = self.steps(seen, dtype), ()
        for i, layer in enumerate(self.layers):
            states, forth = layer(layer.inputs(y), layer.start(len(x), dtype), real)
            if self.backward is None:
                y = forth
                continue
            layer = self.backward[i]
            more, back = layer(layer.inputs(y), layer.start(len(x), dtype), real, reverse=True)
            states, y = (*states, *more), jnp.concatenate([forth, back], axis=-1)
        return self.code(jnp.concatenate(states, axis=-1))


class RecurrentDecoder(nnx.Module):
    """z [..., latent] -> parameters of p(x given z) [..., *shape, outputs].

    With teacher forcing each step sees the element before it: that of `shown` [rows, *shape] where
    that is given (NaN is nothing), else the mean, or likeliest symbol, that the step before gave.
    """

    def __init__(
        self,
        settings: Recurrent,
        latent_dim: int,
        shape: tuple[int, ...],
        outputs: int,
        rngs: nnx.Rngs,
    ):
        self.settings = settings
        self.shape = (*shape, outputs)
        self.steps = Steps(settings, shape, rngs) if settings.teacher_forcing else None
        sizes = [latent_dim, *reversed(settings.hidden)]
        self.layers = nnx.List(
            Recurrence(settings.cell, n, m, shape[0], positions=settings.positions, rngs=rngs)
            for n, m in itertools.pairwise(sizes)
        )
        first = self.layers[0]
        if self.steps is not None:
            self.before = nnx.Linear(
                self.steps.size,
                first.kernel.shape[1],
                use_bias=False,
                kernel_init=_INITIAL,
                rngs=rngs,
            )
        states = CELLS[settings.cell][2] * sum(settings.hidden)
        self.start = nnx.Linear(latent_dim, states, kernel_init=_INITIAL, rngs=rngs)
        last = settings.hidden[0]
        size = math.prod(self.shape[1:])
        self.output = nnx.Linear(last, size, kernel_init=_INITIAL, rngs=rngs)
        # How outputs are read where they are fed back; the autoencoder puts its own here.
        self.likelihood = nnx.static(Gaussian())

    def __call__(self, z: jax.Array, shown: jax.Array | None, mask: jax.Array | None):
        dtype, leading = self.start.kernel.dtype, z.shape[:-1]
        z = z.reshape(-1, z.shape[-1]).astype(dtype)
        real = _real(mask, self.shape)
        if real is not None:  # of each sample of a code the same
            real = jnp.tile(real, (1, len(z) // real.shape[1], 1))
        first = self.layers[0].inputs(z[None])
        first = jnp.broadcast_to(first, (self.shape[0], *first.shape[1:]))
        states = self._states(z)
        if self.steps is None:
            y = self._run(first, states, real)
        elif shown is None:
            y = self._run_freely(self.steps, first, states, real)
        else:
            before = _before(_timed(shown, shown), real, self.settings.reverse)
            before = product(self.steps(before, dtype), self.before.kernel[...])
            before = jnp.tile(before, (1, len(z) // before.shape[1], 1))
            y = self._run(first + before, states, real)
        return jnp.moveaxis(y, 0, 1).reshape(*leading, *self.shape)

    def _states(self, z: jax.Array) -> list[State]:
        """The layers' states before the first step."""
        start, states = self.start(z), []
        for layer in self.layers:
            size = layer.hidden * CELLS[layer.cell][2]
            state, start = start[:, :size], start[:, size:]
            states.append(tuple(jnp.split(state, CELLS[layer.cell][2], axis=-1)))
        return states

    def _run(self, inputs: jax.Array, states: list[State], real: jax.Array | None) -> jax.Array:
        """Layer by layer, each over all steps; [length, rows, outputs of a step]."""
        y = None
        for layer, state in zip(self.layers, states, strict=True):
            inputs = inputs if y is None else layer.inputs(y)
            _, y = layer(inputs, state, real, self.settings.reverse)
        return product(y, self.output.kernel[...]) + self.output.bias[...]

    def _run_freely(
        self, steps: Steps, inputs: jax.Array, states: list[State], real: jax.Array | None
    ) -> jax.Array:
        """Step by step, each through all layers, since it waits for what the one before gave."""
        rows, dtype = inputs.shape[1], inputs.dtype

        def each(carry, now):
            states, before = carry
            inputs, biases, real = now
            total = inputs + self.before(steps(before[None], dtype)[0])
            new = []
            for i, layer in enumerate(self.layers):
                if i:
                    total = new[-1][-1] @ layer.kernel[...] + biases[i - 1]
                new.append(layer.step(states[i], total))
            y = self.output(new[-1][-1])
            given = self.likelihood.mean(y.reshape(rows, *self.shape[1:]))
            given = given.reshape(rows, -1).astype(jnp.float32)
            if real is not None:
                new = [keep(real, *pair) for pair in zip(new, states, strict=True)]
                given = jnp.where(real, given, before)
            return (new, given), y

        biases = [
            jnp.broadcast_to(layer.bias[...], (self.shape[0], layer.bias.shape[-1]))
            for layer in list(self.layers)[1:]
        ]
        nothing = jnp.full((rows, steps.elements), jnp.nan, jnp.float32)
        _, y = jax.lax.scan(
            each, (states, nothing), (inputs, biases, real), reverse=self.settings.reverse
        )
        return y


def _before(x: jax.Array, real: jax.Array | None, reverse: bool) -> jax.Array:
    """What each step is shown, x of the step before it [length, rows, elements]; NaN is nothing."""
    if real is not None:
        x = jnp.where(real, x, jnp.nan)
    nothing = jnp.full_like(x[:1], jnp.nan)
    return jnp.concatenate([x[1:], nothing] if reverse else [nothing, x[:-1]])
