"""The inputs of a model's loss: a batch of examples and the context of a training step."""

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
        mask: None where everything is real, else a float or bool array, 0 for what is not, whose
            shape is a prefix of x's: [rows] where whole rows fill up a batch, [rows, length] with
            padding as well, [rows, *shape] with missing elements.
        label: int array [rows], or None.
        index: int array [rows], the rows' indices in their source, or None.
    """

    x: jax.Array
    mask: jax.Array | None = None
    label: jax.Array | None = None
    index: jax.Array | None = None


class PerRow(nnx.Variable):
    """Model state with one entry for each row of the global batch, such as persistent chains.

    Its leading axis is split and sharded like the batch: a micro-batch, or a device, sees the
    entries of its own rows. All other model state must be a function of parameters and of
    `Context.mean` and `Context.pmean`, so that it is the same everywhere.
    """


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """A module's graph definition, parameters and other state, as plain dictionaries."""
    graph, params, rows, other = nnx.split(module, nnx.Param, PerRow, ...)
    pure = nnx.to_pure_dict
    return graph, pure(params), {"rows": pure(rows), "other": pure(other)}


def real_steps(length: jax.Array, size: int) -> jax.Array:
    """The mask of padded sequences: length [rows] -> bool [rows, size], False for padding."""
    return jnp.arange(size) < length[:, None]


def batch_mask(
    raw: jax.Array, length: jax.Array | None, shape: tuple[int, ...], missing: bool
) -> jax.Array | None:
    """The mask of a batch of raw rows, False for padding and missing values; None for all True.

    Args:
        raw: as stored, [rows, *shape] or flat.
        length: [rows], each row's length along its first axis, without padding; None for full rows.
        shape: of a row.
        missing: whether NaN marks missing elements.

    Returns:
        bool [rows, shape[0]], or where elements may be missing [rows, *shape].
    """
    steps = None if length is None else real_steps(length, shape[0])
    if not missing:
        return steps
    there = ~jnp.isnan(raw).reshape(len(raw), *shape)
    return there if steps is None else there & spread(steps, there.ndim)


def spread(mask: jax.Array, axes: int) -> jax.Array:
    """Appends axes of size 1, up to `axes` in all: [rows, ...] -> [rows, ..., 1, 1]."""
    return mask.reshape(mask.shape + (1,) * (axes - mask.ndim))


def row_mean(
    values: jax.Array, mask: jax.Array | None, total: Callable[[Any], Any] = lambda sums: sums
) -> jax.Array:
    """Mean over the real rows: values [rows, ...], mask as in `Batch` -> [...].

    `total` adds up sums over devices that each have a part of the rows (with a mask alone).
    """
    if mask is None:
        return jnp.mean(values, axis=0)
    real = real_rows(mask)
    weight = real.reshape(real.shape + (1,) * (values.ndim - 1))
    sums, count = total((jnp.sum(weight * values, axis=0), jnp.sum(real)))
    return sums / jnp.maximum(count, 1.0)


def real_rows(mask: jax.Array) -> jax.Array:
    """1.0 for rows with at least one real element, else 0.0: mask [rows, ...] -> [rows]."""
    return jnp.any(mask.reshape(len(mask), -1) != 0, axis=1).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Context:
    """Inputs of a loss besides its batch and its parameters.

    Attributes:
        keys: one random key a row [rows], `fold_in(fold_in(key(seed), step), row of the global
            batch)`, so that no draw depends on devices, parallel style or micro-batches. None:
            deterministic evaluation.
        step: the number of updates made so far, int array []. None in evaluation.
        mean: values [rows, ...] -> [...], the mean over the global batch, for terms that couple
            examples. Exact, with its gradient, for any number of devices and micro-batches. Each
            use costs one more forward and backward pass where there are micro-batches.
        loss_inputs: constant arrays of the loss, which are neither trained nor saved, such as a
            teacher's parameters (`Trainable.loss_inputs`); None for none.
        pmean: a statistic of this device's rows of this micro-batch -> its mean over all devices
            and micro-batches (which have equally many rows). For statistics that are reduced over
            rows first, where `mean` would have to gather an array for each row.
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
        """One key a row [rows], derived from the name: different names give independent draws."""
        if self.keys is None:
            raise ValueError(f"{part}: nothing is drawn in deterministic evaluation")
        number = zlib.crc32(part.encode())
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(self.keys)


def evaluation(mask: jax.Array | None, total: Callable[[Any], Any] = lambda sums: sums) -> Context:
    """The context of deterministic evaluation: no keys; `mean` is over the batch's real rows.

    `total` as in `row_mean`.
    """

    def mean(values: jax.Array) -> jax.Array:
        return row_mean(values, mask, total)

    def pmean(statistic: Any) -> Any:
        return jax.tree.map(lambda each: each / total(1), total(statistic))

    return Context(keys=None, step=None, mean=mean, pmean=pmean)
