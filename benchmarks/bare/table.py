"""Presets of `configs/` by hand: their losses and optimizers."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.bare import convolutional, dense, recurrent
from benchmarks.bare.scan import Loss


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


def _dense(
    rate: float = 1e-3, activation: Callable = dense.identity, cosine: bool = True, **settings: Any
) -> Callable[[Rows], Model]:
    """A dense autoencoder with Adam; `settings` are those of `dense.autoencoder`."""

    def model(rows: Rows) -> Model:
        own = {"code": dense.plain(activation)} | settings
        schedule = _cosine(rate, rows) if cosine else rate
        return dense.autoencoder(prepare=rows, **own), optax.adam(schedule)

    return model


def _deep(rows: Rows) -> Model:
    loss = dense.autoencoder(dense.plain(dense.identity), rows, hidden=jax.nn.gelu)
    rate = _cosine(2e-3, rows, warmup=0.05)
    kernels = lambda params: {name: array.ndim > 1 for name, array in params.items()}  # noqa: E731
    return loss, optax.adamw(rate, weight_decay=0.1, mask=kernels)


def _convolutional(rows: Rows) -> Model:
    return convolutional.autoencoder(rows.shape, rows), optax.adam(_cosine(2e-3, rows))


def _sequence(rows: Rows) -> Model:
    adam = optax.adam(_cosine(3e-3, rows, warmup=0.05))
    return recurrent.lines(rows.shape[0], rows), optax.chain(optax.clip_by_global_norm(1.0), adam)


_constant = functools.partial(_dense, cosine=False)
_sigmoid, _squared = jax.nn.sigmoid, dense.squared_error
_k_largest = dense.largest(k=12, start=64, anneal_steps=1500)
MODELS: dict[str, Callable[[Rows], Model]] = {
    "linear": _dense(1e-2, negative_log_p=_squared),
    "dense": _constant(activation=jax.nn.relu),
    "deep": _deep,
    "table": _dense(3e-3, negative_log_p=_squared),
    "oja": _dense(3e-3, negative_log_p=_squared, hidden=jnp.tanh),
    "stacked": _dense(1e-3, hidden=_sigmoid),
    "convolutional": _convolutional,
    "sequence": _sequence,
    "denoising": _constant(activation=_sigmoid, corrupt=dense.masked),
    "contractive": _constant(activation=_sigmoid, penalty=dense.contraction),
    "sparse": _constant(activation=_sigmoid, penalty=dense.activity),
    "k_sparse": _constant(code=_k_largest, negative_log_p=_squared),
    "variational": _constant(code=dense.sampled, hidden=jnp.tanh),
}
# Draws differ from aejax's, so that what is compared is the loss without any.
RANDOM = ("denoising", "variational")
