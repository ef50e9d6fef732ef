"""What is done to x before the encoder sees it, in training only."""

from typing import NamedTuple

import jax


class Corrupted(NamedTuple):
    """What a corruption gives: `corruption(x, context) -> Corrupted`.

    Attributes:
        x: the noisy input [rows, *shape].
        hidden: bool array, a prefix of x's shape: positions that the encoder must not see; or None.
        weight: float array that broadcasts against x from the left: the weight of each element in
            the loss; or None for 1 everywhere.
    """

    x: jax.Array
    hidden: jax.Array | None = None
    weight: jax.Array | None = None


KINDS = {"none": None}
