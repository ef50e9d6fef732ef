"""JAX's primitives as nodes of ONNX: one function a primitive, by name in `PRIMITIVES`.

Each takes the graph, the equation and the names of its inputs, and returns those of its outputs.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from aejax.exporting.onnx_graph import Graph, out, refuse, shapes
from aejax.exporting.onnx_products import convolution, dot_general

Emit = Callable[[Graph, Any, list[str]], list[str]]


def _plain(kind: str) -> Emit:
    return lambda graph, eqn, given: [graph.node(kind, *given)]


def _logical(of_bool: str, of_bits: str) -> Emit:
    def emit(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
        return [graph.node(of_bool if out(eqn).dtype == bool else of_bits, *given)]

    return emit


def _same(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return given


def _ne(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return [graph.node("Not", graph.node("Equal", *given))]


def _square(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return [graph.node("Mul", given[0], given[0])]


def _rsqrt(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return [graph.node("Reciprocal", graph.node("Sqrt", given[0]))]


def _log1p(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    one = graph.constant(np.ones((), out(eqn).dtype))
    return [graph.node("Log", graph.node("Add", given[0], one))]


def _expm1(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    one = graph.constant(np.ones((), out(eqn).dtype))
    return [graph.node("Sub", graph.node("Exp", given[0]), one)]


def _integer_pow(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    if eqn.params["y"] == 2:
        return _square(graph, eqn, given)
    return [graph.node("Pow", given[0], graph.constant(np.array(eqn.params["y"], out(eqn).dtype)))]


def _is_finite(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    wrong = graph.node("Or", graph.node("IsNaN", given[0]), graph.node("IsInf", given[0]))
    return [graph.node("Not", wrong)]


def _clamp(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    low, x, high = given
    return [graph.node("Min", graph.node("Max", x, low), high)]


def _select_n(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    if len(given) != 3 or eqn.invars[0].aval.dtype != bool:
        raise refuse(eqn, "accepted: one of two")
    which, if_false, if_true = given
    return [graph.node("Where", which, if_true, if_false)]


def _convert(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    same = eqn.invars[0].aval.dtype == out(eqn).dtype
    return given if same else [graph.cast(given[0], out(eqn).dtype)]


def _reshape(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return [graph.reshape(given[0], shapes(eqn)[0], out(eqn).shape)]


def _broadcast_in_dim(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    before, after = shapes(eqn)[0], out(eqn).shape
    there = dict(zip(eqn.params["broadcast_dimensions"], before, strict=True))
    ahead = tuple(there.get(axis, 1) for axis in range(len(after)))
    value = graph.reshape(given[0], before, ahead)
    return [graph.expand(value, ahead, after)]


def _transpose(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return [graph.transpose(given[0], eqn.params["permutation"])]


def _concatenate(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return [graph.node("Concat", *given, axis=eqn.params["dimension"])]


def _stack(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    axis, (shape, *_) = eqn.params["axis"], shapes(eqn)
    one = (*shape[:axis], 1, *shape[axis:])
    return [graph.node("Concat", *(graph.reshape(e, shape, one) for e in given), axis=axis)]


def _unstack(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    axis, count, shape = eqn.params["axis"], len(eqn.outvars), shapes(eqn)[0]
    parts = graph.nodes_of("Split", given, count, axis=axis, num_outputs=count)
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    return [graph.reshape(part, one, out(eqn).shape) for part in parts]


def _tile(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    return [graph.node("Tile", given[0], graph.integers(*eqn.params["reps"]))]


def _round(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    if eqn.params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise refuse(eqn, "accepted: to the nearest even number")
    return [graph.node("Round", given[0])]


def _slice(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    (shape,), params = shapes(eqn), eqn.params
    steps = params["strides"] or (1,) * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, shape, strict=True)
    # Axes that are not sliced may have a symbolic length.
    cut = {
        axis: (start, limit, step)
        for axis, (start, limit, step, size) in enumerate(bounds)
        if not (start == 0 and limit == size and step == 1)
    }
    if not all(isinstance(each, int) for bound in cut.values() for each in bound):
        raise refuse(eqn, "of some of its rows; accepted: of other axes")
    if not cut:
        return given
    start, limit, step = (graph.integers(*each) for each in zip(*cut.values(), strict=True))
    return [graph.node("Slice", given[0], start, limit, graph.integers(*cut), step)]


def _rev(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    axes = eqn.params["dimensions"]
    ends = graph.integers(*(np.iinfo(np.int64).min for _ in axes))
    back = graph.integers(*(-1 for _ in axes))
    return [graph.node("Slice", given[0], back, ends, graph.integers(*axes), back)]


def _split(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    sizes = graph.integers(*eqn.params["sizes"])
    count = len(eqn.outvars)
    return graph.nodes_of("Split", [given[0], sizes], count, axis=eqn.params["axis"])


def _pad(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    value, filling = given
    low, high, inside = zip(*eqn.params["padding_config"], strict=True)
    if any(inside):
        raise refuse(eqn, "between elements; accepted: around them")
    (shape, _), kept = shapes(eqn), [max(0, each) for each in (*low, *high)]
    if kept != [*low, *high]:  # negative padding removes elements
        axes = [i for i in range(len(shape)) if low[i] < 0 or high[i] < 0]
        start = graph.integers(*(max(0, -low[i]) for i in axes))
        end = graph.integers(*(shape[i] - max(0, -high[i]) for i in axes))
        value = graph.node("Slice", value, start, end, graph.integers(*axes))
    return [graph.node("Pad", value, graph.integers(*kept), filling)]


def _iota(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    params, aval = eqn.params, out(eqn)
    if not all(isinstance(size, int) for size in aval.shape):
        raise refuse(eqn, "of the number of rows; accepted: of other sizes")
    axis = params["dimension"]
    line = np.arange(aval.shape[axis], dtype=aval.dtype)
    line = line.reshape([-1 if i == axis else 1 for i in range(len(aval.shape))])
    return [graph.constant(np.broadcast_to(line, aval.shape))]


def _reduce(kind: str, as_type: Any = None) -> Emit:
    def emit(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
        value, axes = given[0], graph.integers(*eqn.params["axes"])
        if as_type is not None:  # ONNX's reductions do not take bool
            value = graph.cast(value, as_type)
        value = graph.node(kind, value, axes, keepdims=0)
        return [value if as_type is None else graph.cast(value, np.bool_)]

    return emit


def _arg(kind: str) -> Emit:
    def emit(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
        (axis,) = eqn.params["axes"]
        return [graph.cast(graph.node(kind, given[0], axis=axis, keepdims=0), out(eqn).dtype)]

    return emit


def _cumsum(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    axis = graph.constant(np.array(eqn.params["axis"], np.int64))
    return [graph.node("CumSum", given[0], axis, reverse=int(eqn.params["reverse"]))]


def _top_k(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    axis = eqn.params.get("axis", -1)
    values, index = graph.nodes_of(
        "TopK", [given[0], graph.integers(eqn.params["k"])], 2, axis=axis, largest=1, sorted=1
    )
    return [values, graph.cast(index, eqn.outvars[1].aval.dtype)]


def _dynamic_slice(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    value, *starts = given
    starts = {axis: (start, ()) for axis, start in enumerate(starts)}
    return [_window(graph, eqn, value, starts)]


def _window(graph: Graph, eqn: Any, value: str, starts: dict[int, tuple[str, tuple]]) -> str:
    """A slice of the equation's sizes; starts are clamped so that it lies inside the array.

    Args:
        graph: to add to.
        eqn: with `slice_sizes`.
        value: name of the array.
        starts: {axis: the name of a whole number, and its shape, () or (1,)}.
    """
    for axis, (size, whole) in enumerate(
        zip(eqn.params["slice_sizes"], shapes(eqn)[0], strict=True)
    ):
        if size == whole:
            continue
        if not isinstance(whole, int):
            raise refuse(eqn, "of some of its rows; accepted: of other axes")
        name, shape = starts[axis]
        start = graph.reshape(graph.cast(name, np.int64), shape, (1,))
        start = graph.node("Max", start, graph.integers(0))
        start = graph.node("Min", start, graph.integers(whole - size))
        end = graph.node("Add", start, graph.integers(size))
        value = graph.node("Slice", value, start, end, graph.integers(axis))
    return value


def _gather(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    """A single slice of an array, or whole entries of its first axis as in `jnp.take`."""
    numbers, (shape, index), rank = eqn.params["dimension_numbers"], shapes(eqn), out(eqn).ndim
    modes = jax.lax.GatherScatterMode
    if eqn.params["mode"] not in (modes.CLIP, modes.PROMISE_IN_BOUNDS):
        raise refuse(eqn, "accepted: with mode=clip")
    axes, taken = tuple(numbers.start_index_map), tuple(eqn.params["slice_sizes"])
    if len(index) == 1 and not numbers.operand_batching_dims:
        places = enumerate(axes)
        starts = {axis: (_one(graph, given[1], place), (1,)) for place, axis in places}
        value = _window(graph, eqn, given[0], starts)
        return [graph.reshape(value, taken, out(eqn).shape)]
    if (
        tuple(numbers.collapsed_slice_dims) != (0,)
        or axes != (0,)
        or numbers.operand_batching_dims
        or taken != (1, *shape[1:])
        or tuple(numbers.offset_dims) != tuple(range(len(index) - 1, rank))
    ):
        raise refuse(eqn, "accepted: one window, or entries of the first axis")
    at = graph.reshape(graph.cast(given[1], np.int64), index, index[:-1])
    at = graph.node("Max", at, graph.integers(0))
    at = graph.node("Min", at, graph.integers(shape[0] - 1))
    return [graph.node("Gather", given[0], at, axis=0)]


def _one(graph: Graph, value: str, place: int) -> str:
    """Element `place` of a list, as a list of length 1."""
    return graph.node("Gather", value, graph.integers(place), axis=0)


PRIMITIVES: dict[str, Emit] = {
    **{
        name: _plain(kind)
        for name, kind in {
            "abs": "Abs",
            "add": "Add",
            "add_any": "Add",
            "ceil": "Ceil",
            "cos": "Cos",
            "div": "Div",
            "eq": "Equal",
            "erf": "Erf",
            "exp": "Exp",
            "floor": "Floor",
            "ge": "GreaterOrEqual",
            "gt": "Greater",
            "le": "LessOrEqual",
            "log": "Log",
            "logistic": "Sigmoid",
            "lt": "Less",
            "max": "Max",
            "min": "Min",
            "mul": "Mul",
            "neg": "Neg",
            "pow": "Pow",
            "sign": "Sign",
            "sin": "Sin",
            "sqrt": "Sqrt",
            "sub": "Sub",
            "tanh": "Tanh",
        }.items()
    },
    **{name: _same for name in ("copy", "name", "optimization_barrier", "stop_gradient")},
    "and": _logical("And", "BitwiseAnd"),
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": convolution,
    "convert_element_type": _convert,
    "cumsum": _cumsum,
    "dot_general": dot_general,
    "dynamic_slice": _dynamic_slice,
    "expm1": _expm1,
    "gather": _gather,
    "integer_pow": _integer_pow,
    "iota": _iota,
    "is_finite": _is_finite,
    "log1p": _log1p,
    "ne": _ne,
    "not": _logical("Not", "BitwiseNot"),
    "or": _logical("Or", "BitwiseOr"),
    "pad": _pad,
    "reduce_and": _reduce("ReduceMin", np.int32),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce("ReduceMax", np.int32),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "reshape": _reshape,
    "rev": _rev,
    "round": _round,
    "rsqrt": _rsqrt,
    "select_n": _select_n,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "squeeze": _reshape,
    "stack": _stack,
    "tile": _tile,
    "top_k": _top_k,
    "transpose": _transpose,
    "unstack": _unstack,
}
