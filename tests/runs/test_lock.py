"""One process at a time trains in a folder, on file systems with flock and without."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aejax.cluster import Stopped
from aejax.errors import InputError
from aejax.runs import lock, manifests
from aejax.training import trainer
from aejax.training.trainer import Trainer
from tests.training.processes import ROOT
from tests.training.runs import small, train

OWNER = {"owner": "another", "host": "another-host", "process": 7, "launch": [], "renewed": 1}

HOLDS = """
import sys, time
from aejax.runs import lock
with lock.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch):
    """Leases of tenths of a second."""
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lock, "EXPIRE_SECONDS", 0.5)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)


@pytest.fixture
def without_flock(monkeypatch):
    """A file system that has none."""

    def refused(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)


def says(folder: Path, owner: dict) -> None:
    (folder / ".lease").write_text(json.dumps(owner))


def test_a_killed_owner_of_this_machine_leaves_nothing_behind(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=rf"is training in this folder \(process {holder.pid} of"):
        lock.locked(str(tmp_path)).__enter__()
    holder.kill()
    holder.communicate()
    began = time.monotonic()
    with lock.locked(str(tmp_path)):
        assert lock.read(str(tmp_path))["process"] == os.getpid()
    assert time.monotonic() - began < lock.EXPIRE_SECONDS / 2
    assert lock.read(str(tmp_path)) == {}


def test_without_flock_a_second_one_is_refused_while_the_first_lives(
    tmp_path, quick, without_flock
):
    with (
        lock.locked(str(tmp_path)),
        pytest.raises(InputError, match="another process is training in this folder"),
    ):
        lock.locked(str(tmp_path)).__enter__()
    with lock.locked(str(tmp_path)):  # free at once
        pass


@pytest.mark.parametrize("left", [json.dumps(OWNER), "", "7\nbelong to Slurm job 3", '{"owner":'])
def test_without_flock_what_a_killed_owner_left_expires(tmp_path, quick, without_flock, left):
    (tmp_path / ".lease").write_text(left)
    said, began = [], time.monotonic()
    with lock.locked(str(tmp_path), said.append):
        assert lock.read(str(tmp_path))["host"] != "another-host"
    assert time.monotonic() - began >= lock.EXPIRE_SECONDS
    assert len(said) == 1 and "waiting up to 0.5 s" in said[0]


def test_an_owner_on_another_machine_counts_where_flock_is_kept_to_one(tmp_path, quick):
    """It has renewed its lease, though flock says that the folder is free."""
    ended = threading.Event()

    def renew():
        for number in range(1000):
            says(tmp_path, {**OWNER, "renewed": number})
            if ended.wait(0.05):
                return

    says(tmp_path, OWNER)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(InputError, match=r"\(process 7 of another-host\)"):
            lock.locked(str(tmp_path)).__enter__()
    finally:
        ended.set()
        thread.join()
    with lock.locked(str(tmp_path)):  # it was killed
        pass


def test_an_owner_whose_lock_was_removed_is_still_the_owner(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    (tmp_path / ".lock").unlink()
    said = []
    with pytest.raises(InputError, match=rf"process {holder.pid} of"):
        lock.locked(str(tmp_path), said.append).__enter__()
    assert len(said) == 1
    holder.kill()
    holder.communicate()


def test_asked_to_stop_it_waits_no_longer(tmp_path, without_flock):
    says(tmp_path, OWNER)
    asked, began = threading.Event(), time.monotonic()
    with pytest.raises(Stopped):
        lock.locked(str(tmp_path), lambda line: asked.set(), asked.is_set).__enter__()
    assert time.monotonic() - began < lock.EXPIRE_SECONDS / 2


def test_of_two_that_come_at_once_without_flock_one_is_refused(tmp_path, quick, without_flock):
    came, both = [], threading.Barrier(2)

    def come():
        both.wait()
        try:
            with lock.locked(str(tmp_path)):
                came.append("in")
                both.wait(timeout=5)
        except InputError:
            came.append("refused")
            both.wait(timeout=5)

    threads = [threading.Thread(target=come) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(came) == ["in", "refused"]


def test_an_owner_that_slept_too_long_ends_before_it_spoils_anything(tmp_path, quick, monkeypatch):
    ended = threading.Event()

    def end(folder):
        ended.set()
        monkeypatch.setattr(lock.Lease, "write", lambda lease: None)

    monkeypatch.setattr(lock, "_end", end)
    with lock.locked(str(tmp_path)):
        assert not ended.wait(0.3)
        says(tmp_path, OWNER)
        assert ended.wait(5)
    assert lock.read(str(tmp_path)) == OWNER  # which is left alone


def test_a_run_that_another_process_took_further_goes_on_from_there(tmp_path, monkeypatch):
    """A checkpoint that came after the folder was looked at, and before the lock, is used."""
    config = small(duration="100 steps")
    train(config, tmp_path)
    monkeypatch.setattr(trainer, "newest", _another_trains_first(tmp_path))
    outcome = Trainer(small(duration="200 steps"), str(tmp_path)).fit(quiet=True)
    assert outcome.status == "done" and outcome.step == 200
    # The other process's checkpoint was not set aside as if it had been damaged.
    assert 150 in manifests.steps(str(tmp_path))
    assert not list((tmp_path / "checkpoints").glob("*.damaged"))


def _another_trains_first(folder):
    real, first = trainer.newest, [True]

    def newest(*arguments):
        found = real(*arguments)
        if first.pop() if first else False:
            train(small(duration="150 steps"), folder)
        return found

    return newest
