"""Evaluation of a model's own loss on a split: exact on any number of devices."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from aejax import pictures
from aejax.cluster import Stopped, never
from aejax.data import feed, order
from aejax.data.feed import Raw
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Source
from aejax.mesh import ROWS, replicated, rows
from aejax.models.batch import Batch, batch_mask, evaluation, real_rows, spread
from aejax.training.state import ModelFns, TrainState, Tree

_PICTURES = 10


@dataclasses.dataclass(frozen=True)
class EvalFns:
    """The pure functions of an evaluation.

    Attributes:
        add: (params, model_state, data, raw, mask, sums) -> the sums with one more batch.
        reconstruct: (params, model_state, raw images) -> x and its reconstruction; None for a model
            without a decoder.
    """

    add: Callable
    reconstruct: Callable | None

    @classmethod
    def of(
        cls,
        program: ModelFns,
        preparation: Preparation,
        decodes: bool,
        mesh: jax.sharding.Mesh | None = None,
    ) -> Self:
        """The functions for a model whose inputs `preparation` makes from raw rows.

        With a mesh each of its devices computes the loss of its own rows; without, the compiler
        partitions.
        """
        sums = functools.partial(_sums, program, preparation)
        return cls(
            functools.partial(_add, sums if mesh is None else _by_device(sums, mesh)),
            functools.partial(_reconstructed, program, preparation) if decodes else None,
        )


class Validation:
    """The loss and its terms on one split, which is replicated on all devices or streamed."""

    def __init__(
        self,
        eval_fns: EvalFns,
        state: TrainState,
        source: Source,
        mesh: jax.sharding.Mesh,
        batch_size: int,
        streaming: bool = False,
    ):
        """Puts the split on the devices, unless it is streaming, and compiles.

        Args:
            eval_fns: the functions to compute.
            state: abstract, with the sharding of each array.
            source: the split.
            mesh: of the devices; a batch is sharded over it along its rows.
            batch_size: rows at a time, rounded up to a multiple of the devices.
            streaming: read each batch when it is needed.
        """
        share = mesh.shape["data"] * mesh.shape["fsdp"]
        batch_size = -(-min(batch_size, len(source)) // share) * share
        self._source, self._rows = source, rows(mesh)
        self._index, self._mask = order.batches(len(source), batch_size)
        whole = replicated(mesh)
        self._data = None if streaming else feed.resident(source, whole)
        batches = zip(self._index, self._mask, strict=True)
        self._sent = [] if streaming else [self._send(*batch) for batch in batches]
        inputs = (state.params, state.model_state, self._data, *self._batch(0))
        sums = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(eval_fns.add, *inputs, None),
        )
        self._zeros = jax.tree.map(lambda zero: feed.to_device(zero, whole), sums)
        jitted = jax.jit(eval_fns.add, out_shardings=whole)
        self._add = jitted.lower(*inputs, self._zeros).compile()
        self._reconstruct = None
        if eval_fns.reconstruct is not None and pictures.is_image(source.spec.shape):
            self._images = feed.to_device(source[slice(0, _PICTURES)].x, whole)
            jitted = jax.jit(eval_fns.reconstruct, out_shardings=whole)
            some = (state.params, state.model_state, self._images)
            self._reconstruct = jitted.lower(*some).compile()

    def _send(self, index: np.ndarray, real: np.ndarray) -> tuple[Raw, jax.Array]:
        """Sends a batch to the devices: mask and rows, or for a resident split their indices."""
        placed, mask = feed.to_device(index, self._rows), feed.to_device(real, self._rows)
        if self._data is not None:
            return Raw(None, None, None, placed), mask
        spec = self._source.spec
        shape = (len(index), math.prod(spec.shape))

        def read(place):
            return self._source[index[place[0]]].x.reshape(-1, shape[1])

        def numbers(name):
            def read(place):
                return np.asarray(getattr(self._source[index[place[0]]], name), np.int32)

            return jax.make_array_from_callback(index.shape, self._rows, read)

        x = jax.make_array_from_callback(shape, self._rows, read)
        beside = {name: numbers(name) for name in spec.numbers}
        return Raw(x, beside.get("label"), beside.get("length"), placed), mask

    def _batch(self, number: int) -> tuple[Raw, jax.Array]:
        if self._sent:
            return self._sent[number]
        return self._send(self._index[number], self._mask[number])

    def __call__(
        self, params: Tree, model_state: Tree, stop: Callable[[], bool] = never
    ) -> dict[str, float]:
        """{"loss": mean over the split, and each of its terms}.

        Raises:
            Stopped: asked to, between two batches.
        """
        sums = before = self._zeros
        for number in range(len(self._index)):
            if stop():
                raise Stopped
            # At most two batches are in flight. Simulated devices share a CPU's threads: with
            # dozens of queued programs, each can wait for a collective of another, for ever.
            jax.block_until_ready(before)
            before = sums
            sums = self._add(params, model_state, self._data, *self._batch(number), sums)
        sums = jax.device_get(sums)
        rows = float(sums.pop("rows"))
        return {name: float(value) / rows for name, value in sums.items()}

    def not_finite_rows(self, params: Tree, model_state: Tree, most: int = 3) -> list[int]:
        """The first rows (at most `most`) whose loss or terms are not finite, found by bisection.

        All processes of a job must call it together.
        """
        found: list[int] = []

        def search(rows: np.ndarray) -> None:
            if len(found) == most or self._finite(params, model_state, rows):
                return
            if len(rows) == 1:
                found.append(int(rows[0]))
                return
            for half in np.array_split(rows, 2):
                search(half)

        for index, mask in zip(self._index, self._mask, strict=True):
            search(index[mask > 0])
        return found

    def _finite(self, params: Tree, model_state: Tree, rows: np.ndarray) -> bool:
        """Whether loss and terms of these rows are finite; rows are repeated to fill a batch."""
        index = np.resize(rows, self._index.shape[1])
        batch = self._send(index, np.ones(len(index), np.float32))
        sums = self._add(params, model_state, self._data, *batch, self._zeros)
        return all(np.isfinite(value).all() for value in jax.tree.leaves(jax.device_get(sums)))

    def picture(self, params: Tree, model_state: Tree) -> np.ndarray | None:
        """Test images above their reconstructions, or None where rows are no images."""
        if self._reconstruct is None:
            return None
        pair = self._reconstruct(params, model_state, self._images)
        return pictures.pairs(*jax.device_get(pair))


def _add(sums_of, params, model_state, data, raw: Raw, mask, sums) -> dict[str, Any]:
    new = sums_of(params, model_state, data, raw, mask)
    return new if sums is None else jax.tree.map(jnp.add, sums, new)


def _by_device(sums_of: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """The sums over rows that each device along "data" and "fsdp" adds up for its own."""
    total = functools.partial(jax.lax.psum, axis_name=ROWS)

    def each_device(params, model_state, data, raw, mask):
        return total(sums_of(params, model_state, data, raw, mask, total))

    whole, over_rows = PartitionSpec(), PartitionSpec(ROWS)
    # With check_vma=False JAX adds no collectives to those that are written here.
    return jax.shard_map(
        each_device,
        mesh=mesh,
        in_specs=(whole, whole, whole, over_rows, over_rows),
        out_specs=whole,
        check_vma=False,
    )


def _sums(
    program: ModelFns,
    preparation: Preparation,
    params: Tree,
    model_state: Tree,
    data: Any,
    raw: Raw,
    mask: jax.Array,
    total: Callable | None = None,
) -> dict[str, jax.Array]:
    """The loss and its terms, times the number of real rows, and this number.

    `total` adds up over devices that each have a part of the rows; None where there is one part.
    """
    if data is not None:
        raw = data.gather(raw.index)
    x = preparation(raw.x)
    real = batch_mask(raw.x, raw.length, x.shape[1:], preparation.spec.missing)
    if real is not None:
        mask = spread(mask, real.ndim) * real
    count = jnp.sum(real_rows(mask))
    context = None if total is None else evaluation(mask, total)
    batch = Batch(x, mask, raw.label, raw.index)
    loss, terms = program.merge(params, model_state).loss(batch, context)
    return {name: value * count for name, value in {"loss": loss, **terms}.items()} | {
        "rows": count
    }


def _reconstructed(program, preparation, params, model_state, raw) -> tuple[jax.Array, jax.Array]:
    model = program.merge(params, model_state)
    x = preparation(raw)
    return preparation.inverse(x), preparation.inverse(model.decode(model.encode(x)))
