"""A recurrent layer: gates, a scan over time, and padding that leaves its state as it is.

LSTM (Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 2000), s the sigmoid,

    i, f, o = s(W x + U h + b) of their rows,   g = tanh(W x + U h + b) of its own,
    c' = f c + i g,   h' = o tanh(c')

and GRU (Cho et al. 2014), whose reset gate comes after the product, so that one matrix serves all,

    r, u = s(W x + U h + b) of their rows,   n = tanh(W x + b + r U h) of its own,
    h' = u h + (1 - u) n.

W x does not wait for h: it is one product for all steps, before the scan.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from aejax.nn.product import product

# What a cell carries from step to step, each [rows, hidden]; what is seen of it, h, is the last.
State = tuple[jax.Array, ...]


def lstm(state: State, inputs: jax.Array, before: jax.Array) -> State:
    """(c, h) after one step: inputs = W x + b and before = U h, [rows, 4 hidden]."""
    i, f, o, g = jnp.split(inputs + before, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[0] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def gru(state: State, inputs: jax.Array, before: jax.Array) -> State:
    """(h,) after one step: inputs = W x + b and before = U h, [rows, 3 hidden]."""
    (h,) = state
    size = h.shape[-1]
    r, u = jnp.split(jax.nn.sigmoid(inputs[:, : 2 * size] + before[:, : 2 * size]), 2, axis=-1)
    n = jnp.tanh(inputs[:, 2 * size :] + r * before[:, 2 * size :])
    return (n + u * (h - n),)


# {name: (one step, matrices, arrays in the state)}
CELLS = {"lstm": (lstm, 4, 2), "gru": (gru, 3, 1)}


class Recurrence(nnx.Module):
    """A layer of one kind of cell, for sequences of one length.

    Attributes:
        kernel: W, [inputs, matrices * hidden].
        recurrent: U, [hidden, matrices * hidden].
        bias: b, [matrices * hidden], or with `positions` one for each step, [length, ...].
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
        self.cell, self.hidden = cell, hidden
        matrices = CELLS[cell][1]
        glorot, orthogonal = nnx.initializers.glorot_uniform(), nnx.initializers.orthogonal()
        self.kernel = nnx.Param(
            jnp.concatenate(
                [glorot(rngs.params(), (inputs, hidden)) for _ in range(matrices)], axis=1
            )
        )
        self.recurrent = nnx.Param(
            jnp.concatenate(
                [orthogonal(rngs.params(), (hidden, hidden)) for _ in range(matrices)], axis=1
            )
        )
        bias = _memory(cell, hidden, length, rngs)
        self.bias = nnx.Param(jnp.tile(bias, (length, 1)) if positions else bias)

    def inputs(self, x: jax.Array) -> jax.Array:
        """W x + b of all steps: x [length, rows, inputs] -> [length, rows, matrices * hidden]."""
        bias = self.bias[...]
        return product(x, self.kernel[...]) + (bias[:, None] if bias.ndim == 2 else bias)

    def start(self, rows: int, dtype: jax.typing.DTypeLike) -> State:
        """The state before the first step: 0."""
        return (jnp.zeros((rows, self.hidden), dtype),) * CELLS[self.cell][2]

    def step(self, state: State, inputs: jax.Array) -> State:
        """The state after one step, from W x + b [rows, matrices * hidden]."""
        return CELLS[self.cell][0](state, inputs, state[-1] @ self.recurrent[...])

    def __call__(
        self, inputs: jax.Array, state: State, real: jax.Array | None = None, reverse: bool = False
    ) -> tuple[State, jax.Array]:
        """Runs over all steps.

        Args:
            inputs: W x + b, [length, rows, matrices * hidden].
            state: before the first step.
            real: bool [length, rows, 1]: what is False is padding, and leaves the state as it is.
            reverse: from the last step to the first.

        Returns:
            The state after all steps, and h after each, [length, rows, hidden].
        """

        def each(state: State, now):
            inputs, real = now
            new = self.step(state, inputs)
            if real is not None:
                new = keep(real, new, state)
            return new, new[-1]

        return jax.lax.scan(each, state, (inputs, real), reverse=reverse)


def keep(real: jax.Array, new: State, old: State) -> State:
    """The new state where a step is real, the old one bit for bit where it is padding."""
    return tuple(jnp.where(real, one, other) for one, other in zip(new, old, strict=True))


def _memory(cell: str, hidden: int, length: int, rngs: nnx.Rngs) -> jax.Array:
    """Biases with which units remember for 1 to `length` steps (Tallec and Ollivier 2018).

    A gate of sigmoid(log n) keeps what it holds for about n steps; n is even over 1 .. length - 1.
    """
    steps = jax.random.uniform(rngs.params(), (hidden,), minval=1.0, maxval=max(length - 1.0, 1.0))
    gate, zero = jnp.log(steps), jnp.zeros(hidden)
    return jnp.concatenate([-gate, gate, zero, zero] if cell == "lstm" else [zero, gate, zero])
