"""Evaluation of a model's own loss on a split: exact on any number of devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax import pictures
from aejax.cluster import Stopped, never
from aejax.data import feed
from aejax.data.prepare import Preparation
from aejax.data.sources.base import Source
from aejax.models.batch import Batch, real_rows
from aejax.train import sharding
from aejax.train.state import Program, TrainState, Tree

_PICTURES = 10


class Validation:
    """The loss and its terms on one split, which lies on every device."""

    def __init__(
        self,
        program: Program,
        state: TrainState,
        preparation: Preparation,
        source: Source,
        mesh: jax.sharding.Mesh,
        batch_size: int,
    ):
        """Puts the split on the devices and compiles.

        Args:
            program: the model.
            state: abstract, saying where each array lies.
            preparation: raw rows -> x.
            source: the split.
            mesh: of the devices; rows of a batch are dealt out over it.
            batch_size: rows at a time, rounded up to what the devices divide.
        """
        share = mesh.shape["data"] * mesh.shape["fsdp"]
        batch_size = -(-min(batch_size, len(source)) // share) * share
        index, mask = feed.padded(len(source), batch_size)
        over_rows = sharding.rows(mesh)
        self._data = feed.resident(source, sharding.replicated(mesh))
        self._batches = [
            (jax.device_put(i, over_rows), jax.device_put(m, over_rows))
            for i, m in zip(index, mask, strict=True)
        ]
        add = functools.partial(_add, program, preparation)
        inputs = (state.params, state.model_state, self._data, *self._batches[0])
        sums = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(add, *inputs, None)
        )
        whole = sharding.replicated(mesh)
        self._zeros = jax.device_put(sums, whole)
        jitted = jax.jit(add, out_shardings=whole)
        self._add = jitted.lower(*inputs, self._zeros).compile()
        self._reconstruct = _reconstruction(program, state, preparation, source)

    def __call__(
        self, params: Tree, model_state: Tree, stop: Callable[[], bool] = never
    ) -> dict[str, float]:
        """{"loss": mean over the split, and each of its terms}.

        Raises:
            Stopped: asked to, between two batches.
        """
        sums = self._zeros
        for index, mask in self._batches:
            if stop():
                raise Stopped
            sums = self._add(params, model_state, self._data, index, mask, sums)
        sums = jax.device_get(sums)
        rows = float(sums.pop("rows"))
        return {name: float(value) / rows for name, value in sums.items()}

    def picture(self, params: Tree, model_state: Tree) -> np.ndarray | None:
        """Test images above their reconstructions, or None where rows are no images."""
        if self._reconstruct is None:
            return None
        return pictures.pairs(*jax.device_get(self._reconstruct(params, model_state)))


def _reconstruction(program: Program, state: TrainState, preparation: Preparation, source: Source):
    """(params, model_state) -> x and its reconstruction, of the first few images, or None."""
    model = program.merge(state.params, state.model_state)
    if not pictures.is_image(source.spec.shape) or not hasattr(model, "decode"):
        return None
    raw = source[slice(0, _PICTURES)].x

    def reconstruct(params, model_state):
        model = program.merge(params, model_state)
        x = preparation(jnp.asarray(raw))
        return preparation.undo(x), preparation.undo(model.decode(model.encode(x)))

    return jax.jit(reconstruct).lower(state.params, state.model_state).compile()


def _add(program, preparation, params, model_state, data, index, mask, sums) -> dict[str, Any]:
    x = preparation(data["x"][index])
    label = data["label"][index] if "label" in data else None
    loss, terms = program.merge(params, model_state).loss(Batch(x, mask, label, index))
    count = jnp.sum(real_rows(mask))
    new = {name: value * count for name, value in {"loss": loss, **terms}.items()}
    new["rows"] = count
    return new if sums is None else jax.tree.map(jnp.add, sums, new)
