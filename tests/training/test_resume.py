"""A killed run ends with the same bits; a stopped one saves, and says so by its exit code."""

import random
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.training.processes import assert_same_bits, rows, run, start

FLAGS = (
    "--config.data.source=digits",
    "--config.batch_size=64",
    "--config.optimizer=adam",
    "--config.optimizer.schedule=cosine",
    "--config.optimizer.ema=0.99",
    "--config.data.prepare.shift=1",
    "--config.log_every=300",
)
STEPS = 2000
SHORT = (*FLAGS, f"--config.duration={STEPS}", "--config.evaluation.every=1000")
EVERY = "--config.checkpoint.every=250"

# Runs a program that gets a signal at one moment of its own, whatever the machine's speed.
AT = """
import importlib.abc, os, runpy, signal, sys

where, number, asked = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.environ["AEJAX_HUGE_PAGES"] = "1"  # as the process that starts once more for them

def gets_it():
    if not os.path.exists(asked):
        open(asked, "w").close()
        os.kill(os.getpid(), number)

class Importing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "aejax.training.loop":
            gets_it()

def at(owner, name, due):
    run = getattr(owner, name)
    def changed(*arguments, **options):
        if due(*arguments):
            gets_it()
        return run(*arguments, **options)
    setattr(owner, name, changed)

if where == "import":
    sys.meta_path.insert(0, Importing())
else:
    from aejax import files
    from aejax.training import loop, setup
    if where == "compilation":
        at(setup.Setup, "compile", lambda *_: True)
    if where == "window":  # between two rows of the log
        at(loop.Loop, "dispatch", lambda run: run.step > 400 and run.step % 300)
    if where == "save":  # what Orbax committed has no manifest yet
        at(files, "write", lambda path, *_: path.endswith("000001000.json"))
    if where == "last evaluation":
        at(loop.Loop, "evaluate", lambda run: run.step == run.setup.total)
sys.argv = sys.argv[6:]
sys.argv[0] = "launch.train"
runpy.run_module("launch.train", run_name="__main__", alter_sys=True)
"""


def gets(number: int, where: str, workdir: Path, *flags: str):
    """Starts a run that gets this signal there; a file tells when it did."""
    asked = workdir.with_name(f"asked-{where}")
    prefix = (sys.executable, "-c", AT, where, str(int(number)), str(asked))
    return start(workdir, *flags, prefix=prefix), asked


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("short")
    code, _, err = run(workdir, *SHORT)
    assert code == 0, err
    assert rows(workdir)[-1]["step"] == STEPS
    return workdir


def test_killed_at_five_moments_it_ends_with_the_same_bits(short, tmp_path):
    workdir = tmp_path / "cut"
    for where, saving in (
        ("import", EVERY),
        ("compilation", EVERY),
        ("window", EVERY),
        ("save", EVERY),
        ("last evaluation", "--config.checkpoint.minutes=0.003"),  # by the clock
    ):
        process, asked = gets(signal.SIGKILL, where, workdir, *SHORT, saving)
        _, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL and asked.exists(), (where, err)
    code, _, err = run(workdir, *SHORT)
    assert code == 0 and "going on at step" in err, err
    assert_same_bits(short, workdir, STEPS)


def test_stopped_on_request_saves_and_goes_on(short, tmp_path):
    workdir = tmp_path / "stopped"
    for number in (signal.SIGTERM, signal.SIGINT):
        process, asked = gets(number, "window", workdir, *SHORT, EVERY)
        while process.poll() is None and not asked.exists():
            time.sleep(0.01)
        since = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        assert time.monotonic() - since < 5
        asked.unlink()
    code, _, err = run(workdir, *SHORT)
    assert code == 0 and "going on at step" in err
    assert_same_bits(short, workdir, STEPS)


@pytest.mark.parametrize("where", ["import", "compilation"])
def test_stopped_while_starting_or_compiling(tmp_path, where):
    process, asked = gets(signal.SIGTERM, where, tmp_path / "run", *SHORT)
    while process.poll() is None and not asked.exists():
        time.sleep(0.01)
    since = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert time.monotonic() - since < 5


def test_stopped_before_a_line_was_run_nothing_is_lost(tmp_path):
    process = start(tmp_path, *SHORT)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    # The signal's own default ends the process.
    assert process.returncode in (75, -signal.SIGTERM), err


@pytest.mark.slow
def test_done_is_said_and_more_steps_go_on(tmp_path):
    assert run(tmp_path, *FLAGS, "--config.duration=600")[0] == 0
    code, out, err = run(tmp_path, *FLAGS, "--config.duration=900")
    assert code == 0 and "going on at step 600 of 900" in err and "schedules follow" in err
    # The folder alone goes on with its own settings.
    code, out, err = run(tmp_path)
    assert code == 0 and "is complete: 900 steps" in out
    code, out, err = run(tmp_path, *FLAGS, "--config.duration=900", "--config.seed=1")
    assert code == 2 and "config.seed: 0 -> 1" in err and err.count("\n") == 1


# The same at twenty random moments, in minutes: python -m pytest -m soak

LONG_STEPS = 40_000
LONG = (*FLAGS, f"--config.duration={LONG_STEPS}", "--config.evaluation.every=1000")


class Unbroken(NamedTuple):
    """A run that nothing disturbed, and the seconds before its first step's record and after."""

    workdir: Path
    before: float
    after: float


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Unbroken:
    workdir = tmp_path_factory.mktemp("unbroken")
    started = time.monotonic()
    process = start(workdir, *LONG)
    while process.poll() is None and not (workdir / "metrics.jsonl").exists():
        time.sleep(0.005)
    begun = time.monotonic()
    err = process.communicate()[1]
    assert process.returncode == 0, err
    assert rows(workdir)[-1]["step"] == LONG_STEPS
    return Unbroken(workdir, begun - started, time.monotonic() - begun)


@pytest.mark.soak
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
        process = start(tmp_path, *LONG, saving)
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
    code, _, err = run(tmp_path, *LONG, saving)
    assert code == 0, err
    assert killed == kills, f"the run was over after {killed} kills: make it longer"
    assert_same_bits(unbroken.workdir, tmp_path, LONG_STEPS)
