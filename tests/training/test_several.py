"""Work that several processes share: who takes what, and when."""

import contextlib
import threading
import time

import jax
import pytest

from aejax import cluster
from aejax.runs import claims
from aejax.training.several import Shared, Work

ONE = jax.devices()[:1]


class Worker:
    """One of several processes, each a thread here, that share pieces of work.

    Attributes:
        shared: {piece: (who did it, what came out)} of all workers.
        done: the pieces that this one did, in order.
    """

    def __init__(self, name: str, pieces: str, shared: dict, act=lambda piece: None):
        self.name, self.pieces, self.shared, self.act = name, pieces, shared, act
        self.done: list[str] = []
        self.failed = False

    def make(self, piece: str) -> str:
        self.act(piece)
        assert piece not in self.shared, "done twice"
        self.done.append(piece)
        self.shared[piece] = self.name, 10 * piece
        return 10 * piece

    def known(self, piece: str) -> str | None:
        return self.shared[piece][1] if piece in self.shared else None

    def run(self, leave: bool = False, stop=lambda: False) -> list[str | None]:
        def work(piece):
            return Work(piece, lambda: self.known(piece), lambda: self.make(piece))

        def stop_others():
            self.failed = True

        shared = Shared([work(p) for p in self.pieces], lambda: self.failed or stop(), leave)
        return shared.run(ONE, stop_others)


@pytest.fixture
def held(monkeypatch):
    """What is claimed, by anybody; claims are entries of this set."""
    taken, guard = set(), threading.Lock()

    def claim(place, stop):
        with guard:
            if place in taken:
                return None
            taken.add(place)
        stack = contextlib.ExitStack()
        stack.callback(taken.discard, place)
        return stack

    monkeypatch.setattr(claims, "claim", claim)
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(cluster, "cores", lambda: 1)
    return taken


def tens(pieces: str) -> list[str]:
    return [10 * piece for piece in pieces]


def test_the_first_that_is_neither_claimed_nor_known_is_taken_first(held):
    shared = {"b": ("another", 10 * "b")}
    held |= {"a", "d"}

    def act(piece):
        if piece == "c":  # the owner of a dies meanwhile
            held.discard("a")
        if piece == "e":
            held.discard("d")

    one = Worker("one", "abcdef", shared, act)
    assert one.run() == tens("abcdef") and one.done == ["c", "a", "e", "d", "f"]
    assert not held


def test_what_has_ended_while_it_was_claimed_is_not_done_again(held, monkeypatch):
    shared, claim = {}, claims.claim

    def late(place, stop):
        shared.setdefault("a", ("another", 10 * "a"))  # between the look and the lock
        return claim(place, stop)

    monkeypatch.setattr(claims, "claim", late)
    one = Worker("one", "ab", shared)
    assert one.run() == tens("ab") and one.done == ["b"] and not held


def test_workers_share_and_all_have_the_whole(held):
    shared: dict = {}
    workers = [Worker(n, "abcdefgh", shared, lambda _: time.sleep(0.02)) for n in "123"]
    found = {}
    threads = [
        threading.Thread(target=lambda w=w: found.setdefault(w.name, w.run())) for w in workers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(found[worker.name] == tens("abcdefgh") for worker in workers)
    assert sorted(piece for worker in workers for piece in worker.done) == list("abcdefgh")
    assert all(len(worker.done) >= 2 for worker in workers)


def test_who_may_leave_does_where_others_have_the_rest(held):
    held |= {"b"}
    one = Worker("one", "abc", {})
    assert one.run(leave=True) == [10 * "a", None, 10 * "c"] and held == {"b"}


def test_as_long_as_it_has_work_itself_it_takes_over_from_the_dead(held, monkeypatch):
    """Two threads: one still works when the owner of the last piece dies."""
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    held |= {"b"}
    taken_over = threading.Event()

    def act(piece):
        if piece == "a":
            held.discard("b")
            assert taken_over.wait(30)
        else:
            taken_over.set()

    one = Worker("one", "ab", {}, act)
    assert one.run(leave=True) == tens("ab")


def test_a_thread_without_work_ends_with_the_last_one(held, monkeypatch):
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    monkeypatch.setattr(claims, "POLL_SECONDS", 60)
    begun, shared = time.monotonic(), {}
    assert Worker("one", "a", shared, lambda _: time.sleep(0.2)).run() == tens("a")
    assert Worker("two", "a", shared).run() == tens("a")
    assert time.monotonic() - begun < 30


def test_what_fails_is_not_tried_by_another_thread(held, monkeypatch):
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    tried = []

    def act(piece):
        tried.append(piece)
        time.sleep(0.1)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Worker("one", "a", {}, act).run()
    assert tried == ["a"] and not held


def test_who_waits_can_be_stopped_and_holds_nothing(held):
    held |= {"a"}
    looks = iter([False] * 5)
    with pytest.raises(cluster.Stopped):
        Worker("one", "ab", {}).run(stop=lambda: next(looks, True))
    assert held == {"a"}


def test_where_one_fails_no_more_is_taken_and_its_claim_is_free(held):
    def act(piece):
        if piece == "b":
            raise OSError("disk full")

    one = Worker("one", "abc", {}, act)
    with pytest.raises(OSError, match="disk full"):
        one.run()
    assert one.done == ["a"] and not held


def test_the_processes_of_one_job_claim_nothing_and_do_all(held, monkeypatch):
    """What is skipped must be the same on all of them: they train together, in one order."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    held |= {"a", "b"}
    one = Worker("one", "ab", {})
    assert one.run() == tens("ab") and one.done == ["a", "b"]
