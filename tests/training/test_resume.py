"""A killed run ends with the same bits; a stopped one saves, and says so by its exit code."""

import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.training.processes import assert_same_bits, rows, run, start

STEPS = 40_000
FLAGS = (
    "--config.data.source=digits",
    f"--config.duration={STEPS}",
    "--config.batch_size=64",
    "--config.optimizer=adam",
    "--config.optimizer.schedule=cosine",
    "--config.optimizer.ema=0.99",
    "--config.data.prepare.shift=1",
    "--config.log_every=300",
    "--config.evaluation.every=1000",
)


class Unbroken(NamedTuple):
    """A run that nothing disturbed, and the seconds before its first step's record and after."""

    workdir: Path
    before: float
    after: float


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Unbroken:
    workdir = tmp_path_factory.mktemp("unbroken")
    started = time.monotonic()
    process = start(workdir, *FLAGS)
    while process.poll() is None and not (workdir / "metrics.jsonl").exists():
        time.sleep(0.005)
    begun = time.monotonic()
    err = process.communicate()[1]
    assert process.returncode == 0, err
    assert rows(workdir)[-1]["step"] == STEPS
    return Unbroken(workdir, begun - started, time.monotonic() - begun)


@pytest.mark.parametrize(
    ("saving", "kills"),
    [
        ("--config.checkpoint.every=250", 7),
        ("--config.checkpoint.every=777", 7),  # in the middle of log windows
        ("--config.checkpoint.minutes=0.003", 6),  # by the clock, wherever that falls
    ],
)
def test_killed_at_random_moments_ends_with_the_same_bits(unbroken, tmp_path, saving, kills):
    chance = random.Random(saving)
    killed = 0
    while killed < kills:
        process = start(tmp_path, *FLAGS, saving)
        # From the first imports, through compilation, to the middle of saves; on a machine of any
        # speed too early to get to the end.
        wait = chance.uniform(0.3, unbroken.before + unbroken.after / kills)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[1]
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    code, _, err = run(tmp_path, *FLAGS, saving)
    assert code == 0, err
    assert killed == kills, f"the run was over after {killed} kills: make it longer"
    assert_same_bits(unbroken.workdir, tmp_path, STEPS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_on_request_saves_and_goes_on(unbroken, tmp_path, number):
    process = start(tmp_path, *FLAGS)
    while process.poll() is None and not (tmp_path / "checkpoints").exists():
        time.sleep(0.01)
    process.send_signal(number)
    asked = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert time.monotonic() - asked < 5
    code, _, err = run(tmp_path, *FLAGS)
    assert code == 0 and "going on at step" in err
    assert_same_bits(unbroken.workdir, tmp_path, STEPS)


@pytest.mark.parametrize("wait", [0.2, 1.5, 2.2, 2.8])
def test_stopped_while_starting_or_compiling(tmp_path, wait):
    process = start(tmp_path, *FLAGS)
    time.sleep(wait)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, err = process.communicate(timeout=60)
    # Before Python has run a line, the signal's own default ends the process: nothing is lost.
    assert process.returncode in ((75, -signal.SIGTERM) if wait < 1 else (75,)), err
    assert time.monotonic() - asked < 5


def test_done_is_said_and_more_steps_go_on(tmp_path):
    flags = [flag for flag in FLAGS if "duration" not in flag]
    assert run(tmp_path, *flags, "--config.duration=600")[0] == 0
    code, out, err = run(tmp_path, *flags, "--config.duration=600")
    assert code == 0 and "is complete: 600 steps" in out
    code, out, err = run(tmp_path, *flags, "--config.duration=900")
    assert code == 0 and "going on at step 600 of 900" in err and "schedules follow" in err
    # The folder alone goes on with its own settings.
    code, out, err = run(tmp_path)
    assert code == 0 and "is complete: 900 steps" in out
    code, out, err = run(tmp_path, *flags, "--config.duration=900", "--config.seed=1")
    assert code == 2 and "config.seed: 0 -> 1" in err and err.count("\n") == 1
