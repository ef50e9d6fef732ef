"""A layout that learns, as a whole, to give what its parent gives.

Puzzle's last stage (Bercovich et al. 2024, "Puzzle: Distillation-Based NAS", section 5; Hinton et
al. 2015, "Distilling the Knowledge in a Neural Network"): the loss of a row is

    weight KL(p(x given the parent) || p(x given the layout)) - (1 - weight) log p(x) + penalties,

of the same rows with the same draws. The parameters are those of the layout's own autoencoder,
and so a run's folder is one of that autoencoder: the parent is no part of it.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx

from aejax.models import Autoencoder
from aejax.models.autoencoder import AutoencoderModule, ForwardOutput
from aejax.models.batch import Batch, Context
from aejax.models.interfaces import Trainable
from aejax.search import space as spaces
from aejax.training.step import cast


class Teacher:
    """A trained autoencoder as a function of a batch; no part of what is trained or saved.

    It sees what the layout sees, corrupted alike, but leaves nothing out of its blocks (dropout).

    Attributes:
        parameters: what it has learned, an argument of each step and not of the program.
    """

    def __init__(self, module: AutoencoderModule, compute: str = "float32"):
        whole = spaces.copied(module)
        for coder in (whole.encoder, whole.decoder):
            coder.settings = nnx.static(dataclasses.replace(coder.settings, dropout=0.0))
        graph, state = nnx.split(whole)
        self._graph = graph
        self.parameters = jax.tree.map(
            lambda leaf: np.asarray(cast(leaf, compute)), nnx.to_pure_dict(state)
        )

    def __call__(self, parameters: Any, batch: Batch, context: Context) -> ForwardOutput:
        """What it gives, without a gradient."""
        module: Any = nnx.merge(self._graph, parameters)
        return jax.lax.stop_gradient(module.forward(batch, context))


@dataclasses.dataclass
class Distilled(Trainable):
    """What trains in place of an autoencoder (`objective` of aejax.training.setup.setup).

    Attributes:
        model: the layout's autoencoder.
        teacher: the parent, with the same likelihood and bottleneck.
        weight: of the divergence from the parent, from 0 to 1.
    """

    model: Autoencoder
    teacher: Teacher
    weight: float

    @property
    def loss_inputs(self) -> Any:  # pyright: ignore - of its teacher
        """The teacher's parameters."""
        return self.teacher.parameters

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "DistilledModule":
        return DistilledModule(self, batch, rngs)


class DistilledModule(AutoencoderModule):
    """The autoencoder with a parent to learn from; evaluated it is what it is without."""

    def __init__(self, distilled: Distilled, batch: Batch, rngs: nnx.Rngs):
        super().__init__(distilled.model, batch.x.shape[1:], rngs)
        self.teacher = nnx.static(distilled.teacher)
        self.weight = nnx.static(distilled.weight)

    def loss(self, batch: Batch, context: Context | None = None):
        if context is None or not context.training:
            return super().loss(batch, context)
        output = self.forward(batch, context)
        loss, terms = self.objective(batch, context, output)
        away = self.divergence(batch, self.teacher(context.loss_inputs, batch, context), output)
        return loss + self.weight * (away - terms["nll"]), {**terms, "divergence": away}
