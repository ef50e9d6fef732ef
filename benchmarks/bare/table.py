"""Each preset of `configs/` by hand: its loss and its optimizer."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.bare import convolutional, dense, recurrent, transformer
from benchmarks.bare.scan import Loss, Params


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a hand-written model knows of its data.

    Attributes:
        shape: of a row.
        maximum: the largest value as stored.
        mean: of each element after scaling, for the presets that take it away.
        deviation: of each element, for those that divide by it.
        total: steps of the whole run, for the schedules.
    """

    shape: tuple[int, ...]
    maximum: float
    mean: np.ndarray | None
    deviation: np.ndarray | None
    total: int

    def __call__(self, rows: jax.Array) -> jax.Array:
        """Rows as stored -> x [rows, elements], float32."""
        x = rows.astype(jnp.float32) * np.float32(1 / self.maximum)
        x = x if self.mean is None else x - self.mean
        return x if self.deviation is None else x / self.deviation


Model = tuple[Loss, optax.GradientTransformation]


def _cosine(peak: float, rows: Rows, warmup: float = 0.0) -> optax.Schedule:
    if not warmup:
        return optax.cosine_decay_schedule(peak, rows.total)
    return optax.warmup_cosine_decay_schedule(0.0, peak, round(warmup * rows.total), rows.total)


def _linear(rows: Rows) -> Model:
    code = dense.plain(dense.identity)
    loss = dense.autoencoder(code, rows, dense.squared_error)
    return loss, optax.adam(_cosine(1e-2, rows))


def _dense(rows: Rows) -> Model:
    return dense.autoencoder(dense.plain(jax.nn.relu), rows), optax.adam(1e-3)


def _deep(rows: Rows) -> Model:
    loss = dense.autoencoder(dense.plain(dense.identity), rows, hidden=jax.nn.gelu)
    rate = _cosine(2e-3, rows, warmup=0.05)
    return loss, optax.adamw(rate, weight_decay=0.1, mask=_kernels)


def _kernels(params: Params) -> dict[str, bool]:
    return {name: array.ndim > 1 for name, array in params.items()}


def _table(rows: Rows) -> Model:
    loss = dense.autoencoder(dense.plain(dense.identity), rows, dense.squared_error)
    return loss, optax.adam(_cosine(3e-3, rows))


def _oja(rows: Rows) -> Model:
    code = dense.plain(dense.identity)
    loss = dense.autoencoder(code, rows, dense.squared_error, hidden=jnp.tanh)
    return loss, optax.adam(_cosine(3e-3, rows))


def _stacked(rows: Rows) -> Model:
    loss = dense.autoencoder(dense.plain(dense.identity), rows, hidden=jax.nn.sigmoid)
    return loss, optax.adam(_cosine(1e-3, rows))


def _denoising(rows: Rows) -> Model:
    code = dense.plain(jax.nn.sigmoid)
    return dense.autoencoder(code, rows, corrupt=dense.masked), optax.adam(1e-3)


def _contractive(rows: Rows) -> Model:
    code = dense.plain(jax.nn.sigmoid)
    return dense.autoencoder(code, rows, penalty=dense.contraction), optax.adam(1e-3)


def _sparse(rows: Rows) -> Model:
    code = dense.plain(jax.nn.sigmoid)
    return dense.autoencoder(code, rows, penalty=dense.activity), optax.adam(1e-3)


def _k_sparse(rows: Rows) -> Model:
    code = dense.largest(k=12, start=64, anneal_steps=1500)
    return dense.autoencoder(code, rows, dense.squared_error), optax.adam(1e-3)


def _variational(rows: Rows) -> Model:
    return dense.autoencoder(dense.sampled, rows, hidden=jnp.tanh), optax.adam(1e-3)


def _convolutional(rows: Rows) -> Model:
    return convolutional.autoencoder(rows.shape, rows), optax.adam(_cosine(2e-3, rows))


def _clipped(peak: float, rows: Rows) -> optax.GradientTransformation:
    adam = optax.adam(_cosine(peak, rows, warmup=0.05))
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def _sequence(rows: Rows) -> Model:
    return recurrent.lines(rows.shape[0], rows), _clipped(3e-3, rows)


def _sequence_text(rows: Rows) -> Model:
    return recurrent.text(symbols=256), _clipped(2e-3, rows)


def _transformer(rows: Rows) -> Model:
    loss = transformer.autoencoder(rows.shape, 2, 4, rows)
    return loss, optax.adam(_cosine(1e-3, rows, warmup=0.05))


MODELS: dict[str, Callable[[Rows], Model]] = {
    "linear": _linear,
    "dense": _dense,
    "deep": _deep,
    "table": _table,
    "oja": _oja,
    "stacked": _stacked,
    "convolutional": _convolutional,
    "sequence": _sequence,
    "sequence_text": _sequence_text,
    "denoising": _denoising,
    "contractive": _contractive,
    "sparse": _sparse,
    "k_sparse": _k_sparse,
    "variational": _variational,
    "transformer": _transformer,
}
# Draws differ from aejax's, so that what is compared is the loss without any.
RANDOM = ("denoising", "variational")
