"""An ONNX graph under construction: nodes, constants, and shapes with a free number of rows."""

from typing import Any

import numpy as np

from aejax.errors import InputError

OPSET = 18
# The IR version for this opset; programs that are a year old refuse later ones.
IR_VERSION = 10


class Graph:
    """Nodes and constants of a graph, or of the body of a loop inside of one.

    Attributes:
        rows: the symbolic number of rows.
        outer: the graph around this one; None for the whole model's.
    """

    def __init__(self, rows: Any, outer: "Graph | None" = None):
        self.rows, self.outer = rows, outer
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._whole = self if outer is None else outer._whole
        self._count = 0
        self._constants: dict[tuple, str] = {}
        self._rows_name = ""

    def name(self) -> str:
        """A name that is unique in this graph and those around or inside it."""
        self._whole._count += 1
        return f"v{self._whole._count}"

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output, and returns the output's name."""
        return self.nodes_of(kind, inputs, 1, **attributes)[0]

    def nodes_of(
        self, kind: str, inputs: tuple[str, ...] | list[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Adds a node with several outputs, and returns their names."""
        from onnx import helper

        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: Any) -> str:
        """Adds a constant array, or finds an equal one, and returns its name."""
        from onnx import numpy_helper

        array, whole = np.ascontiguousarray(value), self._whole
        array = array.reshape(np.shape(value))  # ascontiguousarray adds an axis to scalars
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in whole._constants:
            whole._constants[key] = self.name()
            tensor = numpy_helper.from_array(array, whole._constants[key])
            whole.initializers.append(tensor)
        return whole._constants[key]

    def integers(self, *values: int) -> str:
        """The name of a constant int64 list, as used for shapes and axes."""
        return self.constant(np.array(values, np.int64))

    def begin(self, first: str) -> None:
        """Reads the number of rows from an input of the whole model."""
        self._rows_name = self.node("Shape", first, start=0, end=1)

    def times_rows(self, size: Any) -> int | None:
        """k if a size is k times the number of rows; None if it is a constant.

        Raises:
            InputError: it is another expression.
        """
        if isinstance(size, int):
            return None
        times = size // self.rows
        if not isinstance(times, int) or size != times * self.rows:
            raise InputError(f"--to=onnx: the model has an axis of {size}; accepted: k rows")
        return times

    def reshape(self, value: str, before: tuple, after: tuple) -> str:
        """Reshapes a value; at most one axis may depend on the number of rows."""
        if before == after:
            return value
        free = [i for i, size in enumerate(after) if self.times_rows(size) is not None]
        if len(free) > 1:
            raise InputError(f"--to=onnx: the model has the shape {after}; accepted: one of rows")
        return self.node(
            "Reshape", value, self.integers(*(-1 if i in free else n for i, n in enumerate(after)))
        )

    def expand(self, value: str, before: tuple, after: tuple) -> str:
        """Broadcasts a value along its axes of size 1."""
        if before == after:
            return value
        parts = []
        for old, new in zip(before, after, strict=True):
            # ONNX's Expand with 1 leaves an axis as it is.
            times = None if old == new else self.times_rows(new)
            if times is None:
                parts.append(self.integers(1 if old == new else new))
            else:
                parts.append(self.node("Mul", self._whole._rows_name, self.integers(times)))
        return self.node("Expand", value, self.node("Concat", *parts, axis=0))

    def transpose(self, value: str, order: tuple[int, ...]) -> str:
        """Transposes a value."""
        order = tuple(int(axis) for axis in order)
        if order == tuple(range(len(order))):
            return value
        return self.node("Transpose", value, perm=list(order))

    def cast(self, value: str, dtype: Any) -> str:
        """Casts a value."""
        return self.node("Cast", value, to=onnx_type(dtype))

    def finished(self, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
        """The finished ONNX graph; inputs and outputs come from `described`."""
        from onnx import helper

        return helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)

    def described(self, name: str, aval: Any) -> Any:
        """The ONNX description of an input or output: name, type and shape."""
        from onnx import helper

        shape = [size if isinstance(size, int) else str(size) for size in aval.shape]
        return helper.make_tensor_value_info(name, onnx_type(aval.dtype), shape)


def onnx_type(dtype: Any) -> int:
    """ONNX's number for a NumPy type."""
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def refuse(eqn: Any, accepted: str) -> InputError:
    """The error for a primitive with parameters that are not supported."""
    return InputError(f"--to=onnx: the model computes with {eqn.primitive.name}; {accepted}")


def shapes(eqn: Any) -> list[tuple]:
    """The shapes of an equation's inputs."""
    return [each.aval.shape for each in eqn.invars]


def out(eqn: Any) -> Any:
    """Shape and type of an equation's first output."""
    return eqn.outvars[0].aval
