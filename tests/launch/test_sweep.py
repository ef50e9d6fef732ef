"""The sweep program's words, refusals, kills and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aejax.models.corruption import Masking
from aejax.sweeps.cells import cells, split_values
from launch.flags import config_of
from tests.launch import forked

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.duration=20 steps",
    "--config.log_every=1",
    "--config.evaluation.every=",
    "--config.trackers=",
    "--workdir=family",
)


def start(*words: str, where: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)  # one device
    command = [sys.executable, "-m", "launch.sweep", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=where, env=environment, text=True, **pipes)


def program(*words: str, where: Path) -> tuple[int, str, str]:
    ran = forked.run("sweep", *words, where=where)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "sweep: is empty; must name a setting and its values"),
        (["--sweep=seed"], "--sweep=seed: must be SETTING=VALUE,VALUE"),
        (["--sweep=sed=1"], "--config.sed: no such setting; did you mean seed?"),
        (["--sweep=seed=1,x"], "--config.seed=x: must be a whole number"),
        (["--sweep=seed&batch_size=1&2,3"], "sweep: seed&batch_size=3: must be 2 values"),
        (["--sweep=seed=1", "--sweep=seed&batch_size=1&2"], "sweep: seed stands twice"),
        (["--sweep=seed=0", "--curve=los"], "--curve=los: no run reports it; must be one of"),
        (["--sweep=seed=0,1", "--index=2"], "--index=2: must be from 0 to 1, of 2 runs"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, said, tmp_path):
    code, out, error = program(*words, where=tmp_path)
    assert code == 2 and not out
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_kind_may_stand_behind_its_own_settings():
    grid = dict([split_values("model.corruption.rate&model.corruption=0.25&masking,0.75&masking")])
    each = cells(
        grid, lambda values: config_of([f"--config.{name}={text}" for name, text in values.items()])
    )
    assert [cell.config.model.corruption for cell in each] == [Masking(0.25), Masking(0.75)]
    assert each[0].name == "rate=0.25,corruption=Masking"


@pytest.mark.slow
def test_killed_half_way_it_goes_on_and_trains_nothing_twice(tmp_path):
    words = ("--sweep=model.latent_dim=4,2", "--sweep=seed=0,1", *SMALL)
    first = start(*words, where=tmp_path)
    ended = tmp_path / "family" / "cells"
    while not ended.exists() or len(list(ended.glob("*.json"))) < 2:
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = {one: one.stat().st_mtime_ns for one in ended.glob("*.json")}
    code, out, _ = program(*words, where=tmp_path)
    assert code == 0 and "latent_dim  runs  bce" in out
    assert before == {one: one.stat().st_mtime_ns for one in before}
    for run in (tmp_path / "family" / "runs").iterdir():
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 21))
