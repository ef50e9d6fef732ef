"""launch.export: what it says, and one line for bad input."""

import pathlib
import subprocess
import sys

import pytest

from configs.dense import get_config
from tests.training.runs import train

ROOT = pathlib.Path(__file__).parents[2]


def start(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.export", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_it_writes_a_folder_and_refuses_what_cannot_be_in_one_line(tmp_path):
    config = get_config()
    config.duration, config.trackers, config.evaluation.every = "2 steps", (), ""
    train(config, str(tmp_path / "run"))
    run = f"--workdir={tmp_path}/run"
    done = start(run, "--to=stablehlo,onnx,safetensors")
    bad = [
        (start(), "--workdir is missing"),
        (start(run, "--to=onxn"), "did you mean onnx?"),
        (start(run, "--step=7"), "--step=7: must be latest, best, or one of 2"),
    ]
    said, error = done.communicate(timeout=240)
    assert done.returncode == 0, error
    assert said == f"stablehlo, onnx, safetensors and card.md in {tmp_path}/run/export\n"
    names = {"card.md", "decoder.onnx", "model.onnx", "model.safetensors", "model.stablehlo"}
    assert {each.name for each in (tmp_path / "run/export").iterdir()} == names
    assert "never: the run keeps no threshold" in (tmp_path / "run/export/card.md").read_text()
    for process, text in bad:
        said, error = process.communicate(timeout=240)
        assert (process.returncode, said) == (2, "")
        assert error.count("\n") == 1 and text in error
