"""A step exchanges what it must and no more: collectives of compiled presets, and their model."""

import jax
import pytest

from benchmarks.scaling.causes import Parameters, account, spared
from benchmarks.scaling.collectives import Collective, Part
from benchmarks.scaling.compiling import record
from benchmarks.scaling.model import Machine, curves

SIZES = {"data": 8, "fsdp": 1, "tensor": 1}
BACKWARD = "jit(run)/while/body/transpose(jvp())/dot_general"
ALL = (tuple(range(8)),)
MACHINE = Machine(
    flops=1e12, hbm=1e12, nvlink=4e11, network=5e10, latency=1e-6, launch=1e-6, per_node=8
)


@pytest.mark.parametrize("name", ["dense", "variational"])
def test_a_step_exchanges_its_gradient_its_means_and_what_fsdp_dealt_out(name):
    data = record(name, "data", jax.devices())
    fsdp = record(name, "fsdp", jax.devices())
    for each in (data, fsdp):
        assert each["unaccounted"] == [] and not spared(each["step"])
        assert 1 <= each["ratio"] <= 1.05
    (sums,) = {(line["kind"], line["cause"]): line for line in data["step"] if line["calls"]}
    assert sums == ("all-reduce", "gradient") and data["least"].keys() == {"gradient", "means"}
    assert data["least"]["gradient"] == 4 * data["parameters"]
    assert sum(line["calls"] for line in data["step"]) == 1
    gathered = [line for line in fsdp["step"] if line["cause"] == "parameters"]
    assert sum(line["bytes"] for line in gathered) == fsdp["least"]["parameters"]
    # A device holds an eighth of what is dealt out, and of its two moments.
    saved = data["memory"]["arguments"] - fsdp["memory"]["arguments"]
    assert saved == pytest.approx(3 * 7 / 8 * fsdp["least"]["parameters"], rel=0.01)
    for each in (data, fsdp):  # beside what is expected: numbers of steps, sums of the window
        assert 0 <= each["memory"]["arguments"] - sum(each["expected"].values()) < 64


def reduce(shape: tuple[int, ...], op_name: str) -> Collective:
    return Collective("all-reduce", (Part("f32", shape, op_name),), ALL, 1, True)


def test_what_a_step_could_do_without_is_told():
    found = [
        reduce((64, 32), BACKWARD),
        reduce((32, 64), BACKWARD),
        Collective("all-gather", (Part("f32", (1024, 8), "body/jvp()/top_k"),), ALL, 28, True),
        Collective("all-to-all", (Part("u32", (16, 2), "body/keys"),), ALL, 1, True),
    ]
    told = account(found, Parameters((), (2048,), 1, 1), SIZES, 1024)
    assert spared(told["step"]) == {
        "again": 8192,
        "rows": 28 * 32768,
        "unaccounted": 128,
    }
    assert told["unaccounted"] == [{"bytes": 128, "op_name": "body/keys"}]
    assert told["least"] == {"gradient": 8192, "means": 4}


def test_the_model_of_a_sum_inside_of_a_node_and_between_nodes():
    line = {"kind": "all-reduce", "axes": ["data"], "calls": 1, "bytes": 4e8}
    record = {"flops": 1e9, "bytes_accessed": 1e8, "launches": 3, "batch": 64, "preset": "a"}
    in_node = record | {"mesh": SIZES, "step": [line], "devices": 8}
    over = in_node | {"mesh": SIZES | {"data": 64}, "devices": 64, "batch": 512}
    alone = in_node | {"mesh": SIZES | {"data": 1}, "devices": 1, "step": [], "batch": 8}
    assert MACHINE.compute(in_node) == pytest.approx(1e-3)
    assert MACHINE.exchange(in_node) == pytest.approx(6e-6 + 2 * 7 / 8 * 1e-3)
    between = 2 * 7 / 8 * 4e8 / 8 / 5e10
    assert MACHINE.exchange(over) == pytest.approx(12e-6 + 2 * 7 / 8 * 1e-3 + between)
    assert MACHINE.spread(["data"], {"data": 4, "fsdp": 1, "tensor": 8}) == (1, 4)
    told = curves([over, alone, in_node], MACHINE)["a"]
    assert list(told) == [1, 8, 64] and told[1] == [1000, 0, 1]
    assert told[8][2] == pytest.approx(8 * 1e-3 / MACHINE.step(in_node), rel=1e-3)
