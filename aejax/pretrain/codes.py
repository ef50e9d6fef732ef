"""A source whose rows are a model's codes of another source's rows."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from aejax.data.fingerprint import combined, fingerprint
from aejax.data.sources.base import Rows, Source, Spec
from aejax.pretrain.layers import in_interval
from aejax.runs.loading import Model


@dataclasses.dataclass(frozen=True)
class Codes:
    """Rows [rows, *code], float32, which a frozen model computes when they are read.

    A resident feed therefore encodes each split once, a streaming one in each epoch. Each process
    encodes the rows that it reads, on its own devices.

    Attributes:
        source: raw rows.
        model: a stage's model, made `local` to this process.
    """

    source: Source
    model: Model

    @property
    def spec(self) -> Spec:
        shape, spec = self.model.code_shape, self.source.spec
        maximum = 1.0 if in_interval(self.model.run.config.model) else None
        return Spec(shape, "float32", maximum, spec.labelled, classes=spec.classes)

    def __len__(self) -> int:
        return len(self.source)

    def fingerprint(self) -> str:
        """A digest of raw rows and encoder: the codes' last bits differ between devices."""
        leaves = jax.tree.leaves(nnx.state(self.model.module))
        return combined(fingerprint(self.source), *map(np.asarray, leaves))

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        rows = self.source[index]
        return Rows(self.model.encode(rows.x, rows.length), rows.label)


def local(model: Model) -> Model:
    """The model with its parameters in this process's memory, not on all devices."""
    graph, state = nnx.split(model.module)
    state = jax.tree.map(np.asarray, state)
    return dataclasses.replace(model, module=nnx.merge(graph, state))
