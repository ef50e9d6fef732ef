"""A run goes on with another number of processes, and nothing has to be changed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from aejax.data import order
from aejax.runs import folder
from tests.training.processes import rows, run, start
from tests.training.test_processes import finish, job_of_two

FLAGS = (
    "--config=dense",
    "--config.model=tests.training.runs:Watched",
    "--config.model.latent_dim=8",
    "--config.batch_size=96",
    "--config.log_every=1",
    "--config.evaluation.every=",
    "--config.trackers=",
)


def train(workdir: Path, processes: int, steps: int, *flags: str) -> str:
    """Trains up to this step with so many processes; what process 0 said."""
    coordinator, _ = job_of_two()
    job = (coordinator, f"--processes={processes}")
    each = [
        start(workdir, *FLAGS, f"--config.duration={steps}", *flags, *job, f"--process={number}")
        for number in range(processes)
    ]
    ended = finish(each)
    assert [code for code, _, _ in ended] == [0] * processes, ended
    return ended[0][2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [(), ("--config.mesh.data=1", "--config.mesh.fsdp=-1")], ids=["data", "fsdp"]
)
def test_four_processes_then_two_then_three_see_each_row_once(tmp_path, mesh):
    """The changes come in the middle of an epoch, of 15 steps."""
    workdir = tmp_path / "elastic"
    for processes, steps, before in ((4, 20, 0), (2, 40, 20), (3, 60, 40)):
        said = train(workdir, processes, steps, *mesh)
        assert f"{processes} processes x 1 devices = {processes} (" in said
        assert not before or f"going on at step {before} of {steps}" in said
    found = [row for row in rows(workdir) if row["split"] == "train"]
    assert [row["step"] for row in found] == list(range(1, 61))
    count = json.loads(Path(folder.path(str(workdir), "config.json")).read_text())["data"]["rows"]
    every = order.examples(0, count, 0, 60 * 96)
    for epoch in range(60 * 96 // count):  # as `order` promises, each once
        assert len(set(every[epoch * count : (epoch + 1) * count])) == count
    np.testing.assert_allclose(
        [row["index"] for row in found], every.reshape(60, 96).mean(1), rtol=1e-6
    )
    assert run(tmp_path / "one", *FLAGS, "--config.duration=60")[0] == 0
    alone = [row["loss"] for row in rows(tmp_path / "one") if row["split"] == "train"]
    np.testing.assert_allclose([row["loss"] for row in found], alone, rtol=1e-4)


HANGS = """
import os, runpy, sys, time
os.environ["AEJAX_HUGE_PAGES"] = "1"
from aejax.training import loop
real = loop.Loop.dispatch
def dispatch(self):
    if self.step > 200 and "--process=1" in sys.argv:
        print("hangs", file=sys.stderr, flush=True)
        time.sleep(600)
    return real(self)
loop.Loop.dispatch = dispatch
sys.argv = sys.argv[3:]
sys.argv[0] = "launch.train"
runpy.run_module("launch.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_job_with_its_stack(tmp_path):
    """It still says that it lives: only its own watchdog knows better."""
    flags = ("--config.duration=100000000", "--config.evaluation.every=", "--config.log_every=20")
    flags = (*flags, "--config.watchdog_minutes=0.05")
    prefix = ("python3", "-c", HANGS)
    job = job_of_two()
    each = [start(tmp_path, *flags, *job, f"--process={n}", prefix=prefix) for n in range(2)]
    (first, _, err), (second, _, other) = finish(each)
    assert first == 1 and second == 1
    assert "hangs" in other and "Timeout (0:00:0" in other and "in dispatch" in other
    assert "Timeout (0:00:0" in err or "process 1 is gone; start all again" in err
