"""Recurrent encoder and decoder: a sequence becomes one code, and the code a sequence.

The encoder's last state is projected to the code. The decoder's initial state is a projection of
the code, and the code is also an input of every step (Cho et al. 2014, "Learning Phrase
Representations using RNN Encoder-Decoder", equation 8). By default it has no other input: this is
the unconditioned decoder of Srivastava et al. (2015, "Unsupervised Learning of Video
Representations using LSTMs"), which also writes the sequence in reverse (Sutskever et al. 2014).
With teacher forcing this is the sequence autoencoder of Dai and Le (2015, "Semi-supervised Sequence
Learning"): another input of a step is the element before it. In training this is the true one (or
none, where it is dropped: Bowman et al. 2016), in evaluation and decoding the decoder's own output.
"""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.models.batch import Context
from aejax.models.interfaces import Coder, Likelihood
from aejax.models.likelihood import Gaussian
from aejax.nn.embedding import embedded
from aejax.nn.product import product
from aejax.nn.recurrence import CELLS, State, keep, recurrence

_INITIAL = nnx.initializers.glorot_uniform()


@dataclasses.dataclass
class Recurrent(Coder):
    """Layers over the first axis of a row, which is time, to the code; mirrored back.

    A step is an entry of that axis, as one vector: a line of an image, a frame of speech.
    Where elements are `symbols`, whole numbers such as bytes of text, each one is a step.

    Attributes:
        cell: lstm | gru | lru (a linear recurrence, which keeps long sequences and is fast).
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

    # A product over [steps, rows] as one axis cannot stay divided over rows: each device would
    # compute the whole batch. Over two axes it can, but then XLA sums the gradient of U over
    # devices in each pass of the scan, 57 times in a step of `sequence` (jax 0.10.2, for CPUs).
    gradient_by_device = True

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

    def check(self, model: Any) -> None:
        classes = model.symbols
        if classes == self.symbols:
            return
        if not classes:
            raise ValueError(
                f"symbols={self.symbols} needs model.likelihood=categorical with"
                f" classes={self.symbols}"
            )
        raise ValueError(
            f"symbols={self.symbols}: must be model.likelihood.classes={classes}, so that what is"
            " read is what is written"
        )

    def connect(self, encoder: Any, decoder: Any, likelihood: Likelihood) -> None:
        """Gives the decoder the likelihood, which turns its outputs into the next step's input."""
        decoder.likelihood = nnx.static(likelihood)

    def teacher_inputs(self, x: jax.Array, context: Context) -> jax.Array | None:
        """Inputs of the decoder for teacher forcing [rows, *shape], NaN where dropped; or None."""
        if not (self.teacher_forcing and context.training):
            return None
        if self.teacher_forcing == 1:
            return x
        length, _ = self.steps(x.shape[1:])
        draw = jax.vmap(lambda key: jax.random.uniform(key, (length, 1)))
        seen = draw(context.draw("teacher_forcing")) < self.teacher_forcing
        steps = x.reshape(len(x), length, -1)
        return jnp.where(seen, steps, jnp.nan).reshape(x.shape)

    def steps(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """How many steps rows of this shape have, and how many elements a step."""
        size = math.prod(shape)
        return (size, 1) if self.symbols else (shape[0], size // shape[0])

    def encoder(self, shape: tuple[int, ...], features: int, rngs: nnx.Rngs) -> nnx.Module:
        """An encoder of sequences of this shape, [length, ...], to `features` numbers."""
        return RecurrentEncoder(self, shape, features, rngs)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], outputs: int, rngs: nnx.Rngs
    ) -> nnx.Module:
        """A decoder of codes to `outputs` numbers for each element of sequences of this shape."""
        return RecurrentDecoder(self, latent_dim, shape, outputs, rngs)


class Steps(nnx.Module):
    """Elements as vectors, one a step; a symbol is one of `table`'s rows [symbols, embedding].

    Attributes:
        length: steps of a row.
        elements: of a step.
        size: of a step's vector.
    """

    def __init__(self, settings: Recurrent, shape: tuple[int, ...], rngs: nnx.Rngs):
        self.symbols = settings.symbols
        self.length, self.elements = settings.steps(shape)
        self.size = settings.embedding if self.symbols else self.elements
        table = (self.symbols, self.size)
        normal = nnx.initializers.normal(1.0)
        self.table = nnx.Param(normal(rngs.params(), table)) if self.symbols else None

    def __call__(self, x: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
        """x [length, rows, elements], NaN for no input -> [length, rows, size]."""
        seen = ~jnp.isnan(x)
        if self.table is None:
            return jnp.where(seen, x, 0.0).astype(dtype)
        symbol = jnp.where(seen, x, -1.0).astype(jnp.int32)[..., 0]
        return embedded(self.table[...].astype(dtype), symbol)


def _timed(x: jax.Array, like: tuple[int, ...], length: int) -> jax.Array:
    """Broadcasts [rows, ...] (a prefix of the shape `like`) to it -> [length, rows, elements]."""
    x = jnp.broadcast_to(x.reshape(x.shape + (1,) * (len(like) - x.ndim)), like)
    return jnp.moveaxis(x.reshape(len(x), length, -1), 1, 0)


def _real(mask: jax.Array | None, shape: tuple[int, ...], length: int) -> jax.Array | None:
    """Steps with at least one real element, bool [length, rows, 1]; None without padding.

    Args:
        mask: as in `Batch`; one of shape [rows] means that there is no padding within rows.
        shape: of a row.
        length: steps of a row.
    """
    if mask is None or mask.ndim == 1:
        return None
    return jnp.any(_timed(mask != 0, (len(mask), *shape), length), axis=-1, keepdims=True)


class RecurrentEncoder(nnx.Module):
    """x [rows, *shape] -> features [rows, n]: a linear function of the last state.

    Hidden elements are 0, or no symbol. Padded steps leave the state unchanged, bit for bit.
    """

    def __init__(self, settings: Recurrent, shape: tuple[int, ...], features: int, rngs: nnx.Rngs):
        self.settings = settings
        self.steps = Steps(settings, shape, rngs)
        ways = 2 if settings.bidirectional else 1
        sizes = [self.steps.size, *(ways * size for size in settings.hidden[:-1])]

        def layers() -> nnx.List:
            return nnx.List(
                recurrence(
                    settings.cell,
                    sizes[i],
                    settings.hidden[i],
                    self.steps.length,
                    positions=settings.positions,
                    rngs=rngs,
                    readout=i + 1 < len(settings.hidden),
                )
                for i in range(len(sizes))
            )

        self.layers = layers()
        self.backward = layers() if settings.bidirectional else None
        last = ways * self.layers[-1].arrays * settings.hidden[-1]
        self.code = nnx.Linear(last, features, kernel_init=_INITIAL, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        hidden: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        dtype = self.code.kernel.dtype
        length = self.steps.length
        seen = _timed(x, x.shape, length)
        for unseen in (hidden, None if mask is None else mask == 0):
            if unseen is not None:
                seen = jnp.where(_timed(unseen, x.shape, length), jnp.nan, seen)
        real = _real(mask, x.shape[1:], length)
        y, states = self.steps(seen, dtype), []
        for i, layer in enumerate(self.layers):
            both = [(layer, False)]
            if self.backward is not None:
                both.append((self.backward[i], True))
            run = [
                each(each.inputs(y), each.start(len(x), dtype), real, reverse)
                for each, reverse in both
            ]
            states = [array for state, _ in run for array in state]
            if i + 1 < len(self.layers):
                outputs = [
                    each.output(shown) for (each, _), (_, shown) in zip(both, run, strict=True)
                ]
                y = jnp.concatenate(outputs, axis=-1)
        return self.code(jnp.concatenate(states, axis=-1))


class RecurrentDecoder(nnx.Module):
    """z [..., latent] -> parameters of p(x given z) [..., *shape, outputs].

    With teacher forcing another input of each step is the element before it: that of `target`
    [rows, *shape] if given (NaN for no input), else the mean, or likeliest symbol, of the previous
    step's output.
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
        self.length, elements = settings.steps(shape)
        self.steps = Steps(settings, shape, rngs) if settings.teacher_forcing else None
        sizes = [latent_dim, *reversed(settings.hidden)]
        self.layers = nnx.List(
            recurrence(
                settings.cell,
                n,
                m,
                self.length,
                positions=settings.positions,
                rngs=rngs,
                backwards=settings.reverse,
            )
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
        states = first.arrays * sum(settings.hidden)
        self.start = nnx.Linear(latent_dim, states, kernel_init=_INITIAL, rngs=rngs)
        size = self.layers[-1].size
        self.output = nnx.Linear(size, elements * outputs, kernel_init=_INITIAL, rngs=rngs)
        # Turns outputs into the next step's input; `connect` sets the autoencoder's own likelihood.
        self.likelihood = nnx.static(Gaussian())

    def __call__(
        self,
        z: jax.Array,
        target: jax.Array | None,
        mask: jax.Array | None,
        context: Context | None = None,
    ) -> jax.Array:
        dtype, leading = self.start.kernel.dtype, z.shape[:-1]
        z = z.reshape(-1, z.shape[-1]).astype(dtype)
        real = _real(mask, self.shape[:-1], self.length)
        first = self.layers[0].inputs(z[None])
        first = jnp.broadcast_to(first, (self.length, *first.shape[1:]))
        before = None
        if self.steps is not None and target is not None:
            before = _before(_timed(target, target.shape, self.length), real, self.settings.reverse)
            before = _repeated(product(self.steps(before, dtype), self.before.kernel[...]), len(z))
        real = None if real is None else _repeated(real, len(z))
        states = self._states(z)
        if before is not None:
            y = self._run(first + before, states, real)
        elif self.steps is None:
            y = self._run(first, states, real)
        else:
            y = self._run_freely(self.steps, first, states, real)
        return jnp.moveaxis(y, 0, 1).reshape(*leading, *self.shape)

    def _states(self, z: jax.Array) -> list[State]:
        """The layers' states before the first step."""
        start, states = self.start(z), []
        for layer in self.layers:
            size = layer.hidden * layer.arrays
            state, start = start[:, :size], start[:, size:]
            states.append(tuple(jnp.split(state, layer.arrays, axis=-1)))
        return states

    def _run(self, inputs: jax.Array, states: list[State], real: jax.Array | None) -> jax.Array:
        """Layer by layer, each over all steps; [length, rows, outputs of a step]."""
        y = inputs
        for i, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            _, shown = layer(layer.inputs(y) if i else y, state, real, self.settings.reverse)
            y = layer.output(shown)
        return _linear(self.output, y)

    def _run_freely(
        self, steps: Steps, inputs: jax.Array, states: list[State], real: jax.Array | None
    ) -> jax.Array:
        """Runs all layers step by step, since each step needs the previous step's output."""
        rows, dtype = inputs.shape[1], inputs.dtype

        def each(carry, now):
            states, before = carry
            inputs, biases, real = now
            y = inputs + self.before(steps(before[None], dtype)[0])
            new = []
            for i, layer in enumerate(self.layers):
                total = y @ layer.kernel[...] + biases[i - 1] if i else y
                state = layer.step(states[i], total)
                new.append(state if real is None else keep(real, state, states[i]))
                y = layer.output(layer.output_state(new[-1]))
            y = self.output(y)
            given = self.likelihood.mean(y.reshape(rows, steps.elements, -1)).astype(jnp.float32)
            if real is not None:
                given = jnp.where(real, given, before)
            return (new, given), y

        biases = [
            jnp.broadcast_to(layer.bias[...], (self.length, layer.bias.shape[-1]))
            for layer in list(self.layers)[1:]
        ]
        nothing = jnp.full((rows, steps.elements), jnp.nan, jnp.float32)
        _, y = jax.lax.scan(
            each, (states, nothing), (inputs, biases, real), reverse=self.settings.reverse
        )
        return y


def _repeated(x: jax.Array, rows: int) -> jax.Array:
    """Repeats an array for each sample of a code: [length, n, ...] -> [length, rows, ...]."""
    return x if x.shape[1] == rows else jnp.tile(x, (1, rows // x.shape[1], 1))


def _linear(layer: nnx.Linear, x: jax.Array) -> jax.Array:
    """x [length, rows, n] -> [length, rows, m]."""
    assert layer.bias is not None
    return product(x, layer.kernel[...]) + layer.bias[...]


def _before(x: jax.Array, real: jax.Array | None, reverse: bool) -> jax.Array:
    """Each step's teacher input: x of the step before it [length, rows, elements], or NaN."""
    if real is not None:
        x = jnp.where(real, x, jnp.nan)
    nothing = jnp.full_like(x[:1], jnp.nan)
    return jnp.concatenate([x[1:], nothing] if reverse else [nothing, x[:-1]])
