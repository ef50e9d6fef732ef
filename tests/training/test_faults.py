"""What a machine does to a long job, done to real processes: a clear line each, nothing lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aejax.runs import manifests
from tests.training.processes import ROOT, rows, run, start
from tests.training.test_processes import job_of_two

FLAGS = (
    "--config.model.latent_dim=8",
    "--config.batch_size=64",
    "--config.log_every=100",
    "--config.evaluation.every=500",
    "--config.checkpoint.every=500",
    "--config.trackers=",
)
ENDLESS = (*FLAGS, "--config.duration=100000000")


def until(there, process, seconds: float = 60) -> None:
    """Waits until something is there, while the process lives."""
    end = time.monotonic() + seconds
    while not there() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert there(), process.communicate()[1] if process.poll() is not None else "too slow"


def has_rows(workdir: Path, least: int = 1):
    """Whether metrics.jsonl has so many."""

    def there() -> bool:
        try:
            return len((workdir / "metrics.jsonl").read_bytes().splitlines()) >= least
        except FileNotFoundError:
            return False

    return there


def stopped(process) -> str:
    """Asks it to stop; what it said."""
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    return err


def test_a_terminal_that_closes_and_output_that_nobody_reads_end_nothing(tmp_path):
    process = start(tmp_path, *ENDLESS)
    until(has_rows(tmp_path), process)
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    before = len(rows(tmp_path))
    until(has_rows(tmp_path, before + 40), process)  # eight evaluations, a line each
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_output_that_is_closed_from_the_start_ends_nothing(tmp_path, closed):
    command = f"{sys.executable} -m launch.train --workdir={tmp_path} {' '.join(FLAGS)}"
    done = subprocess.run(f"{command} --config.duration=500 {closed}", shell=True, cwd=ROOT)
    assert done.returncode == 0
    assert rows(tmp_path)[-1]["step"] == 500 and manifests.steps(str(tmp_path)) == [500]


@pytest.mark.parametrize("asked", [True, False], ids=["stopped", "complete"])
def test_where_the_last_save_fails_nothing_is_said_to_be_saved(tmp_path, asked):
    assert run(tmp_path, *FLAGS, "--config.duration=500")[0] == 0
    flags = (*FLAGS, "--config.checkpoint.every=", "--config.checkpoint.minutes=0")
    duration = 100000000 if asked else 40000
    process = start(tmp_path, *flags, f"--config.duration={duration}")
    until(has_rows(tmp_path, 8), process)
    (tmp_path / "checkpoints").rename(tmp_path / "away")
    (tmp_path / "checkpoints").touch()
    if asked:
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    last = err.splitlines()[-1]
    assert last.startswith("failed: ") and "saving step" in last and "stopped at" not in err
    assert "test after" not in out


def test_a_log_that_is_removed_begins_anew_and_says_so(tmp_path):
    process = start(tmp_path, *ENDLESS)
    until(has_rows(tmp_path, 3), process)
    (tmp_path / "metrics.jsonl").unlink()
    until(has_rows(tmp_path, 3), process)
    err = stopped(process)
    assert err.count("metrics.jsonl was removed: it begins anew at step") == 1
    first = rows(tmp_path)[0]["step"]
    assert f"begins anew at step {first}\n" in err and first > 100
    steps = [row["step"] for row in rows(tmp_path) if row["split"] == "train"]
    assert steps == list(range(steps[0], steps[-1] + 1, 100)) and steps[0] - first in (0, 100)


def limited(number: int, value: int):
    """A command line that runs what follows with a limit."""
    code = (
        "import os, resource, sys;"
        f"resource.setrlimit({number}, ({value}, {value}));"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return ("python3", "-c", code)


def test_sixty_four_open_files_are_enough(tmp_path):
    prefix = limited(resource.RLIMIT_NOFILE, 64)
    code, _, err = run(tmp_path, *FLAGS, "--config.duration=1000", prefix=prefix, devices=2)
    assert code == 0, err


def test_of_too_few_open_files_the_last_line_says_so(tmp_path):
    prefix = limited(resource.RLIMIT_NOFILE, 16)
    code, _, err = run(tmp_path, *FLAGS, "--config.duration=1000", prefix=prefix)
    assert code == 1 and "Too many open files" in err.splitlines()[-1]


def test_saves_that_fail_lose_nothing_that_was_committed(tmp_path):
    """No file may have more than 4,000 bytes: what a disk that fills up does to a save."""
    assert run(tmp_path, *FLAGS, "--config.duration=500")[0] == 0
    before = (tmp_path / "metrics.jsonl").read_bytes()
    prefix = limited(resource.RLIMIT_FSIZE, 4000)
    code, _, err = run(tmp_path, *FLAGS, "--config.duration=3000", prefix=prefix)
    assert code == 1 and "Traceback" not in err, err
    assert "File too large" in err.splitlines()[-1]
    assert manifests.steps(str(tmp_path)) == [500]
    manifests.verify(str(tmp_path), 500)
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(before)
    code, _, err = run(tmp_path, *FLAGS, "--config.duration=3000")
    assert code == 0 and "going on at step 500 of 3000" in err
    assert [row["step"] for row in rows(tmp_path) if row["split"] == "test"] == [
        500 * number for number in range(1, 7)
    ]


def neither_goes_on_where_one_cannot_write(first, second) -> str:
    """From now on no file of the first may grow; its last line, once both have ended."""
    resource.prlimit(first.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    _, err = first.communicate(timeout=60)
    ended = time.monotonic()
    _, other = second.communicate(timeout=60)
    assert time.monotonic() - ended < 5
    assert (first.returncode, second.returncode) == (1, 1)
    assert "process 0 is gone; start all again" in other
    return err.splitlines()[-1]


def test_where_one_process_cannot_write_both_end_at_once(tmp_path):
    job = job_of_two()
    first, second = (start(tmp_path, *ENDLESS, *job, f"--process={n}") for n in range(2))
    until(has_rows(tmp_path, 5), first)
    assert "File too large" in neither_goes_on_where_one_cannot_write(first, second)


def test_a_save_that_fails_in_one_process_ends_both(tmp_path):
    """Orbax would wait in the other one; no row of metrics fails here, there are none."""
    job = job_of_two()
    flags = (*ENDLESS, "--config.log_every=100000", "--config.evaluation.every=", *job)
    first, second = (start(tmp_path, *flags, f"--process={n}") for n in range(2))
    until(lambda: manifests.steps(str(tmp_path)), first)
    assert "failed: saving step" in neither_goes_on_where_one_cannot_write(first, second)


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_full_disk_each_start_ends_with_a_line_that_names_the_file(disk):
    workdir, filler = disk / "run", disk / "filler"
    assert run(workdir, *FLAGS, "--config.duration=500")[0] == 0
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    for _ in range(2):
        code, _, err = run(workdir, *FLAGS, "--config.duration=3000")
        assert code == 1 and "Traceback" not in err
        assert "No space left on device" in err.splitlines()[-1] and "config.json" in err
    assert manifests.steps(str(workdir)) == [500]
    filler.unlink()
    code, _, err = run(workdir, *FLAGS, "--config.duration=1500")
    assert code == 0 and "going on at step 500 of 1500" in err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(disk):
    workdir = disk / "run"
    assert run(workdir, *FLAGS, "--config.duration=500")[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for folder in (workdir, disk / "new"):
        code, _, err = run(folder, *FLAGS, "--config.duration=600")
        assert code == 2 and err.count("\n") == 1 and "may not be written to" in err


# A clock that jumps a day ahead after two seconds, and two days back two seconds later.
JUMPS = """
import os, runpy, sys, time
os.environ["AEJAX_HUGE_PAGES"] = "1"
real, began = time.time, time.monotonic()
time.time = lambda: real() + 86400 * (0, 1, -1)[min(int(time.monotonic() - began) // 2, 2)]
sys.argv = sys.argv[3:]
sys.argv[0] = "launch.train"
runpy.run_module("launch.train", run_name="__main__", alter_sys=True)
"""


def test_a_clock_that_jumps_ends_nothing_and_seconds_are_those_that_passed(tmp_path):
    """Orbax looks at it while it saves: such a save may fail, and the next one stands."""
    began = time.monotonic()
    process = start(
        tmp_path, *ENDLESS, "--config.checkpoint.minutes=0.01", prefix=("python3", "-c", JUMPS)
    )
    until(lambda: time.monotonic() - began > 6, process)
    until(has_rows(tmp_path), process)
    err = stopped(process)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    seconds = [json.loads(line)["seconds"] for line in lines]
    assert seconds == sorted(seconds) and seconds[0] > 0, err
    assert manifests.steps(str(tmp_path))
    assert seconds[-1] < time.monotonic() - began
