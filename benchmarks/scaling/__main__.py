"""What presets exchange between devices in a step, and how far that lets them scale.

    python -m benchmarks.scaling [--presets=dense,deep] [--devices=1,8,64] [--styles=data,fsdp]
                                 [--table=TABLE.md] [--picture=PICTURE.png]

prints one JSON line; what it is doing goes to standard error. Dispatches are compiled, a process
for each number of devices, and not run: what is told of them was read from the compiled programs.
Devices are simulated CPUs; with --target=h100 they are described GPUs, for which XLA's compiler
needs no GPU. `weak` and `strong` are a model of an accelerator's time (`model.py`), of the flags
below, and no measurement. Without `data` among --styles there is no `weak`.
"""

import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
from typing import Any

from absl import app, flags

import configs
from benchmarks.scaling.causes import spared
from benchmarks.scaling.model import Machine, curves, draw

STYLES = ["data", "fsdp", "data_fsdp", "data_tensor", "pmap"]
PRESETS = [
    each.name for each in pkgutil.iter_modules(configs.__path__) if "search" not in each.name
]

_PRESETS = flags.DEFINE_list("presets", PRESETS, "Which presets.")
_DEVICES = flags.DEFINE_list("devices", ["1", "8", "64"], "Numbers of devices.")
_STYLES = flags.DEFINE_list(
    "styles", ["data", "fsdp", "data_fsdp", "data_tensor", "pmap"], "Meshes."
)
_TARGET = flags.DEFINE_enum("target", "cpu", ["cpu", "h100"], "Whose compiler partitions.")
_TABLE = flags.DEFINE_string("table", "", "A file for a table in Markdown.")
_PICTURE = flags.DEFINE_string("picture", "", "A file for the model's curves.")
_DRAWN = flags.DEFINE_list("drawn", ["dense", "variational", "deep", "convolutional"], "In it.")
_ROWS = flags.DEFINE_integer("rows", 4096, "Of the global batch of strong scaling.", lower_bound=1)
_FLOPS = flags.DEFINE_float("flops", 4e14, "A second and device: TF32 products on an H100.")
_HBM = flags.DEFINE_float("hbm", 3.35e12, "Bytes a second and device, of its memory.")
_NVLINK = flags.DEFINE_float("nvlink", 450e9, "Bytes a second and device, in a node.")
_NETWORK = flags.DEFINE_float("network", 50e9, "Bytes a second and device, between nodes.")
_LATENCY = flags.DEFINE_float("latency_us", 3.0, "Microseconds of a hop.")
_LAUNCH = flags.DEFINE_float("launch_us", 2.5, "Microseconds of a kernel, at least.")
_PER_NODE = flags.DEFINE_integer("devices_per_node", 8, "Devices of a node.", lower_bound=1)


# What XLA for GPUs would try on the GPU, it takes by rule: products are the library's.
_XLA = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


def compiled(names: list[str], styles: list[str], devices: int, rows: int = 0) -> list[dict]:
    """Records of one number of devices, by a process that has as many."""
    words = [f"--presets={','.join(names)}", f"--styles={','.join(styles)}", f"--rows={rows}"]
    words += [f"--devices={devices}", f"--target={_TARGET.value}"]
    simulated = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling.compiling", *words],
        env=os.environ | simulated | {"XLA_FLAGS": _XLA if _TARGET.value == "h100" else ""},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def table(records: list[dict[str, Any]]) -> str:
    """A line for each record, in Markdown: KiB of a step on each device."""
    lines = [
        "| preset | devices | mesh | parameters | least KiB | KiB | collectives | spared | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in records:
        if "refused" in each:
            continue
        step, memory = each["step"], each["memory"]
        in_all = memory["arguments"] + memory["temporaries"] + memory["outputs"] - memory["alias"]
        causes = ", ".join(f"{name} {size / 1024:.4g}" for name, size in spared(step).items())
        cells = (
            each["preset"],
            each["devices"],
            each["style"],
            f"{each['parameters']:,}",
            f"{sum(each['least'].values()) / 1024:.5g}",
            f"{sum(line['bytes'] for line in step) / 1024:.5g}",
            sum(line["calls"] for line in step),
            causes,
            f"{in_all / 2**20:.4g}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _check(stray: list[str]) -> None:
    """Refuses flags that nothing could be made of."""
    if stray:
        raise app.UsageError(f"{stray}: there are flags alone")
    for name, known in (("presets", PRESETS), ("drawn", PRESETS), ("styles", STYLES)):
        if unknown := set(flags.FLAGS[name].value or ()) - set(known):
            raise app.UsageError(f"--{name}={','.join(unknown)}: takes {', '.join(known)}")
    if not all(each.isdecimal() and int(each) for each in _DEVICES.value):
        raise app.UsageError(f"--devices={','.join(_DEVICES.value)}: takes numbers, such as 1,8,64")
    if _TARGET.value == "h100" and not importlib.util.find_spec("jax_cuda12_plugin"):
        raise app.UsageError("--target=h100: needs the packages jax-cuda12-plugin, jax-cuda12-pjrt")


def main(argv: list[str]) -> None:
    """Compiles, accounts and prints."""
    _check(argv[1:])
    machine = Machine(
        flops=_FLOPS.value,
        hbm=_HBM.value,
        nvlink=_NVLINK.value,
        network=_NETWORK.value,
        latency=_LATENCY.value * 1e-6,
        launch=_LAUNCH.value * 1e-6,
        per_node=_PER_NODE.value,
    )
    drawn = [name for name in _DRAWN.value if name in _PRESETS.value]
    records, fixed = [], []
    for devices in map(int, _DEVICES.value):
        records += compiled(_PRESETS.value, _STYLES.value, devices)
        if drawn and _ROWS.value % devices == 0:
            fixed += compiled(drawn, ["data"], devices, _ROWS.value)
    done = [each for each in records if "refused" not in each]
    alike = [each for each in done if each["style"] == "data"]
    weak, strong = curves(alike, machine), curves(fixed, machine)
    if _TABLE.value:
        with open(_TABLE.value, "w") as file:
            file.write(table(records))
    if _PICTURE.value:
        draw(
            {name: weak[name] for name in drawn if name in weak},
            strong,
            _ROWS.value,
            _PICTURE.value,
        )
    result = {
        "benchmark": "scaling",
        "target": _TARGET.value,
        "unaccounted": sum(len(each["unaccounted"]) for each in done),
        "spared": {
            f"{each['preset']} {each['style']} {each['devices']}": told
            for each in done
            if (told := spared(each["step"]))
        },
        "model": {"weak": weak, "strong": strong},
        "records": records,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
