"""Jobs of `launch.submit` on a real Slurm: preempted, at their time limit, killed, cancelled."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aejax.runs import manifests
from tests.slurm import Slurm, why_not
from tests.training.processes import ROOT, assert_same_bits

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "Slurm can be had"),
]

STEPS = 20_000
TRAIN = (
    "train",
    "--config=dense",
    "--config.model.latent_dim=8",
    "--config.batch_size=64",
    f"--config.duration={STEPS}",
    "--config.log_every=1000",
    "--config.evaluation.every=",
    "--config.checkpoint.every=5000",
    "--config.trackers=()",
)
# All of both nodes, so that no other job fits beside it.
WHOLE = ("--nodes=2", "--option=--exclusive")


@pytest.fixture(scope="module")
def slurm():
    # Sockets want a short path; the daemons may still write their states down.
    with tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as folder:
        found = Slurm(Path(folder))
        yield found
        found.stop()
        time.sleep(1)


def submit(slurm: Slurm, folder: Path, *words: str) -> str:
    """Submits a job; its number."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "launch.submit",
            f"--option=--chdir={ROOT}",
            *output(folder),
            *words,
        ],
        env={**os.environ, **slurm.variables, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def output(folder: Path) -> tuple[str, str]:
    """The job's lines go to a file each."""
    return ("--name=job", f"--option=--output={folder}/job-%j.out")


def shown(slurm: Slurm, job: str) -> dict[str, str]:
    """What Slurm knows of a job."""
    said = slurm.ask("scontrol", "show", "job", job, "--oneliner")
    return dict(re.findall(r"(\w+)=(\S*)", said))


def ended(slurm: Slurm, folder: Path, job: str, seconds: float = 150) -> dict[str, str]:
    """What Slurm knows of a job that has ended."""
    end = time.monotonic() + seconds
    on_the_way = ("PENDING", "CONFIGURING", "RUNNING", "SIGNALING", "COMPLETING", "REQUEUED")
    while time.monotonic() < end:
        found = shown(slurm, job)
        if found["JobState"] not in on_the_way:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"{found['JobState']}: {(folder / f'job-{job}.out').read_text()}")


def await_steps(workdir: Path, seconds: float = 90) -> None:
    """Waits for the first checkpoint."""
    end = time.monotonic() + seconds
    while not manifests.steps(str(workdir)):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    job = submit(slurm, folder, *WHOLE, "--", *TRAIN, f"--workdir={folder}/run")
    found = ended(slurm, folder, job)
    said = (folder / f"job-{job}.out").read_text()
    assert found["JobState"] == "COMPLETED" and found["Restarts"] == "0", said
    assert "2 processes x 1 devices = 2 (Slurm step" in said
    return folder / "run"


def test_a_preempted_job_goes_on_to_the_same_bits(slurm, undisturbed, tmp_path):
    words = (*WHOLE, "--partition=low", "--", *TRAIN, f"--workdir={tmp_path}/run")
    job = submit(slurm, tmp_path, *words)
    await_steps(tmp_path / "run")
    short = ("--partition=high", "--exclusive", "--nodes=2", "--output=/dev/null")
    slurm.call("sbatch", *short, "--wrap=sleep 2")
    found = ended(slurm, tmp_path, job)
    said = (tmp_path / f"job-{job}.out").read_text()
    assert found["JobState"] == "COMPLETED" and int(found["Restarts"]) >= 1, said
    assert re.search(r"stopped at step \d+, saved", said) and "going on at step" in said
    assert_same_bits(undisturbed, tmp_path / "run", STEPS)


def test_a_job_at_its_time_limit_goes_on_to_the_same_bits(slurm, undisturbed, tmp_path):
    limit = ("--time=1", "--stop_seconds=55")
    job = submit(slurm, tmp_path, *WHOLE, *limit, "--", *TRAIN, f"--workdir={tmp_path}/run")
    found = ended(slurm, tmp_path, job, 240)
    said = (tmp_path / f"job-{job}.out").read_text()
    assert found["JobState"] == "COMPLETED" and int(found["Restarts"]) >= 1, said
    assert_same_bits(undisturbed, tmp_path / "run", STEPS)


def test_a_cancelled_job_ends_for_good_with_everything_saved(slurm, tmp_path):
    job = submit(slurm, tmp_path, *WHOLE, "--", *TRAIN, f"--workdir={tmp_path}/run")
    await_steps(tmp_path / "run")
    slurm.call("scancel", job)
    found = ended(slurm, tmp_path, job)
    assert found["JobState"] == "CANCELLED" and found["Restarts"] == "0"
    saved = manifests.steps(str(tmp_path / "run"))
    assert saved and 0 < saved[-1] < STEPS
    manifests.verify(str(tmp_path / "run"), saved[-1])


def test_a_killed_task_ends_the_job_as_a_failure(slurm, tmp_path):
    job = submit(slurm, tmp_path, *WHOLE, "--", *TRAIN, f"--workdir={tmp_path}/run")
    await_steps(tmp_path / "run")
    mine = f"launch.train.*--workdir={tmp_path}/run"
    tasks = subprocess.run(["pgrep", "-f", f"^{sys.executable}.*{mine}"], capture_output=True)
    os.kill(int(tasks.stdout.split()[-1]), signal.SIGKILL)
    found = ended(slurm, tmp_path, job, 30)
    assert found["JobState"] == "FAILED" and found["Restarts"] == "0"


def test_a_sweep_is_an_array_whose_last_task_reports(slurm, tmp_path):
    words = ("--sweep=model.latent_dim=4,8", f"--workdir={tmp_path}/sweep", *TRAIN[1:2], *TRAIN[3:])
    words = (*words, "--config.duration=100", "--tasks=reconstruction")
    job = submit(slurm, tmp_path, "--", "sweep", *words)
    end = time.monotonic() + 120
    while slurm.ask("squeue", "--noheader", f"--jobs={job}") and time.monotonic() < end:
        time.sleep(0.5)
    assert sorted(os.listdir(tmp_path / "sweep" / "cells")) == [
        "latent_dim=4.json",
        "latent_dim=8.json",
    ]
    assert (tmp_path / "sweep" / "report.html").exists()


def test_workers_are_an_array_that_shares_the_cells_of_a_sweep(slurm, tmp_path):
    words = ("--sweep=seed=0,1,2,3,4", f"--workdir={tmp_path}/sweep", *TRAIN[1:4], *TRAIN[5:])
    words = (*words, "--config.duration=2000", "--tasks=")
    job = submit(slurm, tmp_path, "--workers=2", "--", "sweep", *words)
    end = time.monotonic() + 150
    while slurm.ask("squeue", "--noheader", f"--jobs={job}") and time.monotonic() < end:
        time.sleep(0.5)
    said = [path.read_text() for path in sorted(tmp_path.glob("job-*.out"))]
    assert len(said) == 2, said
    each = [re.findall(r"^(seed=\d): loss .* s\)$", text, re.MULTILINE) for text in said]
    assert sorted(each[0] + each[1]) == [f"seed={seed}" for seed in range(5)], said
    for seed in range(5):
        progress = manifests.progress(str(tmp_path / "sweep" / "runs" / f"seed={seed}"), 2000)
        assert progress.ledger and progress.ledger["starts"] == 1
    assert (tmp_path / "sweep" / "report.html").exists()
