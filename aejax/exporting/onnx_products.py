"""Products of matrices and convolutions as nodes of ONNX."""

import math
from typing import Any

import numpy as np

from aejax.exporting.onnx_graph import Graph, out, refuse, shapes


def dot_general(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    """dot_general as MatMul of [batch, rows, contracted] and [batch, contracted, columns]."""
    (summed, shared), sizes = eqn.params["dimension_numbers"], shapes(eqn)
    sides, free = [], []
    for left, value, shape, dtype, own, both in zip(
        (True, False),
        given,
        sizes,
        (each.aval.dtype for each in eqn.invars),
        summed,
        shared,
        strict=True,
    ):
        rest = [axis for axis in range(len(shape)) if axis not in (*own, *both)]
        order = (*both, *rest, *own) if left else (*both, *own, *rest)
        groups = [tuple(shape[axis] for axis in each) for each in (both, rest, own)]
        value = value if dtype == out(eqn).dtype else graph.cast(value, out(eqn).dtype)
        value = graph.transpose(value, order)
        merged = _merged(groups if left else [groups[0], groups[2], groups[1]])
        sides.append(graph.reshape(value, tuple(shape[axis] for axis in order), merged))
        free.append(groups[1])
    value = graph.node("MatMul", *sides)
    merged = _merged([tuple(sizes[0][axis] for axis in shared[0]), *free])
    return [graph.reshape(value, merged, out(eqn).shape)]


def _merged(groups: list[tuple]) -> tuple:
    """Merges each group of sizes to one axis; an empty first group gives no axis."""
    return tuple(math.prod(group) for place, group in enumerate(groups) if group or place)


def convolution(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    params = eqn.params
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise refuse(eqn, "accepted: without dilation of the image, and without groups of rows")
    image, kernel, result = params["dimension_numbers"]
    value = graph.node(
        "Conv",
        graph.transpose(given[0], image),
        graph.transpose(given[1], kernel),
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
        pads=[pair[side] for side in (0, 1) for pair in params["padding"]],
    )
    return [graph.transpose(value, tuple(np.argsort(result)))]
