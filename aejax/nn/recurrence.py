"""Recurrent layers: a scan over time. A padded step leaves the state unchanged, bit for bit.

LSTM (Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 2000), s the sigmoid;
each gate has rows of W, U and b of its own,

    i, f, o = s(W x + U h + b),   g = tanh(W x + U h + b),
    c' = f c + i g,   h' = o tanh(c')

GRU (Cho et al. 2014), with the reset gate after the product, so that all gates share one product,

    r, u = s(W x + U h + b),   n = tanh(W x + b + r U h),
    h' = u h + (1 - u) n

LRU, the linear recurrent unit (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for
Long Sequences"), whose units are complex and rotate by a learned angle at each step,

    h' = exp(-exp(decay) + i angle) h + W x + b,   y = gelu(V [Re h, Im h] + a)

W x and V h do not depend on the recurrence: each is one product for all steps, outside the scan.
"""

import abc
import math

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.nn.product import product

# The carry of the scan: arrays [rows, hidden].
State = tuple[jax.Array, ...]

_GLOROT = nnx.initializers.glorot_uniform()
# Scans of up to so many steps are unrolled. A training step of the preset `sequence`, which has 8,
# then takes 0.7 of the time; with 28 it takes longer, and half a minute to compile.
_WRITTEN_OUT = 8


class Recurrence(nnx.Module):
    """Base of the recurrent layers; all sequences have the same length, padding included.

    Attributes:
        kernel: W, [inputs, matrices * hidden].
        bias: b, [matrices * hidden], or with `positions` one for each step, [length, ...].
        arrays: number of arrays in the state.
        size: size of the output of each step.
    """

    kernel: nnx.Param
    bias: nnx.Param
    arrays: int
    hidden: int
    size: int

    def inputs(self, x: jax.Array) -> jax.Array:
        """W x + b of all steps: x [length, rows, inputs] -> [length, rows, matrices * hidden]."""
        bias = self.bias[...]
        return product(x, self.kernel[...]) + (bias[:, None] if bias.ndim == 2 else bias)

    def start(self, rows: int, dtype: jax.typing.DTypeLike) -> State:
        """The state before the first step: 0."""
        return (jnp.zeros((rows, self.hidden), dtype),) * self.arrays

    @abc.abstractmethod
    def step(self, state: State, inputs: jax.Array) -> State:
        """The state after one step, from W x + b [rows, matrices * hidden]."""

    @abc.abstractmethod
    def output_state(self, state: State) -> State:
        """The part of a state that `output` needs."""

    @abc.abstractmethod
    def output(self, state: State) -> jax.Array:
        """The layer's output [..., size] from `output_state`, of one step or of all."""

    def __call__(
        self, inputs: jax.Array, state: State, real: jax.Array | None = None, reverse: bool = False
    ) -> tuple[State, State]:
        """Runs over all steps.

        Args:
            inputs: W x + b, [length, rows, matrices * hidden].
            state: before the first step.
            real: bool [length, rows, 1]; False is padding, which leaves the state unchanged.
            reverse: run from the last step to the first.

        Returns:
            The state after all steps, and `output_state` after each, [length, rows, hidden].
        """

        def each(state: State, now):
            inputs, real = now
            new = self.step(state, inputs)
            if real is not None:
                new = keep(real, new, state)
            return new, self.output_state(new)

        unroll = len(inputs) if len(inputs) <= _WRITTEN_OUT else 1
        return jax.lax.scan(each, state, (inputs, real), reverse=reverse, unroll=unroll)


class Gated(Recurrence):
    """LSTM or GRU, as above. A state is (c, h), or (h,); the output is h.

    Attributes:
        recurrent: U, [hidden, matrices * hidden].
    """

    def __init__(
        self,
        cell: str,
        inputs: int,
        hidden: int,
        length: int,
        *,
        positions: bool,
        rngs: nnx.Rngs,
    ):
        self.cell, self.hidden, self.size = cell, hidden, hidden
        self.arrays, matrices = (2, 4) if cell == "lstm" else (1, 3)
        self.kernel = nnx.Param(_side_by_side(_GLOROT, matrices, (inputs, hidden), rngs))
        orthogonal = nnx.initializers.orthogonal()
        self.recurrent = nnx.Param(_side_by_side(orthogonal, matrices, (hidden, hidden), rngs))
        bias = _memory(cell, hidden, length, rngs)
        self.bias = nnx.Param(jnp.tile(bias, (length, 1)) if positions else bias)

    def step(self, state: State, inputs: jax.Array) -> State:
        before = state[-1] @ self.recurrent[...]
        return (_lstm if self.cell == "lstm" else _gru)(state, inputs, before)

    def output_state(self, state: State) -> State:
        return state[-1:]

    def output(self, state: State) -> jax.Array:
        return state[0]


def _side_by_side(
    initial: nnx.Initializer, count: int, shape: tuple[int, int], rngs: nnx.Rngs
) -> jax.Array:
    """`count` separately initialised matrices side by side: [n, count * m].

    One after the other: on a CPU two batches of QR decompositions side by side wait for each other
    for ever where there are two threads (jaxlib 0.10.2 runs a batch in the pool that it runs in).
    """
    keys = jax.random.split(rngs.params(), count)
    each = jax.lax.map(lambda key: initial(key, shape), keys)
    return jnp.moveaxis(each, 0, 1).reshape(shape[0], -1)


def _lstm(state: State, inputs: jax.Array, before: jax.Array) -> State:
    i, f, o, g = jnp.split(inputs + before, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[0] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def _gru(state: State, inputs: jax.Array, before: jax.Array) -> State:
    (h,) = state
    size = 2 * h.shape[-1]
    r, u = jnp.split(jax.nn.sigmoid(inputs[:, :size] + before[:, :size]), 2, axis=-1)
    n = jnp.tanh(inputs[:, size:] + r * before[:, size:])
    return (n + u * (h - n),)


def _memory(cell: str, hidden: int, length: int, rngs: nnx.Rngs) -> jax.Array:
    """Biases with which units remember for 1 to `length` steps (Tallec and Ollivier 2018).

    A gate of sigmoid(log n) remembers for about n steps; n is uniform over 1 .. length - 1.
    """
    steps = jax.random.uniform(rngs.params(), (hidden,), minval=1.0, maxval=max(length - 1.0, 1.0))
    gate, zero = jnp.log(steps), jnp.zeros(hidden)
    return jnp.concatenate([-gate, gate, zero, zero] if cell == "lstm" else [zero, gate, zero])


class LRU(Recurrence):
    """LRU, as above. A state is (Re h, Im h); the output y has `hidden` numbers.

    At initialisation the angles are evenly spaced over half a circle and the decay is close to 0:
    the state is then a Fourier transform of the sequence, from which each step can be recovered.

    Attributes:
        decay, angle: of each unit, [hidden].
        readout: V and a.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        length: int,
        *,
        positions: bool,
        rngs: nnx.Rngs,
        backwards: bool = False,
        readout: bool = True,
    ):
        """`backwards`: rotate the other way; `readout`: whether to compute outputs."""
        self.hidden, self.size, self.arrays = hidden, hidden, 2
        # In place of the paper's normalisation: a state is a sum over `length` steps.
        scale = nnx.initializers.variance_scaling(1 / length, "fan_in", "normal")
        self.kernel = nnx.Param(scale(rngs.params(), (inputs, 2 * hidden)))
        self.bias = nnx.Param(jnp.zeros((length, 2 * hidden) if positions else 2 * hidden))
        self.decay = nnx.Param(jnp.full(hidden, math.log(0.1 / length)))
        angle = jnp.pi * (jnp.arange(hidden) + 0.5) / hidden
        self.angle = nnx.Param(-angle if backwards else angle)
        self.readout = (
            nnx.Linear(2 * hidden, hidden, kernel_init=_GLOROT, rngs=rngs) if readout else None
        )

    def step(self, state: State, inputs: jax.Array) -> State:
        real, imaginary = state
        size = jnp.exp(-jnp.exp(self.decay[...]))
        a, b = size * jnp.cos(self.angle[...]), size * jnp.sin(self.angle[...])
        u, v = jnp.split(inputs, 2, axis=-1)
        return a * real - b * imaginary + u, b * real + a * imaginary + v

    def output_state(self, state: State) -> State:
        return state if self.readout is not None else ()

    def output(self, state: State) -> jax.Array:
        assert self.readout is not None and self.readout.bias is not None
        both = jnp.concatenate(state, axis=-1)
        return jax.nn.gelu(product(both, self.readout.kernel[...]) + self.readout.bias[...])


def keep(real: jax.Array, new: State, old: State) -> State:
    """The new state where a step is real, the old one bit for bit where it is padding."""
    return tuple(jnp.where(real, one, other) for one, other in zip(new, old, strict=True))


def recurrence(
    cell: str,
    inputs: int,
    hidden: int,
    length: int,
    *,
    positions: bool,
    rngs: nnx.Rngs,
    backwards: bool = False,
    readout: bool = True,
) -> Recurrence:
    """A layer of `cell`s: lstm, gru or lru.

    Args:
        inputs, hidden, length: sizes.
        positions: whether each step has a bias of its own.
        backwards: for a decoder that undoes what an encoder's layer has read (lru rotates back).
        readout: whether outputs are needed, not only the last state.
    """
    if cell != "lru":
        return Gated(cell, inputs, hidden, length, positions=positions, rngs=rngs)
    return LRU(
        inputs,
        hidden,
        length,
        positions=positions,
        rngs=rngs,
        backwards=backwards,
        readout=readout,
    )


CELLS = ("lstm", "gru", "lru")
