"""Two processes that a launcher started train one run, with no flag that says so."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from tests.slurm import Slurm, why_not
from tests.test_launchers import MPICH, open_mpi, slurm
from tests.training.processes import rows, start

FLAGS = (
    "--config.model.latent_dim=8",
    "--config.batch_size=64",
    "--config.duration=20",
    "--config.log_every=10",
    "--config.evaluation.every=",
)


def free_job() -> str:
    """The number of a job, whose port follows from it, that no other test has now."""
    return str(os.getpid() % 4096)


def launched(workdir: Path, variables, *flags: str) -> list[tuple[int, str, str]]:
    """The ends of two processes with these variables each."""
    processes = [start(workdir, *FLAGS, *flags, variables=variables(n)) for n in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


LIKE = {
    "Slurm": lambda process: slurm(2, process, 1, SLURM_JOB_ID=free_job()),
    "Open MPI": lambda process: {
        **open_mpi(5, 2, process, 1),
        "PMIX_NAMESPACE": f"prterun-a-{os.getpid()}@1",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LIKE)
def test_two_processes_with_the_variables_of_a_launcher_train_one_run(tmp_path, launcher):
    ended = launched(tmp_path / "two", LIKE[launcher])
    assert [code for code, _, _ in ended] == [0, 0], ended
    said = rf"2 processes x 1 devices = 2 \({launcher}.*, process 0 at 127\.0\.0\.1:\d+\)"
    assert re.match(said, ended[0][2]) and "processes x" not in ended[1][2]
    by_hand = start(tmp_path / "one", *FLAGS, devices=2)
    _, err = by_hand.communicate(timeout=120)
    assert by_hand.returncode == 0 and "processes x" not in err
    two, one = rows(tmp_path / "two"), rows(tmp_path / "one")
    np.testing.assert_allclose(
        [row["loss"] for row in two], [row["loss"] for row in one], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("variables", "flags", "said"),
    [
        (LIKE["Slurm"](1), ("--processes=3",), "error: --processes=3: Slurm step"),
        (MPICH, (), "error: MPICH's mpirun started 2 processes"),
    ],
)
def test_what_was_not_expected_ends_with_one_line(tmp_path, variables, flags, said):
    process = start(tmp_path / "run", *FLAGS, *flags, variables=variables)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and err.count("\n") == 1 and err.startswith(said)
    assert not (tmp_path / "run").exists()


def test_a_task_that_is_missing_is_named_with_the_step(tmp_path):
    variables = slurm(2, 0, 1, SLURM_JOB_ID=free_job())
    process = start(tmp_path / "run", *FLAGS, "--connect_seconds=0.5", variables=variables)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.count("\n") == 1
    assert err.startswith(f"failed: Slurm step {free_job()}.0: process 1 of 2 did not come to")


@pytest.mark.slow
def test_processes_with_other_numbers_of_devices_are_refused(tmp_path):
    processes = [
        start(tmp_path / "run", *FLAGS, devices=n + 1, variables=LIKE["Slurm"](n)) for n in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=60)
        said = "error: processes have different numbers of devices: process 0 1, process 1 2"
        assert process.returncode == 2 and said in err.splitlines()


@pytest.mark.slow
def test_two_that_did_not_find_each_other_are_told_so(tmp_path):
    variables = {"SLURM_JOB_ID": "77"}  # a script of sbatch without srun
    first = start(tmp_path / "run", *FLAGS, "--config.duration=100000000", variables=variables)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = start(tmp_path / "run", *FLAGS, variables=variables)
    _, err = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 2 and err.count("\n") == 1
    assert "both belong to Slurm job 77. They did not find each other as processes of one" in err


@pytest.mark.slow
def test_mpirun_itself(tmp_path):
    command = shutil.which("mpirun.openmpi") or shutil.which("mpirun")
    version = (
        subprocess.run([command, "--version"], capture_output=True, text=True).stdout
        if (command)
        else ""
    )
    if not command or "open-mpi.org" not in version:
        pytest.skip("Open MPI's mpirun is not installed here")
    prefix = (command, "--allow-run-as-root", "--oversubscribe", "-n", "2")
    process = start(tmp_path / "run", *FLAGS, prefix=prefix)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "2 processes x 1 devices = 2 (Open MPI, process 0 at 127.0.0.1:" in err
    assert rows(tmp_path / "run")[-1]["step"] == 20


@pytest.fixture
def real_slurm():
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:  # sockets want a short path
        slurm = Slurm(Path(folder))
        yield slurm
        slurm.stop()
        time.sleep(0.5)  # they write their states down


@pytest.mark.slow
def test_srun_itself_over_two_nodes(tmp_path, real_slurm):
    """The nodes have no names in DNS: Slurm is asked for their addresses."""
    prefix = ("srun", "--nodes=2", "--ntasks=2", "--kill-on-bad-exit=1")
    process = start(tmp_path / "run", *FLAGS, prefix=prefix, variables=real_slurm.variables)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert re.search(r"2 processes x 1 devices = 2 \(Slurm step \d+\.0, process 0 at \S+\)", err)
    assert rows(tmp_path / "run")[-1]["step"] == 20
