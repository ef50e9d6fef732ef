"""The state of a run: plain dictionaries of arrays, and how it is made."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from aejax import optimizer as optimizers
from aejax.models.batch import Batch, split
from aejax.models.interfaces import Trainable, Update
from aejax.optimizer import Optimizer

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """Sums over the steps since the last log row; they are part of a checkpoint.

    Attributes:
        steps: int32 [].
        sums: {term: float32 []}.
        learning_rate: of the last step, float32 [].
    """

    steps: jax.Array
    sums: dict[str, jax.Array]
    learning_rate: jax.Array

    def pack(self) -> jax.Array:
        """Its numbers as one array, so that the host fetches one, int32 [2 + terms].

        Floating-point numbers keep their bits: small integers, seen as floating-point numbers, are
        subnormal, which a device may set to zero.
        """
        sums = [self.sums[name] for name in sorted(self.sums)]
        numbers = jax.lax.bitcast_convert_type(jnp.stack([self.learning_rate, *sums]), jnp.int32)
        return jnp.concatenate([self.steps[None], numbers])

    def unpack(self, packed: np.ndarray) -> "Window":
        """The window that was packed, of NumPy numbers; `self` tells the names."""
        rate, *sums = packed[1:].view(np.float32)
        return Window(packed[0], dict(zip(sorted(self.sums), sums, strict=True)), rate)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
        step: updates made so far, int32 [].
        params: the parameters, nested dictionaries.
        ema: their exponential moving average, or {} where there is none.
        model_state: the model's other variables: {"rows": those of `PerRow`, "other": the rest}.
        opt_state: optax's state.
        window: sums over the steps since the last log row.
    """

    step: jax.Array
    params: Tree
    ema: Tree
    model_state: Tree
    opt_state: Tree
    window: Window


@dataclasses.dataclass(frozen=True)
class ModelFns:
    """A model and an optimizer as pure functions.

    Attributes:
        graph: the module's graph definition, closed over by every step.
        optimizer: optax's transformation.
        learning_rate: step -> rate.
        init: key -> TrainState; pure, to be jitted with the state's shardings.
        after_update: the model's hook after each update.
        abstract: TrainState of jax.ShapeDtypeStruct.
    """

    graph: nnx.GraphDef
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    init: Callable[[jax.Array], TrainState]
    after_update: Callable[[Update], Update]
    abstract: TrainState

    def merge(self, params: Tree, model_state: Tree) -> Any:
        """The live module with these parameters."""
        return nnx.merge(self.graph, params, model_state["rows"], model_state["other"])


def program(
    settings: Trainable,
    batch: Batch,
    optimizer: Optimizer,
    steps: int,
    terms: Callable[[nnx.GraphDef, Tree, Tree], list[str]],
) -> ModelFns:
    """Builds the pure functions of a model.

    Args:
        settings: of the model.
        batch: abstract arrays of one global batch.
        optimizer: its settings.
        steps: of the whole run, which schedules depend on.
        terms: (graph, params, model_state), all abstract -> names of the loss and its terms.
    """
    transformation = optimizers.build(optimizer, steps)
    rate = optimizers.learning_rate(optimizer, steps)

    def parts(key):
        return split(settings.init(nnx.Rngs(key), batch))

    module = nnx.eval_shape(lambda: settings.init(nnx.Rngs(0), batch))
    graph, params, model_state = split(module)
    names = terms(graph, params, model_state)

    def init(key: jax.Array) -> TrainState:
        _, params, model_state = parts(key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params) if optimizer.ema else {},
            model_state=model_state,
            opt_state=transformation.init(params),
            window=Window(
                steps=jnp.zeros((), jnp.int32),
                sums={name: jnp.zeros((), jnp.float32) for name in names},
                learning_rate=jnp.zeros((), jnp.float32),
            ),
        )

    abstract = jax.eval_shape(init, jax.random.key(0))
    return ModelFns(graph, transformation, rate, init, settings.after_update, abstract)
