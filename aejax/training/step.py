"""One update, as a pure function.

The gradient is that of the loss over the global batch, also with micro-batches, which are computed
one after the other, and with losses that couple examples through `Context.mean`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import PartitionSpec

from aejax.data.deform import stream_keys
from aejax.data.feed import Raw, ResidentRows
from aejax.errors import InputError
from aejax.mesh import ROWS as ROW_AXES
from aejax.models.batch import Batch, Context, batch_mask, split
from aejax.models.interfaces import Update
from aejax.training import sharding
from aejax.training.state import ModelFns, TrainState, Tree

# (params, model_state, micro_batch, means) -> loss, (terms, model_state, local means). `means` are
# the values that Context.mean returns, call by call; None: those of the micro-batch itself.
Average = Callable[[Tree], Tree]
Forward = Callable[
    [Tree, Tree, "MicroBatch", list | None], tuple[jax.Array, tuple[dict, Tree, list]]
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """A part of a global batch.

    Attributes:
        raw: its raw rows.
        keys: a key a row [rows], another in each step.
        step: the number of updates made so far, [].
        stream_keys: a key a row [rows], of its number in the split and the epoch alone
            (`data.deform.stream_keys`); None where preparation asks for none.
    """

    raw: Raw
    keys: jax.Array
    step: jax.Array
    stream_keys: jax.Array | None = None


# (micro-batch, context) -> x [rows, ...].
PrepareFn = Callable[[MicroBatch, Context], jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Constants:
    """Inputs of every step that no step changes.

    Attributes:
        rows: the rows of a resident split; None for a streaming feed.
        key: key data of the run's seed. It is an argument, so that seeds share a compiled program.
        loss_inputs: arrays for `Context.loss_inputs`, or None.
    """

    rows: ResidentRows | None
    key: jax.Array
    loss_inputs: Tree = None


def _same(tree: Tree) -> Tree:
    return tree


def forward(
    graph: nnx.GraphDef,
    prepare: PrepareFn,
    average: Average = _same,
    compute: str = "float32",
    loss_inputs: Tree | None = None,
    missing: bool = False,
) -> Forward:
    """The loss of a module as a pure function of raw rows, which `prepare` turns into x.

    `average` averages over devices that each hold a part of the rows. Parameters are cast to
    `compute` for the forward pass; their gradients have the parameters' own type. `loss_inputs`
    goes into the loss's context. With `missing`, NaN marks missing raw elements.
    """

    def run(params, model_state, micro_batch, means):
        local = []

        def pmean(statistic: jax.Array) -> jax.Array:
            local.append(average(statistic))
            return local[-1] if means is None else means[len(local) - 1]

        def mean(values: jax.Array) -> jax.Array:
            return pmean(jnp.mean(values, axis=0))

        context = Context(micro_batch.keys, micro_batch.step, mean, loss_inputs, pmean)
        x, raw = prepare(micro_batch, context), micro_batch.raw
        mask = batch_mask(raw.x, raw.length, x.shape[1:], missing)
        batch = Batch(x, mask, raw.label, raw.index)
        used = jax.tree.map(lambda leaf: cast(leaf, compute), params)
        module = nnx.merge(graph, used, model_state["rows"], model_state["other"])
        loss, terms = module.loss(batch, context)
        # Sums over micro-batches and steps are of numbers, whatever type a term has.
        terms = {name: jnp.asarray(term, jnp.float32) for name, term in terms.items()}
        return loss, (terms, split(module)[2], local)

    return run


def cast(leaf: jax.Array, dtype: str) -> jax.Array:
    """Casts floating-point arrays to a type; integers stay as they are."""
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def row_keys(key: jax.Array, step: jax.Array, rows: jax.Array) -> jax.Array:
    """fold_in(fold_in(key, step), row) for each row of the global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), rows)


def gradient(
    run: Forward,
    params: Tree,
    model_state: Tree,
    micro_batches: MicroBatch,
    count: int,
    average: Average = _same,
) -> tuple[Tree, jax.Array, dict, Tree]:
    """The gradient of the mean loss over the micro-batches.

    Args:
        run: the pure loss.
        params: parameters.
        model_state: its "rows" have the leading axes [micro-batches, rows of each].
        micro_batches: every leaf has the leading axis [micro-batches].
        count: how many micro-batches.
        average: over devices that each see other rows; the identity where one program sees all.

    Returns:
        gradient, loss [], terms, model_state (as it came).
    """
    if count == 1:
        first = jax.tree.map(lambda leaf: leaf[0], (model_state["rows"], micro_batches))
        state = {**model_state, "rows": first[0]}
        (loss, (terms, state, _)), grads = jax.value_and_grad(run, has_aux=True)(
            params, state, first[1], None
        )
        rows = jax.tree.map(lambda leaf: leaf[None], state["rows"])
        return *average((grads, loss, terms)), {**state, "rows": rows}

    inputs = (model_state["rows"], micro_batches)

    def over_micro_batches(function):
        """Averages the results of `function` over micro-batches, and stacks their model states."""

        def each(inputs):
            rows, micro_batch = inputs
            return function({**model_state, "rows": rows}, micro_batch)

        def body(sums, inputs):
            values, state = each(inputs)
            return jax.tree.map(jnp.add, sums, values), state

        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
        values = jax.eval_shape(lambda inputs: each(inputs)[0], one)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), values)
        sums, states = jax.lax.scan(body, zeros, inputs)
        return jax.tree.map(lambda leaf: leaf / count, sums), states

    means = _global_means(run, params, over_micro_batches, model_state, micro_batches)
    value_and_gradient = jax.value_and_grad(run, argnums=(0, 3), has_aux=True)

    def backward(state, micro_batch):
        (loss, (terms, state, _)), grads = value_and_gradient(params, state, micro_batch, means)
        return (loss, terms, grads), state

    (loss, terms, (grads, to_means)), states = over_micro_batches(backward)
    to_means = average(to_means)
    # Each mean depends on the parameters and on the means before it: the chain rule, last to first.
    for k in reversed(range(len(means))):
        cotangent = to_means[k]

        def to_mean(state, micro_batch, k=k, cotangent=cotangent):
            local = lambda p, m: run(p, state, micro_batch, m)[1][2][k]  # noqa: E731
            return jax.vjp(local, params, means)[1](cotangent), None

        (more, earlier), _ = over_micro_batches(to_mean)
        grads = jax.tree.map(jnp.add, grads, more)
        to_means = jax.tree.map(jnp.add, to_means, earlier)
    other = jax.tree.map(lambda leaf: leaf[-1], states["other"])
    return *average((grads, loss, terms)), {"rows": states["rows"], "other": other}


def _global_means(run, params, over_micro_batches, model_state, micro_batches) -> list:
    """The results of the calls of `Context.mean`, each by one pass over all micro-batches."""
    first = jax.tree.map(lambda leaf: leaf[0], (model_state["rows"], micro_batches))
    state = {**model_state, "rows": first[0]}
    shapes = jax.eval_shape(lambda: run(params, state, first[1], None)[1][2])
    means = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    for k in range(len(means)):
        known = list(means)
        means[k], _ = over_micro_batches(
            lambda s, p, k=k, m=known: (run(params, s, p, m)[1][2][k], None)
        )
    return means


@dataclasses.dataclass(frozen=True)
class Step:
    """One update.

    Attributes:
        program: the model and its optimizer.
        gather: (resident rows, block, offset) -> Raw [micro-batches, rows, ...].
        prepare: (micro-batch, context) -> x [rows, ...].
        shape: (micro-batches, rows of each).
        ema: decay of the average of the parameters, 0 for none.
        compute: type that the model computes in; parameters and moments stay float32.
        missing: whether raw elements that are NaN are missing.
        mesh: where each device along "data" and "fsdp" computes the gradient of its own rows
            ("pmap", and coders with `gradient_by_device`); None where the compiler partitions.
        shardings: of the state; None to leave them to the compiler.
        stream: rows of the training split, where `prepare` needs `MicroBatch.stream_keys`; else 0.
    """

    program: ModelFns
    gather: Callable[[Any, Any, jax.Array], Raw]
    prepare: PrepareFn
    shape: tuple[int, int]
    ema: float
    compute: str = "float32"
    missing: bool = False
    mesh: jax.sharding.Mesh | None = None
    shardings: TrainState | None = None
    stream: int = 0

    def __call__(
        self, state: TrainState, constants: Constants, block: Any, offset: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Makes one update with the rows `offset` steps into the block.

        Returns:
            state, whose window is as it was; the loss and its terms.
        """
        rows = jnp.arange(self.shape[0] * self.shape[1], dtype=jnp.uint32)
        key = jax.random.wrap_key_data(constants.key)
        keys = row_keys(key, state.step, rows).reshape(self.shape)
        steps = jnp.broadcast_to(state.step, self.shape[:1])
        raw = self.gather(constants.rows, block, offset)
        stream = None
        if self.stream:
            # Exact in uint32: `setup` refuses runs of more examples.
            position = state.step.astype(jnp.uint32) * np.uint32(len(rows)) + rows
            epoch = position // np.uint32(self.stream)
            stream = stream_keys(key, epoch.reshape(self.shape), raw.index)
        micro_batches = MicroBatch(raw, keys, steps, stream)
        model_state = {
            **state.model_state,
            "rows": jax.tree.map(
                lambda leaf: leaf.reshape(self.shape + leaf.shape[1:]), state.model_state["rows"]
            ),
        }
        grads, loss, terms, model_state = self._gradient(
            state.params, model_state, micro_batches, constants.loss_inputs
        )
        model_state["rows"] = jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), model_state["rows"]
        )
        updates, opt_state = self.program.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # No row has this number, so that this key is not the key of any row.
        own_key = jax.random.fold_in(jax.random.fold_in(key, state.step), jnp.uint32(2**32 - 1))
        update = Update(params, opt_state, model_state, own_key, state.step + 1)
        params, opt_state, model_state, *_ = self.program.after_update(update)
        ema = state.ema
        if self.ema:
            ema = optax.incremental_update(params, ema, 1 - self.ema)
        new = TrainState(state.step + 1, params, ema, model_state, opt_state, state.window)
        if self.shardings is not None:
            new = jax.lax.with_sharding_constraint(new, self.shardings)
        return new, {"loss": loss, **terms}

    def _forward(self, average: Average, loss_inputs: Tree | None) -> Forward:
        graph, prepare = self.program.graph, self.prepare
        return forward(graph, prepare, average, self.compute, loss_inputs, self.missing)

    def _gradient(
        self, params: Tree, model_state: Tree, micro_batches: MicroBatch, loss_inputs: Tree | None
    ):
        """The gradient over the global batch, in this step's parallel style."""
        if self.shardings is not None:
            # Sharded parameters are gathered before use, as in FSDP. Without this constraint,
            # XLA's partitioner gave wrong gradients on a mesh of (2, 2, 2) (jax 0.10.2).
            gathered = jax.tree.map(sharding.gathered, self.shardings.params)
            params = jax.lax.with_sharding_constraint(params, gathered)
        if self.mesh is None:
            run = self._forward(_same, loss_inputs)
            return gradient(run, params, model_state, micro_batches, self.shape[0])

        def each_device(params, model_state, micro_batches, loss_inputs):
            average = functools.partial(jax.lax.pmean, axis_name=ROW_AXES)
            run = self._forward(average, loss_inputs)
            return gradient(run, params, model_state, micro_batches, self.shape[0], average)

        whole, over_rows = PartitionSpec(), PartitionSpec(None, ROW_AXES)
        state = {"rows": over_rows, "other": whole}
        by_row: Any = MicroBatch(over_rows, over_rows, whole, over_rows)  # pyright: ignore
        # With check_vma=False JAX adds no collectives to those that are written here.
        return jax.shard_map(
            each_device,
            mesh=self.mesh,
            in_specs=(whole, state, by_row, whole),
            out_specs=(whole, whole, whole, state),
            check_vma=False,
        )(params, model_state, micro_batches, loss_inputs)


def term_names(
    batch: Batch, loss_inputs: Tree | None = None
) -> Callable[[nnx.GraphDef, Tree, Tree], list[str]]:
    """Names of the loss and its terms, by abstract evaluation; `batch` is abstract."""

    def names(graph, params, model_state):
        def terms(params, rows, other, x, mask, label, index):
            numbers = jnp.arange(len(x), dtype=jnp.uint32)
            keys = row_keys(jax.random.key(0), jnp.zeros((), jnp.int32), numbers)
            # Any lengths do: the names do not depend on which steps are padding.
            length = None if mask is None else numbers
            micro_batch = MicroBatch(Raw(x, label, length, index), keys, jnp.zeros((), jnp.int32))
            run = forward(graph, lambda rows, context: rows.raw.x, loss_inputs=loss_inputs)
            return run(params, {"rows": rows, "other": other}, micro_batch, None)[1][0]

        state = (model_state["rows"], model_state["other"])
        found = jax.eval_shape(terms, params, *state, *batch)
        for name, term in found.items():
            if term.shape or name == "loss":
                own = "its name is the loss's own" if name == "loss" else f"has shape {term.shape}"
                raise InputError(
                    f"the term {name} of its loss: {own}; must be a number with another name"
                )
        return ["loss", *found]

    return names
