"""What a model is given: a batch of examples and the context of a training step."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Tree = Any  # nested dictionaries of arrays


class Batch(NamedTuple):
    """Prepared examples.

    Attributes:
        x: float array [rows, *shape].
        mask: None where everything is real, else float or bool array whose shape is a prefix of
            x's: [rows] marks rows that only fill a batch, [rows, length] padding as well, and
            [rows, *shape] elements that are missing.
        label: int array [rows], or None.
        index: int array [rows], the rows' numbers in their source, or None.
    """

    x: jax.Array
    mask: jax.Array | None = None
    label: jax.Array | None = None
    index: jax.Array | None = None


class PerRow(nnx.Variable):
    """Model state with one entry a row of the global batch, such as persistent Markov chains.

    Its leading axis is cut and sharded like the batch: a model that sees half of the rows (one of
    two micro-batches, one of two devices) sees the matching half of this array. All other model
    state must be a function of parameters and of `Context.mean`, so that it is the same in every
    part of a batch.
    """


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """A module's graph definition, parameters and other state, as plain dictionaries."""
    graph, params, rows, other = nnx.split(module, nnx.Param, PerRow, ...)
    pure = nnx.to_pure_dict
    return graph, pure(params), {"rows": pure(rows), "other": pure(other)}


def real_steps(length: jax.Array, size: int) -> jax.Array:
    """True for what is real of each row's first axis: length [rows] -> bool [rows, size]."""
    return jnp.arange(size) < length[:, None]


def batch_mask(
    raw: jax.Array, length: jax.Array | None, shape: tuple[int, ...], missing: bool
) -> jax.Array | None:
    """What is real of raw rows, as a batch's mask; None where all of it is.

    Args:
        raw: as stored, [rows, *shape] or flat.
        length: [rows], how much of each row's first axis is real; None for all.
        shape: of a row.
        missing: whether elements that are NaN are missing.

    Returns:
        bool [rows, shape[0]], or where elements may be missing [rows, *shape].
    """
    steps = None if length is None else real_steps(length, shape[0])
    if not missing:
        return steps
    there = ~jnp.isnan(raw).reshape(len(raw), *shape)
    return there if steps is None else there & spread(steps, there.ndim)


def spread(mask: jax.Array, axes: int) -> jax.Array:
    """The mask with so many axes: [rows, ...] -> [rows, ..., 1, 1]."""
    return mask.reshape(mask.shape + (1,) * (axes - mask.ndim))


def row_mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over the real rows: values [rows, ...], mask as in `Batch` -> [...]."""
    if mask is None:
        return jnp.mean(values, axis=0)
    real = real_rows(mask)
    weight = real.reshape(real.shape + (1,) * (values.ndim - 1))
    return jnp.sum(weight * values, axis=0) / jnp.maximum(jnp.sum(real), 1.0)


def real_rows(mask: jax.Array) -> jax.Array:
    """1.0 for the rows with anything real in them, else 0.0: mask [rows, ...] -> [rows]."""
    return jnp.any(mask.reshape(len(mask), -1) != 0, axis=1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Context:
    """What a loss may know beside its batch and its parameters.

    Attributes:
        keys: one random key a row [rows], `fold_in(fold_in(key(seed), step), row of the global
            batch)`, so that no draw depends on devices, parallel style or micro-batches. None:
            deterministic evaluation.
        step: the number of updates made so far, int array []. None in evaluation.
        mean: values [rows, ...] -> [...], the mean over the global batch, for terms that couple
            examples. Exact, with its gradient, for any number of devices and micro-batches. Each
            use costs one more forward and backward pass where there are micro-batches.
        loss_inputs: arrays that the loss knows and that are no part of the state, such as a
            teacher's parameters (`Trainable.loss_inputs`); None where it has none.
        pmean: a statistic of the rows at hand -> its mean over the parts of the global batch
            (devices and micro-batches, all of the same number of rows), as `mean` does for values
            that are small; for sums over rows that must be reduced before they are exchanged.
    """

    keys: jax.Array | None
    step: jax.Array | None
    mean: Callable[[jax.Array], jax.Array]
    loss_inputs: Any = None
    pmean: Callable[[Any], Any] = lambda statistic: statistic

    @property
    def training(self) -> bool:
        return self.keys is not None

    def draw(self, part: str) -> jax.Array:
        """Keys [rows] of one part's own stream; different names give independent draws."""
        if self.keys is None:
            raise ValueError(f"{part}: nothing is drawn in deterministic evaluation")
        number = zlib.crc32(part.encode())
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(self.keys)


def evaluation(mask: jax.Array | None) -> Context:
    """The context of deterministic evaluation: no draws; `mean` is over the real rows at hand."""
    return Context(keys=None, step=None, mean=lambda values: row_mean(values, mask))
