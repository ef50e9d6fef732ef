"""Processes of a job find one another, and each says in one line what is wrong with the others."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from aejax import cluster, rendezvous
from aejax.errors import InputError
from aejax.rendezvous import Job, NotJoined


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def job(port: int, processes: int, process: int, name="runs/a", seconds=10.0) -> Job:
    return Job("127.0.0.1", port, processes, process, name, seconds)


def gather(*jobs: Job) -> list:
    """What each of these processes, in threads, gets or is told."""
    out: list = [None] * len(jobs)

    def one(number: int, job: Job) -> None:
        try:
            out[number] = rendezvous.meet(job)
        except NotJoined as error:
            out[number] = str(error)

    threads = [threading.Thread(target=one, args=each) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    # What JAX does once all are there: process 0 listens again.
    with contextlib.suppress(OSError), socket.socket() as jax:
        while any(thread.is_alive() for thread in threads) and out[0] is None:
            time.sleep(0.01)
        jax.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        jax.bind(("127.0.0.1", jobs[0].port))
        jax.listen()
        for thread in threads:
            thread.join()
    return out


def close(met: list) -> None:
    for each in met:
        for own in each.values() if isinstance(each, dict) else ():
            own.close()


def test_all_come_in_any_order(port):
    jobs = [job(port, 3, process) for process in (0, 2, 1)]
    met = gather(*jobs)
    assert [sorted(each) for each in met] == [[1, 2], [0], [0]]
    met[0][2].send("for 2")
    assert met[1][0].line(1) == "for 2"
    close(met)


def test_each_is_told_who_is_missing(port):
    met = gather(*(job(port, 5, process, seconds=0.6) for process in (0, 2)))
    said = f"processes 1, 3 and 4 of 5 did not come to 127.0.0.1:{port} in 1 s (--connect_seconds)"
    assert [each.partition(";")[0] for each in met] == [said, said]


def test_process_0_is_missing(port):
    with pytest.raises(NotJoined, match=rf"process 0 of 2 was not at 127.0.0.1:{port} in 0 s"):
        rendezvous.meet(job(port, 2, 1, seconds=0.3))


def test_a_port_that_another_program_uses(port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        asked = time.monotonic()
        with pytest.raises(NotJoined, match=f"port {port} is used by another program or job"):
            rendezvous.meet(job(port, 2, 0))
        assert time.monotonic() - asked < 4


def test_an_address_of_another_machine():
    asked = time.monotonic()
    with pytest.raises(NotJoined, match="192.0.2.1 is no address of this machine"):
        rendezvous.meet(Job("192.0.2.1", 5000, 2, 0, "", 10))
    assert time.monotonic() - asked < 1


@pytest.mark.parametrize(
    ("third", "said"),
    [
        ({"process": 1}, "process 1 is there already: two were started with --process=1"),
        ({"process": 2, "name": "runs/b"}, "belongs to the job of runs/a, not of runs/b"),
    ],
)
def test_one_that_does_not_belong_is_refused_and_the_others_go_on(port, third, said):
    jobs = [job(port, 3, 0), job(port, 3, 1), job(port, 3, **third), job(port, 3, 2)]
    *_, refused, last = met = gather(*jobs)
    assert said in refused and sorted(met[0]) == [1, 2] and sorted(last) == [0]
    close(met)


def test_other_numbers_of_processes_end_the_job(port):
    met = gather(job(port, 3, 0), job(port, 3, 1), job(port, 2, 1))
    said = "--processes=2 of process 1 and --processes=3 of process 0 must be the same"
    assert all(said in each for each in met)


def test_what_knocks_by_chance_is_sent_away(port):
    def knock() -> None:
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(b"GET / HTTP/1.1\r\n\r\n[1]\n")
            other.recv(100)

    knocking = threading.Timer(0.2, knock)
    knocking.start()
    late = job(port, 2, 1)
    threading.Timer(0.4, lambda: gather_one(late)).start()
    assert sorted(rendezvous.meet(job(port, 2, 0))) == [1]
    knocking.join()


def test_one_that_leaves_before_all_are_there_may_come_again(port, monkeypatch):
    host = threading.Thread(target=lambda: close([rendezvous.meet(job(port, 3, 0))]))
    host.start()
    rendezvous._await_jax(job(port, 3, 1), rendezvous.Connection(socket.socket()))  # it listens
    own = rendezvous._dial(job(port, 3, 1), 1)
    rendezvous._tell([own], job="runs/a", processes=3, process=1, seconds=5)
    assert own.line(1) == '{"welcome": true}'
    own.close()
    monkeypatch.setattr(rendezvous, "_await_jax", lambda *_: None)
    assert [sorted(each) for each in gather(job(port, 3, 1), job(port, 3, 2))] == [[0], [0]]
    host.join()


def test_one_that_has_left_may_knock_at_once(port, monkeypatch):
    """Process 0 sees both together, whichever its system names first."""
    select, again = rendezvous.selectors.DefaultSelector.select, threading.Event()

    def both(self, timeout=None):
        if len(self.get_map()) > 1:
            again.wait()
        events = select(self, timeout)
        return sorted(events, key=lambda one: isinstance(one[0].fileobj, rendezvous.Connection))

    monkeypatch.setattr(rendezvous.selectors.DefaultSelector, "select", both)
    host = threading.Thread(target=lambda: close([rendezvous.meet(job(port, 3, 0))]))
    host.start()
    rendezvous._await_jax(job(port, 3, 1), rendezvous.Connection(socket.socket()))  # it listens
    hello = {"job": "runs/a", "processes": 3, "seconds": 5}
    first, second = (_knock(port, process=1, **hello) for _ in range(2))
    third = _knock(port, process=2, **hello)
    assert first.line(1) == '{"welcome": true}'
    first.close()
    again.set()
    assert second.line(3) == third.line(3) == '{"welcome": true}'
    host.join()


def _knock(port, **hello) -> rendezvous.Connection:
    own = rendezvous._dial(job(port, 3, hello["process"]), 1)
    rendezvous._tell([own], **hello)
    return own


def test_others_wait_for_a_process_0_that_leaves_before_all_are_there(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.1)
    monkeypatch.setattr(rendezvous, "_await_jax", lambda *_: None)
    guest = threading.Thread(target=gather_one, args=(job(port, 2, 1),))
    with rendezvous._listener(job(port, 2, 0)) as server:
        guest.start()
        own = rendezvous.Connection(server.accept()[0])
        assert own.line(1)
        rendezvous._tell([own], welcome=True)
        time.sleep(0.3)
    own.close()  # nobody listens any more: it would take the next one for a stranger
    assert sorted(rendezvous.meet(job(port, 2, 0))) == [1]
    guest.join()


def gather_one(late: Job) -> None:
    with contextlib.suppress(NotJoined):
        rendezvous.meet(late)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("localhost:99999", 2, 0), "port 1 to 65535"),
        (("localhost:0", 2, 0), "port 1 to 65535"),
        (("localhost:http", 2, 0), "must be HOST:PORT"),
        (("localhost:5000", 0, 0), "--processes=0: must be at least 1"),
        (("", -1, 0), "--processes=-1: must be at least 1"),
        (("localhost:5000", 2, -1), "--process=-1: must be 0 to 1"),
        (("localhost:5000", 2, 0, "", 0.0), "--connect_seconds=0: must be above 0"),
    ],
)
def test_numbers_that_cannot_be(settings, said):
    with pytest.raises(InputError, match=said):
        cluster.connect(*settings)


# A process of a job without JAX: it meets the others, watches, and does what it is told.
_PROCESS = """
import sys, time
from aejax import rendezvous
own, port, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jobs = rendezvous.Job("127.0.0.1", port, 3, own, "", 20)
rendezvous._await_jax = lambda *_: None
rendezvous._BEAT_SECONDS = float(sys.argv[4])
watch = rendezvous.Watch(own, rendezvous.meet(jobs))
watch.start()
print("joined", flush=True)
sys.stdin.readline()
if how == "leave":
    watch.leave()
    sys.exit(75)
watch.done()
time.sleep(2 * 10 * 0.05 if own == 1 else 0)
"""


@pytest.fixture
def three(port):
    """Starts three such processes that end in the same way."""
    started = []

    def start(how: str, beat: float = 0.05) -> list[subprocess.Popen]:
        for number in range(3):
            command = [sys.executable, "-c", _PROCESS, str(number), str(port), how, str(beat)]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            started.append(subprocess.Popen(command, text=True, **pipes))
        for each in started:
            assert each.stdout.readline() == "joined\n"
        return started

    yield start
    for each in started:
        each.kill()
        each.communicate()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_all_say_who_is_gone(three, number, how):
    processes = three("done")
    processes[number].send_signal(how)
    for other in {0, 1, 2} - {number}:
        assert processes[other].wait(5) == 1
        assert processes[other].stderr.read() == f"process {number} is gone; start all again\n"


@pytest.mark.parametrize(("how", "code"), [("done", 0), ("leave", 75)])
def test_processes_that_end_on_purpose_end_in_silence(three, how, code):
    processes = three(how)
    for each in processes:
        each.stdin.write("\n")
        each.stdin.flush()
    assert [each.wait(5) for each in processes] == [code] * 3
    assert [each.stderr.read() for each in processes] == [""] * 3


def test_where_one_leaves_alone_the_others_follow(three):
    processes = three("leave")
    processes[1].stdin.write("\n")
    processes[1].stdin.flush()
    assert processes[1].wait(5) == 75
    for other in (0, 2):
        assert processes[other].wait(5) == 1
        assert processes[other].stderr.read() == "process 1 is gone; start all again\n"


def test_process_0_does_not_wait_for_those_that_have_left_before_it(three):
    processes = three("leave", beat=1.0)
    for number in (1, 2):
        processes[number].stdin.write("\n")
        processes[number].stdin.flush()
        assert processes[number].wait(5) == 75
    processes[0].stdin.write("\n")
    processes[0].stdin.flush()
    assert processes[0].wait(5) == 75  # it waits twelve seconds for one that goes on
