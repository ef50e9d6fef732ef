"""Candidate blocks that learn, each by itself, to do what the parent's block does in their slot.

Puzzle's library (Bercovich et al. 2024, "Puzzle: Distillation-Based NAS", section 3): every block
gets the parent's own activations, whatever the others do, so that all slots learn at once and any
layout can then be put together from them. The loss of a block b in a slot whose parent's block is p
is |b(x) - p(x)|^2 / |p(x)|^2; the parent's own parameters stay as they are.

A layout that learns, as a whole, to give what its parent gives.

Puzzle's last stage (Bercovich et al. 2024, "Puzzle: Distillation-Based NAS", section 5; Hinton et
al. 2015, "Distilling the Knowledge in a Neural Network"): the loss of a row is

    weight KL(p(x given the parent) || p(x given the layout)) - (1 - weight) log p(x) + penalties,

of the same rows with the same draws. The parameters are those of the layout's own autoencoder,
and so a run's folder is one of that autoencoder: the parent is no part of it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aejax.models import Autoencoder
from aejax.models.autoencoder import AutoencoderModule, ForwardOutput
from aejax.models.batch import Batch, Context
from aejax.models.interfaces import Trainable
from aejax.search import space as spaces
from aejax.search.space import Layout, Space
from aejax.training.step import cast


@dataclasses.dataclass
class Imitation(Trainable):
    """What trains as a library of blocks.

    Attributes:
        model: the autoencoder, with any layout.
        space: the candidates of its slots.
        parent: the layout that is imitated.
    """

    model: Autoencoder
    space: Space
    parent: Layout

    def check(self, interval: bool) -> None:
        self.model.check(interval)

    @property
    def symbols(self) -> int:  # pyright: ignore - of its model
        return self.model.symbols

    @property
    def sharding_rules(self) -> tuple[str, ...]:  # pyright: ignore - of its model
        return self.model.sharding_rules

    def init(self, rngs: nnx.Rngs, batch: Batch) -> "ImitationModule":
        return ImitationModule(self, batch, rngs)


class ImitationModule(nnx.Module):
    """All candidates in their slots; `model` mixes them as any other module of a space does."""

    def __init__(self, settings: Imitation, batch: Batch, rngs: nnx.Rngs):
        self.settings = nnx.static(settings)
        self.model = settings.space.model(settings.model).init(rngs, batch)

    def loss(self, batch: Batch, context: Context | None = None):
        """The sum of all candidates' errors; the terms also report the parent's own loss."""
        slots, parent = self._run(batch, context)
        error = jnp.stack([jnp.sum(slot.error[...]) for slot in slots])
        # The parent's loss is only reported: without stop_gradient it would still train the layers
        # before and after the blocks.
        terms = {"nll": jax.lax.stop_gradient(parent), "error": jnp.mean(error)}
        return jnp.sum(error), terms

    def similarities(self, batch: Batch) -> jax.Array:
        """Of each searched slot: mean cosine between its input and its output in the parent.

        He et al. 2024, "What Matters in Transformers? Not All Attention is Needed": blocks whose
        output is most like their input are those to drop.
        """
        return jnp.stack([slot.similarity[...] for slot in self._run(batch, None)[0]])

    def _run(self, batch: Batch, context: Context | None) -> tuple[list, jax.Array]:
        """The searched slots after the parent has run through them, and the parent's loss."""
        copy = spaces.copied(self.model)
        slots = spaces.choice_slots(copy)
        own = self.settings.space.choices(self.settings.parent)
        for slot, choice in zip(slots, own, strict=True):
            slot.imitating = choice
        return slots, copy.loss(batch, context)[0]


def grafted(parameters: dict[str, np.ndarray], space: Space, layout: Layout) -> dict:
    """Parameters of an autoencoder of this layout, by name, out of those with all candidates.

    Args:
        parameters: of a supernet or of a library.
        space: its candidates.
        layout: one of the space's.
    """
    return {
        new: array
        for name, array in parameters.items()
        if (new := _renamed(name, space, layout)) is not None
    }


def insert_params(parameters: dict[str, np.ndarray], space: Space, layout: Layout) -> dict:
    """The other way round: parameters of a whole with all candidates, as far as a layout has them.

    Args:
        parameters: of an autoencoder of this layout, by name.
        space: the candidates of the whole.
        layout: one of the space's.
    """
    out = {}
    for name, array in parameters.items():
        stack, _, rest = name.partition("/stack/slots/")
        number, _, inner = rest.partition("/")
        if rest and len(letters := getattr(space, stack)[int(number)]) > 1:
            choice = letters.index(getattr(layout, stack)[int(number)])
            name = f"{stack}/stack/slots/{number}/candidates/{choice}/{inner}"
        out[f"model/{name}"] = array
    return out


def _renamed(name: str, space: Space, layout: Layout) -> str | None:
    """What a parameter of a whole with all candidates is called in a layout; None if not in it."""
    if not name.startswith("model/"):
        return None
    name = name.removeprefix("model/")
    slot, _, rest = name.partition("/candidates/")
    if not rest:
        return name
    stack, _, number = slot.partition("/stack/slots/")
    candidate, _, inner = rest.partition("/")
    letters = getattr(space, stack)[int(number)]
    if letters[int(candidate)] != getattr(layout, stack)[int(number)]:
        return None
    return f"{slot}/{inner}"


class Teacher:
    """A trained autoencoder as a function of a batch; no part of what is trained or saved.

    It sees what the layout sees, with the same corruption, but without dropout.

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
