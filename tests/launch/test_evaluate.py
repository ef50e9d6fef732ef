"""launch.evaluate as its users run it: processes, exit codes, and the same numbers everywhere."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from aejax.evaluation import TASKS
from configs.dense import get_config
from tests.launch import forked
from tests.training.runs import train

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    """A run of the digits that was asked to stop before its 40 steps were done."""
    path = tmp_path_factory.mktemp("trained") / "run"
    config = get_config()
    config.duration, config.trackers, config.evaluation.every = "40 steps", (), "25%"

    def stop() -> bool:
        return (path / "checkpoints" / "000000010.json").exists()

    assert train(config, str(path), stop=stop, quiet=True).status == "stopped"
    return path


@pytest.fixture
def folder(trained, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


def start(*words: str, devices: int = 1) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.evaluate", *words],
        cwd=ROOT,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_1_and_8_devices_give_the_same_numbers(trained, tmp_path):
    """357 rows divide over neither 8 devices nor any batch."""
    folders = {count: tmp_path / f"run{count}" for count in (1, 8)}
    for path in folders.values():
        shutil.copytree(trained, path)
    processes = {
        count: start(f"--workdir={path}", "--split=test[:357]", devices=count)
        for count, path in folders.items()
    }
    found = {}
    for count, process in processes.items():
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.splitlines()[-1] == f"report: {folders[count]}/report.html"
        record = json.loads((folders[count] / "evaluation.json").read_text())["evaluations"][-1]
        assert (record["rows"], record["parameters"]) == (357, "params")
        found[count] = {
            (task, name): value
            for task, numbers in record["tasks"].items()
            for name, value in numbers.items()
        }
        with np.load(folders[count] / "codes.npz") as codes:
            found[count]["z"] = codes["z"]
    z = [found[count].pop("z") for count in (1, 8)]
    np.testing.assert_allclose(z[0], z[1], rtol=1e-5, atol=1e-6)
    assert len(found[1]) > 15
    assert found[8] == pytest.approx(found[1], rel=1e-6)


def test_ctrl_c_ends_following_cleanly(folder):
    steps = sorted(int(path.stem) for path in (folder / "checkpoints").glob("*.json"))
    process = start(f"--workdir={folder}", "--follow", "--tasks=latent")
    assert process.stdout
    for step in steps:
        assert process.stdout.readline().startswith(f"step {step} (params): ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (75, "")
    assert err == "\nstopping after this checkpoint (Ctrl-C again ends at once)\n"
    records = json.loads((folder / "evaluation.json").read_text())["evaluations"]
    assert [record["step"] for record in records] == steps


def test_bad_input_is_one_line_and_exit_code_2(folder):
    before = sorted(folder.rglob("*"))
    cases = [
        ([], "--workdir is missing"),
        ([f"--workdir={folder}", "--tasks=latents"], "did you mean latent?"),
        ([f"--workdir={folder}", "--step=7"], "one of "),
        ([f"--workdir={folder}", "--follow", "--step=best"], "--follow"),
        ([f"--workdir={folder}", "--taks=latent"], "tasks"),
    ]
    for words, said in cases:
        done = forked.run("evaluate", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
    assert sorted(folder.rglob("*")) == before


def test_help_names_every_task():
    out = forked.run("evaluate", "--help").stdout
    assert all(name in out for name in TASKS) and "--follow" in out
