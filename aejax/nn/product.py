"""The product of many vectors with one matrix."""

import jax


def product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x @ matrix, with x's leading axes as one: [..., n] and [n, m] -> [..., m].

    With several, XLA on a CPU reorders both operands before it multiplies them for the gradient of
    the matrix, so that forward and backward together cost 1.2 to 3 times as much.
    """
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[1])
