"""Training programs as real processes, and what they leave behind."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np

from aejax import mesh
from aejax.runs import checkpoint, folder, manifests

ROOT = Path(__file__).parents[2]
CLOCK = ("seconds", "examples_per_second")


def start(
    workdir: Path,
    *flags: str,
    devices: int = 1,
    program: str = "train",
    prefix: tuple[str, ...] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
):
    """Starts `python -m launch.PROGRAM --workdir=...` with this many simulated devices."""
    simulated = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **simulated, **variables}
    command = [*prefix, sys.executable, "-m", f"launch.{program}", f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(workdir: Path, *flags: str, **kwargs) -> tuple[int, str, str]:
    """Runs it to its end: (exit code, stdout, stderr)."""
    process = start(workdir, *flags, **kwargs)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint: parameters, moments, step, window."""
    manifests.verify(str(workdir), step)
    parts = manifests.read(str(workdir), step)["arrays"]
    out = {}
    for part in parts:
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = mesh.with_sharding(manifests.shapes(str(workdir), step, part), one)
        read = checkpoint.load(str(workdir), step, {part: shapes})[part]
        out.update({f"{part}/{name}": np.asarray(array) for name, array in read.items()})
    return out


def rows(workdir: Path) -> list[dict]:
    """metrics.jsonl without what the clock said."""
    text = Path(folder.path(str(workdir), "metrics.jsonl")).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in lines]


def assert_same_bits(one: Path, other: Path, step: int) -> None:
    """Both runs hold the same arrays at this step and the same rows, none twice, none missing."""
    left, right = arrays(one, step), arrays(other, step)
    assert left.keys() == right.keys() and len(left) > 10
    for name, value in left.items():
        assert value.dtype == right[name].dtype
        assert value.tobytes() == right[name].tobytes(), name
    assert rows(one) == rows(other)
    places = [(row["step"], row["split"]) for row in rows(one)]
    assert len(set(places)) == len(places)
    assert places == sorted(places, key=lambda place: (place[0], place[1] == "test"))
