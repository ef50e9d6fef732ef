"""What every bottleneck gives: `bottleneck(features, context) -> Code`."""

from typing import NamedTuple

import jax


class Code(NamedTuple):
    """A code of a batch.

    Attributes:
        z: [samples, rows, ...], what the decoder is given; a deterministic code is one sample.
        log_weight: [samples, rows] in nats, added to log p(x given z) inside the mean over samples
            (-beta KL for a variational code), or None for 0.
        penalties: named terms added to the loss, each [rows] or [].
    """

    z: jax.Array
    log_weight: jax.Array | None = None
    penalties: dict[str, jax.Array] = {}  # noqa: RUF012 - never changed
