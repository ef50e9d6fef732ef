"""Real processes that work in one sweep's folder."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aejax.runs import manifests
from tests.training import processes

STEPS = 60
SMALL = (
    f"--config.duration={STEPS} steps",
    "--config.log_every=1",
    "--config.evaluation.every=",
    "--config.checkpoint.every=5",
    "--config.trackers=",
    "--sweep=model.latent_dim=4,2",
    "--sweep=seed=0,1,2",
)
NAMES = [f"latent_dim={size},seed={seed}" for seed in (0, 1, 2) for size in (4, 2)]


def start(workdir: Path, devices: int = 1) -> subprocess.Popen:
    """A worker; with two devices it trains one cell after another."""
    return processes.start(workdir, *SMALL, program="sweep", devices=devices)


def until(true: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits for something that a process does while it lives."""
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def trained(said: str) -> list[str]:
    """The cells that a worker has ended, by what it said."""
    return re.findall(r"^(\S+): bce .* s\)$", said, re.MULTILINE)


def found(workdir: Path) -> dict:
    """sweep.json but for seconds."""
    text = (workdir / "sweep.json").read_text()
    out = json.loads(text)
    for cell in out["cells"]:
        assert cell.pop("seconds") > 0 and cell.pop("stages")
    return out


def assert_each_step_once(workdir: Path, resumed: str = "") -> None:
    """Each cell was started once and made each step once; but the one that was resumed."""
    runs = sorted(path.name for path in (workdir / "runs").iterdir())
    assert runs == sorted(NAMES)
    for name in runs:
        rows = processes.rows(workdir / "runs" / name)
        steps = [row["step"] for row in rows if row["split"] == "train"]
        assert steps == list(range(1, STEPS + 1)), name
        ledger = manifests.progress(str(workdir / "runs" / name), STEPS).ledger
        assert ledger and ledger["starts"] == (2 if name == resumed else 1), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A sweep by one process. Do not change."""
    path = tmp_path_factory.mktemp("alone")
    process = start(path)
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0 and sorted(trained(said)) == sorted(NAMES), said
    return path, out


@pytest.mark.slow
def test_two_processes_train_each_cell_once_and_give_the_same(alone, tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    ended = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    shares = [trained(said) for _, said in ended]
    assert sorted(shares[0] + shares[1]) == sorted(NAMES) and all(shares)
    assert_each_step_once(tmp_path)
    assert found(tmp_path) == found(alone[0])
    for name in ("curves.csv", "figures/reconstructions.png"):
        assert (tmp_path / name).read_bytes() == (alone[0] / name).read_bytes(), name
    # Who ends last prints the table; the other one leaves with a line, or sees all ended too.
    tables = [out for out, _ in ended if "latent_dim  runs  bce" in out]
    assert tables and tables[0].partition("report:")[0] == alone[1].partition("report:")[0]
    for out, said in ended:
        assert out or "are being trained by other workers; the last of them reports" in said


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)])
def test_a_cell_whose_worker_ends_is_taken_over(alone, tmp_path, how, code):
    first = start(tmp_path, devices=2)
    name = NAMES[0]
    until(lambda: any(tmp_path.glob("runs/*/checkpoints/*.json")), first)
    os.kill(first.pid, signal.SIGSTOP)  # in the middle of a cell, whose lock it holds
    (begun,) = (path.name for path in (tmp_path / "runs").iterdir())
    assert begun == name and not (tmp_path / "cells").exists()
    second = start(tmp_path)
    until(lambda: len(list((tmp_path / "runs").iterdir())) > 1, second)
    os.kill(first.pid, how)
    os.kill(first.pid, signal.SIGCONT)
    first.communicate(timeout=60)
    assert first.returncode == code
    out, said = second.communicate(timeout=240)
    assert second.returncode == 0 and "report:" in out, said
    assert sorted(trained(said)) == sorted(NAMES)
    assert_each_step_once(tmp_path, resumed=name)
    ours, whole = found(tmp_path), found(alone[0])
    assert [one["name"] for one in ours["cells"]] == [one["name"] for one in whole["cells"]]
    for one, other in zip(ours["cells"], whole["cells"], strict=True):
        if one["name"] != name:  # two devices round otherwise
            assert one == other
