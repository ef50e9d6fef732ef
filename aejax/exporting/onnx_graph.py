"""An ONNX graph under construction: nodes, constants, and shapes with a free number of rows."""

from typing import Any

import numpy as np

from aejax.errors import InputError

OPSET = 18
# Of files for this opset; later ones are refused by programs that are a year old.
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
        """A name that nothing has in this graph or one around or inside it."""
        self._whole._count += 1
        return f"v{self._whole._count}"

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one output, and gives the output's name."""
        return self.nodes_of(kind, inputs, 1, **attributes)[0]

    def nodes_of(
        self, kind: str, inputs: tuple[str, ...] | list[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Adds a node of several outputs, and gives their names."""
        from onnx import helper

        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: Any) -> str:
        """The name of an array, which the whole model has once."""
        from onnx import numpy_helper

        array, whole = np.ascontiguousarray(value), self._whole
        array = array.reshape(np.shape(value))  # what has no axis got one
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in whole._constants:
            whole._constants[key] = self.name()
            tensor = numpy_helper.from_array(array, whole._constants[key])
            whole.initializers.append(tensor)
        return whole._constants[key]

    def integers(self, *values: int) -> str:
        """The name of a list of whole numbers, as shapes and axes are given."""
        return self.constant(np.array(values, np.int64))

    def begin(self, first: str) -> None:
        """Takes the number of rows from an input of the whole model."""
        self._rows_name = self.node("Shape", first, start=0, end=1)

    def times_rows(self, size: Any) -> int | None:
        """k where a size is k times the number of rows; None where it is a number.

        Raises:
            InputError: it is something else.
        """
        if isinstance(size, int):
            return None
        times = size // self.rows
        if not isinstance(times, int) or size != times * self.rows:
            raise InputError(f"--to=onnx: the model has an axis of {size}; accepted: k rows")
        return times

    def reshape(self, value: str, before: tuple, after: tuple) -> str:
        """A value in another shape, of which one axis at most depends on the number of rows."""
        if before == after:
            return value
        free = [i for i, size in enumerate(after) if self.times_rows(size) is not None]
        if len(free) > 1:
            raise InputError(f"--to=onnx: the model has the shape {after}; accepted: one of rows")
        return self.node(
            "Reshape", value, self.integers(*(-1 if i in free else n for i, n in enumerate(after)))
        )

    def expand(self, value: str, before: tuple, after: tuple) -> str:
        """A value repeated along axes of 1, with as many axes as before."""
        if before == after:
            return value
        parts = []
        for old, new in zip(before, after, strict=True):
            # An axis of 1 leaves what is there as it is.
            times = None if old == new else self.times_rows(new)
            if times is None:
                parts.append(self.integers(1 if old == new else new))
            else:
                parts.append(self.node("Mul", self._whole._rows_name, self.integers(times)))
        return self.node("Expand", value, self.node("Concat", *parts, axis=0))

    def transpose(self, value: str, order: tuple[int, ...]) -> str:
        """A value with its axes in another order."""
        order = tuple(int(axis) for axis in order)
        if order == tuple(range(len(order))):
            return value
        return self.node("Transpose", value, perm=list(order))

    def cast(self, value: str, dtype: Any) -> str:
        """A value in another type."""
        return self.node("Cast", value, to=onnx_type(dtype))

    def finished(self, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
        """The graph as ONNX has it; inputs and outputs are what `described` gives."""
        from onnx import helper

        return helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)

    def described(self, name: str, aval: Any) -> Any:
        """An input or output with its type and shape."""
        from onnx import helper

        shape = [size if isinstance(size, int) else str(size) for size in aval.shape]
        return helper.make_tensor_value_info(name, onnx_type(aval.dtype), shape)


def onnx_type(dtype: Any) -> int:
    """ONNX's number of a type of NumPy's."""
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def refuse(eqn: Any, accepted: str) -> InputError:
    """The error for a primitive with parameters that are not written."""
    return InputError(f"--to=onnx: the model computes with {eqn.primitive.name}; {accepted}")


def shapes(eqn: Any) -> list[tuple]:
    """The shapes of an equation's inputs."""
    return [each.aval.shape for each in eqn.invars]


def out(eqn: Any) -> Any:
    """The type of an equation's first output."""
    return eqn.outvars[0].aval
