"""ONNX: JAX traces the functions, and each primitive of the trace becomes ONNX nodes.

jax2onnx does the same, but requires an older Orbax than this package.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend.core import Literal

from aejax.errors import InputError
from aejax.exporting.functions import Entry, Functions, RowFunctions
from aejax.exporting.onnx_graph import IR_VERSION, OPSET, Graph
from aejax.exporting.onnx_primitives import PRIMITIVES

FILE, DECODER = "model.onnx", "decoder.onnx"
# Primitives that call a function, and the name of the parameter with the function.
_CALLS = {
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "remat2": "jaxpr",
}


def loading(functions: RowFunctions) -> str:
    """Markdown that says how to read the files without aejax."""
    outputs = ", ".join(functions.outputs)
    (rows,) = export.symbolic_shape("rows")
    entries, decode = _entries(functions, rows), ""
    lines = [f"| `{file}` | {' | '.join(entry.signature())} |" for file, entry in entries.items()]
    table = "\n".join(["| file | takes | gives |", "|---|---|---|", *lines])
    if isinstance(functions, Functions):
        decode = f"""
decoder = onnxruntime.InferenceSession("{DECODER}")
(decoded,) = decoder.run(None, {{"code": code}})"""
    return f"""\
ONNX, for any number of rows (`pip install onnxruntime`); `raw` are raw rows:

```python
import onnxruntime
session = onnxruntime.InferenceSession("{FILE}")
{outputs} = session.run(None, {{"raw": rows}}){decode}
```

{table}
"""


def build(functions: RowFunctions) -> dict[str, bytes]:
    """The model, and of an autoencoder its decoder.

    Raises:
        InputError: the model uses a primitive that is not supported.
    """
    (rows,) = export.symbolic_shape("rows")
    return {
        file: model(entry.function, rows, (entry.takes, entry.taken), entry.gives)
        for file, entry in _entries(functions, rows).items()
    }


def _entries(functions: RowFunctions, rows: Any) -> dict[str, Entry]:
    """The function of each file, for this number of rows."""
    files = {FILE: Entry(functions.all, "raw", functions.rows(rows), functions.outputs)}
    if isinstance(functions, Functions):
        files[DECODER] = functions.entries(rows)["decode"]
    return files


def model(
    function: Callable[..., Any], rows: Any, taken: tuple[str, Any], outputs: tuple[str, ...]
) -> bytes:
    """A function of one array as an ONNX model.

    Args:
        function: array -> array or arrays.
        rows: the symbolic number of rows.
        taken: the input's name and type; its axes may depend on the number of rows.
        outputs: names of the outputs.

    Raises:
        InputError: as `build`.
    """
    import onnx
    from onnx import helper

    closed = jax.make_jaxpr(function)(taken[1])
    if unknown := sorted(set(_unknown(closed.jaxpr))):
        accepted = ", ".join(sorted({*PRIMITIVES, *_CALLS, "scan"}))
        raise InputError(
            f"--to=onnx: the model computes with {', '.join(unknown)}; accepted: {accepted}"
        )
    graph = Graph(rows)
    graph.begin(taken[0])
    found = _written(graph, closed.jaxpr, closed.consts, [taken[0]])
    for name, value in zip(outputs, found, strict=True):
        graph.nodes.append(helper.make_node("Identity", [value], [name]))
    gives = [graph.described(*each) for each in zip(outputs, closed.out_avals, strict=True)]
    made = helper.make_model(
        graph.finished("model", [graph.described(*taken)], gives),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="aejax",
    )
    onnx.checker.check_model(made)
    return made.SerializeToString(deterministic=True)


def _unknown(jaxpr: Any) -> list[str]:
    """Names of unsupported primitives, also inside calls and loops."""
    found = []
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in _CALLS or name == "scan":
            found += _unknown(_inner(eqn)[0])
        elif name not in PRIMITIVES:
            found.append(name)
    return found


def _inner(eqn: Any) -> tuple[Any, list[Any]]:
    """The jaxpr that a call or a loop runs, and its constants."""
    name = eqn.primitive.name
    function = eqn.params[_CALLS.get(name, "jaxpr")]
    # A rematerialised function has no constants.
    return (function, []) if name == "remat2" else (function.jaxpr, function.consts)


def _written(graph: Graph, jaxpr: Any, constants: list[Any], given: list[str]) -> list[str]:
    """Adds a function's equations to a graph, and returns the names of its outputs.

    Args:
        graph: to add to.
        jaxpr: the function.
        constants: its constants.
        given: names of its inputs.
    """
    names = dict(zip(jaxpr.constvars, map(graph.constant, constants), strict=True))
    names |= dict(zip(jaxpr.invars, given, strict=True))

    def name(value: Any) -> str:
        if not isinstance(value, Literal):
            return names[value]
        aval: Any = value.aval
        return graph.constant(np.asarray(value.val, aval.dtype))

    for eqn in jaxpr.eqns:
        inputs, kind = [name(each) for each in eqn.invars], eqn.primitive.name
        if kind in _CALLS:
            outputs = _written(graph, *_inner(eqn), inputs)
        elif kind == "scan":
            outputs = _scan(graph, eqn, inputs)
        else:
            outputs = PRIMITIVES[kind](graph, eqn, inputs)
        names |= dict(zip(eqn.outvars, outputs, strict=True))
    return [name(each) for each in jaxpr.outvars]


def _scan(graph: Graph, eqn: Any, given: list[str]) -> list[str]:
    """lax.scan as ONNX's Scan; loop-invariant inputs are read from the outer graph."""
    params, (jaxpr, constants) = eqn.params, _inner(eqn)
    first, end = params["num_consts"], params["num_consts"] + params["num_carry"]
    inner = Graph(graph.rows, graph)
    types = [each.aval for each in jaxpr.invars[first:]]
    taken = [inner.name() for _ in types]
    infos = [inner.described(*each) for each in zip(taken, types, strict=True)]
    slices = given[end:]
    if not slices:  # ONNX's Scan needs at least one scanned input
        slices = [graph.constant(np.arange(params["length"], dtype=np.int32))]
        infos.append(inner.described(inner.name(), jax.ShapeDtypeStruct((), np.int32)))
    found = _written(inner, jaxpr, constants, [*given[:first], *taken])
    # ONNX requires that a body's outputs are outputs of its own nodes.
    named = [inner.node("Identity", value) for value in found]
    types = [each.aval for each in jaxpr.outvars]
    gives = [inner.described(*each) for each in zip(named, types, strict=True)]
    backwards, outputs = int(params["reverse"]), len(named) - params["num_carry"]
    # ONNX accepts no empty list.
    directions = {"scan_output_directions": [backwards] * outputs} if outputs else {}
    return graph.nodes_of(
        "Scan",
        [*given[first:end], *slices],
        len(eqn.outvars),
        body=inner.finished("body", infos, gives),
        num_scan_inputs=len(slices),
        scan_input_directions=[backwards] * len(slices),
        **directions,
    )
