"""What each collective of a training step is for, and the bytes that a step cannot do without.

Bytes are of the array that is exchanged, on one device: what a gather gives, what a sum goes over.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from aejax.training.setup import Setup
from aejax.training.sharding import gathered
from benchmarks.scaling.collectives import Collective, Part, axes_of

# What a step needs; every other cause is bytes that it could do without.
NEEDED = ("gradient", "parameters", "means", "norm", "statistics", "activations", "update")


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Arrays of parameters as a step sees them on one device, gathered over fsdp.

    Attributes:
        dealt: elements of each that lies over fsdp.
        whole: elements of each that does not.
        fsdp: devices of that axis.
        means: terms of the loss, and the loss.
    """

    dealt: tuple[int, ...]
    whole: tuple[int, ...]
    fsdp: int
    means: int

    @classmethod
    def of(cls, run: Setup) -> "Parameters":
        dealt, whole = [], []
        fsdp, means = run.mesh.shape["fsdp"], len(run.state.window.sums)
        for leaf in jax.tree.leaves(run.state.params):
            size = math.prod(gathered(leaf.sharding).shard_shape(leaf.shape))
            (dealt if fsdp > 1 and "fsdp" in leaf.sharding.spec else whole).append(size)
        return cls(tuple(dealt), tuple(whole), fsdp, means)

    def least(self, sizes: dict[str, int]) -> dict[str, int]:
        """Bytes of a step that data and fsdp need: {cause: bytes}; tensor's are not among them."""
        if sizes["data"] * sizes["fsdp"] == 1:
            return {}
        dealt = sum(self.dealt)
        over_data = dealt // self.fsdp if sizes["data"] > 1 and self.fsdp > 1 else 0
        out = {"gradient": 4 * (dealt + sum(self.whole) + over_data), "means": 4 * self.means}
        return out | ({"parameters": 4 * dealt} if dealt else {})


class Accounts:
    """Assigns a cause to each array, in the order of the program."""

    def __init__(self, parameters: Parameters, sizes: dict[str, int], rows: int):
        """`rows` of the global batch."""
        self._sizes, self._rows = sizes, rows
        whole = collections.Counter(parameters.dealt + parameters.whole)
        # Beside data, fsdp leaves a piece of a summed gradient; tensor may divide what lies whole.
        pieces = [size // parameters.fsdp for size in parameters.dealt if sizes["data"] > 1]
        if sizes["tensor"] > 1:
            pieces += [size // sizes["tensor"] for size in parameters.whole]
        # Each is summed once.
        self._left = [whole.copy(), collections.Counter(pieces)]
        self._own = whole + self._left[1]

    def cause(self, collective: Collective, part: Part) -> str:
        """One of NEEDED, or what could be spared: again, rows, or unaccounted."""
        axes, size = axes_of(collective.groups, self._sizes), math.prod(part.shape)
        name, gathers = part.op_name, collective.kind == "all-gather"
        sums = collective.kind in ("all-reduce", "reduce-scatter")
        sums = sums and part.dtype.startswith(("f", "bf"))
        in_loss = "jvp" in name  # the loss or its gradient
        if not collective.in_step:
            return "finite" if part.dtype == "pred" and "reduce_and" in name else "unaccounted"
        if gathers and not in_loss and name.endswith(("/add", "/mul")) and size in self._own:
            return "update"
        if sums and size == 1:
            return "means" if in_loss else "norm"
        if "tensor" in axes:  # /gather: rows of the batch
            return "activations" if in_loss or name.endswith("/gather") else "unaccounted"
        if gathers and name.endswith("sharding_constraint") and size in self._own:
            return "parameters"
        if sums and name.endswith("transpose(jvp())/psum"):  # of a mean, with pmap
            return "statistics"
        if sums and "transpose(" in name and size in self._own:
            return self._gradient(size)
        if sums and in_loss and self._rows not in part.shape:
            return "statistics"
        return "rows" if in_loss else "unaccounted"

    def _gradient(self, size: int) -> str:
        for left in self._left:
            if left[size]:
                left[size] -= 1
                return "gradient"
        return "again"


def account(
    found: Sequence[Collective], parameters: Parameters, sizes: dict[str, int], rows: int
) -> dict[str, Any]:
    """The collectives of one program by cause, and against the least that it needs.

    Args:
        found: its collectives.
        parameters: of the run.
        sizes: {axis: devices} of its mesh.
        rows: of the global batch.

    Returns:
        `step` and `outside`: [{cause, kind, axes, group, arrays, calls, bytes}]; `calls` counts a
        combined collective once, with its largest cause; `least`: {cause: bytes}; `ratio`: bytes
        over data and fsdp, without statistics, over the least; `unaccounted`: [{bytes, op_name}].
    """
    accounts = Accounts(parameters, sizes, rows)
    lines: dict[tuple, dict[str, Any]] = {}
    unaccounted = []
    for each in found:
        axes = axes_of(each.groups, sizes)
        if not axes:
            continue  # devices by themselves
        causes = [(accounts.cause(each, part), part) for part in each.parts]
        largest = max(causes, key=lambda pair: pair[1].bytes)[0]
        for cause, part in causes:
            key = (each.in_step, cause, each.kind, axes)
            named = {"cause": cause, "kind": each.kind, "axes": list(axes)}
            named |= {"group": len(each.groups[0]), "arrays": 0, "calls": 0, "bytes": 0}
            line = lines.setdefault(key, named)
            line["arrays"] += each.times
            line["bytes"] += each.times * part.bytes
            if cause == "unaccounted":
                name = part.op_name or each.kind
                unaccounted.append({"bytes": each.times * part.bytes, "op_name": name})
        lines[(each.in_step, largest, each.kind, axes)]["calls"] += each.times
    step = [line for key, line in lines.items() if key[0]]
    least = parameters.least(sizes)
    rows_bytes = sum(each["bytes"] for each in step if _over_rows(each))
    return {
        "step": step,
        "outside": [line for key, line in lines.items() if not key[0]],
        "least": least,
        "ratio": round(rows_bytes / sum(least.values()), 3) if least else None,
        "unaccounted": unaccounted,
    }


def spared(step: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Bytes of a step by cause, of causes that it could do without."""
    out: collections.Counter = collections.Counter()
    for line in step:
        if line["cause"] not in NEEDED:
            out[line["cause"]] += line["bytes"]
    return dict(out)


def _over_rows(line: dict[str, Any]) -> bool:
    return "tensor" not in line["axes"] and line["cause"] not in ("statistics", "norm")
