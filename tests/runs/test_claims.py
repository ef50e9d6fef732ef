"""Claims: one process and one thread at a time, free when the process ends."""

import contextlib
import subprocess
import sys
import threading

import pytest

from aejax import cluster
from aejax.runs import claims, lock

HOLDS = """
import sys
from aejax.runs import claims
own = claims.claim(sys.argv[1])
assert own
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)


def test_another_process_has_it_until_it_is_killed(tmp_path):
    place = str(tmp_path / "claims" / "front" / "afa-f")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    owner = subprocess.Popen([sys.executable, "-c", HOLDS, place], text=True, **pipes)
    assert owner.stdout and owner.stdout.readline() == "held\n"
    assert claims.claim(place) is None
    said = []
    threading.Timer(0.2, owner.kill).start()
    with claims.wait(place, lambda: False, lambda: said.append(owner.poll())):
        assert owner.wait() and said == [None]  # said once, while the owner lived
        assert claims.claim(place) is None
    owner.communicate()


def test_threads_keep_one_another_out_where_the_lock_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "locked", lambda place, stop: contextlib.nullcontext())  # lets all in
    one, place = claims.claim(str(tmp_path / "x")), str(tmp_path / "." / "x")
    assert one and claims.claim(place) is None
    one.close()
    two = claims.claim(place)
    assert two
    two.close()


def test_what_fails_is_free_again(tmp_path, monkeypatch):
    locked = lock.locked

    def full(place, stop):
        raise OSError("no space left")

    monkeypatch.setattr(lock, "locked", full)
    with pytest.raises(OSError, match="no space left"):
        claims.claim(str(tmp_path))
    monkeypatch.setattr(lock, "locked", locked)
    own = claims.claim(str(tmp_path))
    assert own
    own.close()


def test_who_waits_can_be_stopped(tmp_path):
    looks = iter([False, False, True])
    with claims.wait(str(tmp_path), lambda: False), pytest.raises(cluster.Stopped):
        claims.wait(str(tmp_path), lambda: next(looks))
    assert next(looks, None) is None
