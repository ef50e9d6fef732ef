"""A model of the time of a step over devices: no measurement.

A step computes, then exchanges, one after the other:

    compute = max(FLOPs / flops, bytes / hbm, launches x launch)
    exchange = sum over collectives of calls x latency x hops + bytes x share / rate

Of a group with k devices a node on m nodes a sum moves 2 (k - 1) / k of its bytes inside of nodes
and, each device its k-th part, 2 (m - 1) / m of them between nodes, in 2 (log2 k + log2 m) hops: a
ring in each. A gather, or a sum whose pieces stay apart, is half of it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a cluster is taken to give.

    Attributes:
        flops: a second and device.
        hbm: bytes a second and device, of its memory.
        nvlink: bytes a second and device, inside of a node.
        network: bytes a second and device, between nodes.
        latency: seconds of a hop.
        launch: seconds of a kernel, at least.
        per_node: devices of a node.
    """

    flops: float
    hbm: float
    nvlink: float
    network: float
    latency: float
    launch: float
    per_node: int

    def compute(self, record: dict[str, Any]) -> float:
        """Seconds that a step of a record computes."""
        return max(
            record["flops"] / self.flops,
            record["bytes_accessed"] / self.hbm,
            record["launches"] * self.launch,
        )

    def exchange(self, record: dict[str, Any]) -> float:
        """Seconds that a step of a record exchanges."""
        return sum(self._line(line, record["mesh"]) for line in record["step"])

    def step(self, record: dict[str, Any]) -> float:
        """Seconds of a step of a record."""
        return self.compute(record) + self.exchange(record)

    def _line(self, line: dict[str, Any], sizes: dict[str, int]) -> float:
        inside, nodes = self.spread(line["axes"], sizes)
        twice = 2 if line["kind"] == "all-reduce" else 1
        hops = twice * (math.log2(inside) + math.log2(nodes))
        if line["kind"] == "collective-permute":
            rate = self.network if nodes > 1 else self.nvlink
            return line["calls"] * self.latency + line["bytes"] / rate
        within = (inside - 1) / inside / self.nvlink
        between = (nodes - 1) / nodes / inside / self.network
        return line["calls"] * self.latency * hops + twice * line["bytes"] * (within + between)

    def spread(self, axes: Sequence[str], sizes: dict[str, int]) -> tuple[int, int]:
        """A group over these axes: its devices on a node, and its nodes."""
        grid = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
        first = tuple(slice(None) if axis in axes else 0 for axis in sizes)
        nodes, counts = np.unique(grid[first].ravel() // self.per_node, return_counts=True)
        return int(counts.max()), len(nodes)


def curves(records: Sequence[dict[str, Any]], machine: Machine) -> dict[str, Any]:
    """{preset: {devices: [microseconds of a step, of it exchange, speed-up in rows a second]}}."""
    out: dict[str, Any] = {}
    for each in sorted(records, key=lambda record: record["devices"]):
        step, exchange = machine.step(each), machine.exchange(each)
        own = out.setdefault(each["preset"], {})
        own[each["devices"]] = [step * 1e6, exchange * 1e6, each["batch"] / step]
    for own in out.values():
        alone = own[min(own)][2] / min(own)
        for values in own.values():
            values[2] /= alone
    return {
        name: {count: [float(f"{value:.4g}") for value in values] for count, values in own.items()}
        for name, own in out.items()
    }


def draw(weak: dict[str, Any], strong: dict[str, Any], rows: int, path: str) -> None:
    """Both as a picture: efficiency of weak scaling, speed-up of strong scaling."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, own in weak.items():
        left.plot(list(own), [values[2] / n for n, values in own.items()], "o-", label=name)
    for name, own in strong.items():
        right.plot(list(own), [values[2] for values in own.values()], "o-", label=name)
    counts = sorted({n for own in [*weak.values(), *strong.values()] for n in own})
    right.plot(counts, counts, ":", color="0.6")
    left.set(title="weak: rows a device fixed", ylabel="efficiency", ylim=(0, 1.05))
    right.set(title=f"strong: {rows} rows in all", ylabel="speed-up", yscale="log")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.set_xlabel("devices")
        axes.grid(alpha=0.3)
    left.legend(frameon=False, fontsize=8)
    figure.suptitle("A model of a step's time, not a measurement", fontsize=10)
    figure.savefig(path)
