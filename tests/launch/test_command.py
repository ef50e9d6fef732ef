"""The command `aejax`, from a folder whose own launch and configs are in the way."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

COMMAND = Path(sysconfig.get_path("scripts")) / "aejax"


@pytest.fixture
def crowded(tmp_path):
    for name in ("launch", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "configs" / "dense.py").write_text("raise SystemExit('the wrong one')\n")
    return tmp_path


def aejax(where: Path, *words: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [COMMAND, *words], cwd=where, env=environment, capture_output=True, text=True, timeout=120
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_it_trains_a_preset_and_evaluates_it(crowded):
    short = ["--config=dense", "--config.duration=20", "--config.log_every=10"]
    code, out, error = aejax(crowded, "train", *short)
    assert code == 0 and "test after 20 steps" in out, error
    code, out, error = aejax(crowded, "evaluate", "--workdir=runs/dense", "--tasks=reconstruction")
    assert code == 0 and "report: runs/dense/report.html" in out, error


def test_what_it_can_do_is_told(tmp_path):
    code, out, _ = aejax(tmp_path)
    assert code == 0 and [line.split()[0] for line in out.splitlines()[3:]] == [
        "train",
        "evaluate",
        "encode",
        "associate",
        "compress",
        "sweep",
        "export",
        "search",
        "prepare",
        "submit",
    ]
    code, out, error = aejax(tmp_path, "trian")
    assert (code, out) == (2, "")
    programs = (
        "train, evaluate, encode, associate, compress, sweep, export, search, prepare, submit"
    )
    assert error == f"error: aejax trian: must be one of {programs}\n"
    code, out, error = aejax(tmp_path, "train", "--config=dens")
    assert code == 2 and "did you mean dense?" in error and error.count("\n") == 1
