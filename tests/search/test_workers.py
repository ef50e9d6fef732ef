"""Real processes that work on one search."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aejax.runs import manifests
from tests.training import processes

SMALL = (
    "--config=search_copy",
    "--config.run.model.coder.encoder_layout=fff",
    "--config.encoder_space=faw",
    "--config.run.model.coder.width=8",
    "--config.run.duration=24 steps",
    "--config.run.checkpoint.every=5",
    "--config.run.log_every=1",
    "--config.supernet.duration=30 steps",
    "--config.supernet.patient=False",
    "--config.replacement.imitation=20 steps",
    "--config.replacement.tuning=10 steps",
    "--config.learned=100",
    "--config.margin=100",
    "--config.price=parameters",
    "--config.run.model.coder.feed_forward=64",
    "--config.judged=100",
    "--config.trials=3",
    "--config.seeds=2",
    "--config.controls=aaf",
    "--config.latency=False",
)
FILES = ("supernet.json", "scores.json", "replacement.json", "trials-1.json", "layouts.json")


def start(workdir: Path) -> subprocess.Popen:
    return processes.start(workdir, *SMALL, program="search")


def trained(said: str) -> set[str]:
    """The runs of which a worker has told steps."""
    return set(re.findall(r"^(\S+): step \d", said, re.MULTILINE))


def starts(workdir: Path) -> dict[str, int]:
    """How often each run was started."""
    out = {}
    for path in workdir.rglob("config.json"):
        place = str(path.parent)
        ledger = manifests.progress(place, manifests.steps(place)[-1]).ledger
        assert ledger
        out[str(path.parent.relative_to(workdir))] = ledger["starts"]
        steps = [row["step"] for row in processes.rows(path.parent) if row["split"] == "train"]
        assert steps == list(range(1, len(steps) + 1)), place
    return out


def until(true: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits for something that a process does while it lives."""
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A search by one process. Do not change."""
    path = tmp_path_factory.mktemp("alone")
    process = start(path)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return path, out


def assert_same(workdir: Path, alone: Path) -> None:
    """All that was decided and measured, byte for byte."""
    for name in FILES:
        assert (workdir / name).read_bytes() == (alone / name).read_bytes(), name
    outcomes = [path.relative_to(alone) for path in alone.rglob("outcome.json")]
    assert len(outcomes) == len(list(workdir.rglob("outcome.json"))) == 4 + 3 + 8
    for path in outcomes:
        assert (workdir / path).read_bytes() == (alone / path).read_bytes(), path


@pytest.mark.slow
def test_two_processes_train_each_run_once_and_give_the_same(alone, tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    # Both end with the whole, each run was one process's.
    tables = [out.partition("report:")[0] for out, _ in ended]
    assert tables == [alone[1].partition("report:")[0]] * 2
    shares = [trained(said) for _, said in ended]
    every = starts(alone[0])
    assert shares[0] | shares[1] == every.keys() and not shares[0] & shares[1] and all(shares)
    assert starts(tmp_path) == every and {*every.values()} == {1}
    assert_same(tmp_path, alone[0])


@pytest.mark.slow
def test_what_a_killed_process_did_is_taken_over(alone, tmp_path):
    first = start(tmp_path)
    until(lambda: any(tmp_path.glob("supernet/checkpoints/*.json")), first)
    os.kill(first.pid, signal.SIGSTOP)  # it keeps its locks
    assert not (tmp_path / "supernet.json").exists() and not (tmp_path / "parent").exists()
    second = start(tmp_path)
    until((tmp_path / "parent").exists, second)  # the second does what does not need the supernet
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    out, said = second.communicate(timeout=300)
    assert second.returncode == 0 and "report:" in out, said
    assert "supernet: going on at step" in said
    assert starts(tmp_path) == {**starts(alone[0]), "supernet": 2}
    assert_same(tmp_path, alone[0])
