"""Recurrent layers: a scan over time, and padding that leaves the state as it is, bit for bit.

LSTM (Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 2000), s the sigmoid,

    i, f, o = s(W x + U h + b) of their rows,   g = tanh(W x + U h + b) of its own,
    c' = f c + i g,   h' = o tanh(c')

GRU (Cho et al. 2014), whose reset gate comes after the product, so that one matrix serves all,

    r, u = s(W x + U h + b) of their rows,   n = tanh(W x + b + r U h) of its own,
    h' = u h + (1 - u) n

LRU, the linear recurrent unit (Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for
Long Sequences"), whose units are complex and turn by an angle of their own at each step,

    h' = exp(-exp(decay) + i angle) h + W x + b,   y = gelu(V [Re h, Im h] + a)

W x, and V h, do not wait for a step: each is one product for all of them, outside the scan.
"""

import abc
import math

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.nn.product import product

# What is carried from step to step, each [rows, hidden].
State = tuple[jax.Array, ...]

_GLOROT = nnx.initializers.glorot_uniform()
# Up to so many steps are written out. A training step of the preset `sequence`, which has 8, takes
# 0.7 of the time that a loop takes; with 28 it takes longer, and half a minute to compile.
_WRITTEN_OUT = 8


class Recurrence(nnx.Module):
    """A layer for sequences of one length; what all kinds have in common.

    Attributes:
        kernel: W, [inputs, matrices * hidden].
        bias: b, [matrices * hidden], or with `positions` one for each step, [length, ...].
        arrays: in the state.
        size: how many numbers the layer gives at each step.
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
    def shown(self, state: State) -> State:
        """The part of a state that `output` is a function of."""

    @abc.abstractmethod
    def output(self, shown: State) -> jax.Array:
        """What the layer gives, [..., size]: of one step or of all."""

    def __call__(
        self, inputs: jax.Array, state: State, real: jax.Array | None = None, reverse: bool = False
    ) -> tuple[State, State]:
        """Runs over all steps.

        Args:
            inputs: W x + b, [length, rows, matrices * hidden].
            state: before the first step.
            real: bool [length, rows, 1]: what is False is padding, and leaves the state as it is.
            reverse: from the last step to the first.

        Returns:
            The state after all steps, and what is shown after each, [length, rows, hidden].
        """

        def each(state: State, now):
            inputs, real = now
            new = self.step(state, inputs)
            if real is not None:
                new = keep(real, new, state)
            return new, self.shown(new)

        unroll = len(inputs) if len(inputs) <= _WRITTEN_OUT else 1
        return jax.lax.scan(each, state, (inputs, real), reverse=reverse, unroll=unroll)


class Gated(Recurrence):
    """LSTM or GRU, as above; h is shown. A state is (c, h), or (h,).

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

    def shown(self, state: State) -> State:
        return state[-1:]

    def output(self, shown: State) -> jax.Array:
        return shown[0]


def _side_by_side(
    initial: nnx.Initializer, count: int, shape: tuple[int, int], rngs: nnx.Rngs
) -> jax.Array:
    """`count` matrices, each initialised as one of its own: [n, count * m]."""
    keys = jax.random.split(rngs.params(), count)
    each = jax.vmap(lambda key: initial(key, shape))(keys)
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

    A gate of sigmoid(log n) keeps what it holds for about n steps; n is even over 1 .. length - 1.
    """
    steps = jax.random.uniform(rngs.params(), (hidden,), minval=1.0, maxval=max(length - 1.0, 1.0))
    gate, zero = jnp.log(steps), jnp.zeros(hidden)
    return jnp.concatenate([-gate, gate, zero, zero] if cell == "lstm" else [zero, gate, zero])


class Linear(Recurrence):
    """LRU, as above. A state is (Re h, Im h), both are shown, and y has `hidden` numbers.

    At first the angles are even over half a circle and nearly nothing is forgotten, so that the
    state is the spectrum of the sequence, from which each step can be had again.

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
        """`backwards`: turn the other way; `readout`: whether outputs are wanted."""
        self.hidden, self.size, self.arrays = hidden, hidden, 2
        # Instead of the paper's normalisation: a state is a sum over all steps.
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

    def shown(self, state: State) -> State:
        return state if self.readout is not None else ()

    def output(self, shown: State) -> jax.Array:
        assert self.readout is not None and self.readout.bias is not None
        both = jnp.concatenate(shown, axis=-1)
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
        positions: a bias for each step.
        backwards: it is to give back what another layer has read.
        readout: whether its outputs are wanted, and not its last state alone.
    """
    if cell != "lru":
        return Gated(cell, inputs, hidden, length, positions=positions, rngs=rngs)
    return Linear(
        inputs,
        hidden,
        length,
        positions=positions,
        rngs=rngs,
        backwards=backwards,
        readout=readout,
    )


CELLS = ("lstm", "gru", "lru")
