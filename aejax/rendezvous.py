"""The processes of a job find one another, and notice when one of them is gone.

JAX's own runtime waits for whoever is missing, does not say who, and ends the process in C++ where
nothing can be caught. So the processes meet here before it starts: process 0 listens at the
coordinator's port, the others come and say their numbers. Then JAX takes the port. The connections
stay open: the kernel closes those of a process that dies, and one that hangs stops sending.
"""

import contextlib
import errno
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

# A process that sends nothing for so many beats is gone; so is one that said that it leaves and
# whose others have not ended so many beats later.
_BEATS = 10
_BEAT_SECONDS = 1.0
# How long a port may be in use, or be answered by another program, before a line says so.
_PATIENCE = 2.0
_SHOWN = 16
_ALONE = " (--coordinator=none: each a run of its own)"


class NotJoined(Exception):
    """The processes of a job did not come together; the message says which are missing, or why."""


@dataclass(frozen=True)
class Job:
    """What a process knows of its job.

    Attributes:
        host: at which process 0 listens.
        port: of process 0.
        processes: how many there are.
        process: the number of this one.
        name: the same for all processes of a job, another for other jobs.
        seconds: how long this one waits for the others.
        listen: where process 0 listens instead of there; "" for all addresses of its machine.
    """

    host: str
    port: int
    processes: int
    process: int
    name: str
    seconds: float
    listen: str | None = None

    @property
    def place(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection:
    """A socket that carries lines."""

    def __init__(self, own: socket.socket):
        self.socket = own
        self._rest = b""
        self._lines: list[str] = []
        own.settimeout(_PATIENCE)

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    def send(self, line: str) -> None:
        """Sends a line; a broken connection is noticed by who reads it."""
        with contextlib.suppress(OSError):
            self.socket.sendall(line.encode() + b"\n")

    def receive(self) -> list[str] | None:
        """The lines that came, perhaps none yet; None at the connection's end."""
        try:
            came = self.socket.recv(4096)
        except OSError:
            came = b""
        if not came:
            return None
        *whole, self._rest = (self._rest + came).split(b"\n")
        lines = self._lines + [line.decode(errors="replace") for line in whole]
        self._lines = []
        return lines

    def line(self, seconds: float) -> str | None:
        """The next line; None when none comes, or too much that is no line."""
        end = time.monotonic() + seconds
        while not self._lines and (left := end - time.monotonic()) > 0 and len(self._rest) < 4096:
            self.socket.settimeout(left)
            if (lines := self.receive()) is None:
                break
            self._lines = lines
        with contextlib.suppress(OSError):
            self.socket.settimeout(_PATIENCE)
        return self._lines.pop(0) if self._lines else None

    def close(self) -> None:
        self.socket.close()


def meet(job: Job) -> dict[int, Connection]:
    """Waits until all processes are there; then the port is free for JAX.

    Returns:
        Process 0's connections to all others, or the one of another process to process 0.

    Raises:
        NotJoined: some did not come within the time, or it cannot be; in one line.
    """
    return _host(job) if job.process == 0 else {0: _visit(job)}


def names(numbers: Iterable[int]) -> str:
    """ "process 1", "processes 1, 2 and 4"."""
    words = [str(number) for number in sorted(numbers)]
    if len(words) > _SHOWN:
        words = [*words[:_SHOWN], f"{len(words) - _SHOWN} more"]
    start = ", ".join(words[:-1])
    return f"processes {start} and {words[-1]}" if start else f"process {words[-1]}"


def _missing(job: Job, numbers: Iterable[int], since: float) -> NotJoined:
    return NotJoined(
        f"{names(numbers)} of {job.processes} did not come to {job.place} in"
        f" {time.monotonic() - since:.0f} s (--connect_seconds); start all again"
    )


def _host(job: Job) -> dict[int, Connection]:
    """Process 0: listens until every other has come; who left is noticed before who knocks."""
    since = time.monotonic()
    here: dict[int, Connection] = {}
    end = since + job.seconds
    with _listener(job) as server, selectors.DefaultSelector() as ready:
        ready.register(server, selectors.EVENT_READ)
        try:
            while len(here) < job.processes - 1:
                if (left := end - time.monotonic()) <= 0:
                    lacking = [n for n in range(1, job.processes) if n not in here]
                    _tell(here.values(), missing=lacking)
                    raise _missing(job, lacking, since)
                events = sorted(ready.select(left), key=lambda one: one[0].fileobj is server)
                for key, _ in events:
                    if key.fileobj is server:
                        if guest := _welcome(job, server, here):
                            number, own, seconds = guest
                            here[number] = own
                            ready.register(own, selectors.EVENT_READ, number)
                            end = min(end, time.monotonic() + seconds)
                    elif here[key.data].receive() is None:
                        ready.unregister(here[key.data])  # it may be started again
                        here.pop(key.data).close()
        except BaseException:
            for own in here.values():
                own.close()
            raise
    _tell(here.values(), go=True)
    return here


def _welcome(
    job: Job, server: socket.socket, here: dict[int, Connection]
) -> tuple[int, Connection, float] | None:
    """Whoever knocks, if it belongs here: its number, the connection, and how long it waits."""
    try:
        own = Connection(server.accept()[0])
    except OSError:
        return None
    said = _read(own.line(_PATIENCE))
    try:
        name, processes = str(said["job"]), int(said["processes"])
        number, seconds = int(said["process"]), float(said["seconds"])
    except (KeyError, TypeError, ValueError):
        own.close()  # something else that looked for an open port
        return None
    problem = ""
    if name != job.name:
        problem = f"{job.place} belongs to the job of {job.name}, not of {name}{_ALONE}"
    elif processes != job.processes:
        problem = (
            f"--processes={processes} of process {number} and --processes={job.processes} of"
            " process 0 must be the same; start all again"
        )
    elif number in here or not 0 < number < job.processes:
        problem = f"process {number} is there already: two were started with --process={number}"
    _tell([own], **({"refused": problem} if problem else {"welcome": True}))
    if not problem:
        return number, own, seconds
    own.close()
    if name == job.name and processes != job.processes:
        _tell(here.values(), refused=problem)
        raise NotJoined(problem)
    return None


def _visit(job: Job) -> Connection:
    """Another process: comes to process 0, and waits for its word."""
    since, stranger, why = time.monotonic(), 0.0, ""
    end = since + job.seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        try:
            own = _dial(job, min(_PATIENCE, max(end - begun, 0.1)))
        except OSError as error:
            stranger, why = 0.0, error.strerror or str(error)
            time.sleep(0.1)
            continue
        left = max(end - time.monotonic(), 0.1)
        hello = {"job": job.name, "processes": job.processes, "process": job.process}
        _tell([own], **hello, seconds=left)
        said = _read(own.line(3 * _PATIENCE))
        if "welcome" in said:
            stranger = 0.0
            said = _read(own.line(left + _PATIENCE))  # process 0 looks at the time for all
            if not said:  # it left before all were there, and may be started again
                own.close()
                continue
        if "go" in said:
            _await_jax(job, own)
            return own
        own.close()
        if "refused" in said:
            raise NotJoined(said["refused"])
        if "missing" in said:
            raise _missing(job, said["missing"], since)
        why = "it does not answer as one that waits for this one"
        stranger += time.monotonic() - begun + 0.2
        if stranger > _PATIENCE:
            raise NotJoined(
                f"port {job.port} of {job.host} is used by another program or job, or by one that"
                f" began without process {job.process}"
            )
        time.sleep(0.2)
    raise NotJoined(
        f"process 0 of {job.processes} was not at {job.place} in {job.seconds:.0f} s"
        f" (--connect_seconds): {why}; start all again"
    )


def _dial(job: Job, seconds: float) -> Connection:
    own = socket.create_connection((job.host, job.port), seconds)
    if own.getsockname() == own.getpeername():  # TCP can meet itself where nobody listens
        own.close()
        raise OSError(errno.ECONNREFUSED, "Connection refused")
    return Connection(own)


def _await_jax(job: Job, own: Connection) -> None:
    """Waits until JAX listens in process 0: its client would try again only a second later."""
    end = time.monotonic() + _BEATS
    while time.monotonic() < end:
        try:
            _dial(job, _PATIENCE).close()
            return
        except OSError:
            time.sleep(0.01)


def _listener(job: Job) -> socket.socket:
    """Listens at the coordinator's port; a job that ends may hold it for a moment yet."""
    end = time.monotonic() + _PATIENCE
    while True:
        error = None
        host = job.host if job.listen is None else job.listen
        for family, kind, number, _, address in addresses(host, job.port):
            own = socket.socket(family, kind, number)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                own.bind(address)
                own.listen(max(job.processes, 16))
                return own
            except OSError as caught:
                own.close()
                error = caught
        assert error is not None
        if error.errno == errno.EADDRNOTAVAIL:
            raise NotJoined(
                f"--coordinator={job.place}: {job.host} is no address of this machine, which has"
                " process 0"
            )
        if error.errno != errno.EADDRINUSE:
            raise NotJoined(
                f"--coordinator={job.place}: process 0 may not listen there ({error.strerror})"
            )
        if time.monotonic() > end:
            raise NotJoined(
                f"--coordinator={job.place}: port {job.port} is used by another program or job;"
                " JAX_COORDINATOR_PORT gives another to all processes"
            )
        time.sleep(0.1)


def addresses(host: str, port: int) -> list[Any]:
    """What `socket.getaddrinfo` finds for TCP; where to listen everywhere for the host ""."""
    flags = 0 if host else socket.AI_PASSIVE
    return socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)


def _tell(to: Iterable[Connection], **said: Any) -> None:
    for each in to:
        each.send(json.dumps(said))


def _read(line: str | None) -> dict[str, Any]:
    try:
        said = json.loads(line or "")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class Watch(threading.Thread):
    """Ends this process with one line when another of its job is gone.

    Process 0 watches all others and tells them; the others watch process 0.
    """

    def __init__(self, process: int, others: dict[int, Connection]):
        super().__init__(name="watch", daemon=True)
        self._process, self._others = process, others
        self._leaving = False
        self._ending, self._alone = threading.Event(), threading.Event()

    def done(self) -> None:
        """This process has done its work, and meets the others once more in JAX's shutdown."""
        self._leaving = True

    def leave(self) -> None:
        """Says that this process ends on purpose; process 0 waits until the others have ended too.

        JAX's clients abort at once when process 0 ends.
        """
        self._leaving = True
        for each in self._others.values():
            each.send("bye")
        if self._process == 0:
            self._alone.wait((_BEATS + 2) * _BEAT_SECONDS)

    def exit_if_peer_died(self) -> None:
        """After an error: gives this thread the time to say that it came from another's end."""
        if self._ending.wait(_BEAT_SECONDS):
            threading.Event().wait()

    def run(self) -> None:
        left = dict.fromkeys(self._others, _BEATS)
        said_bye, closed = set[int](), set[int]()
        beat = time.monotonic() + _BEAT_SECONDS
        with selectors.DefaultSelector() as ready:
            for number, own in self._others.items():
                ready.register(own, selectors.EVENT_READ, number)
            while left:
                for key, _ in ready.select(max(beat - time.monotonic(), 0)):
                    number = key.data
                    lines = self._others[number].receive()
                    if lines is None:
                        ready.unregister(self._others[number])
                        closed.add(number)
                        if not self._leaving and number not in said_bye:
                            self._end(number)
                        continue
                    for line in lines:
                        if line.startswith("gone ") and not self._leaving:
                            self._end(int(line[5:]))
                    if "bye" in lines:
                        said_bye.add(number)
                    elif number not in said_bye:
                        left[number] = _BEATS
                if time.monotonic() >= beat:
                    # Counted, not measured: a job that was suspended as a whole goes on.
                    beat = time.monotonic() + _BEAT_SECONDS
                    for number in left:
                        self._others[number].send("beat")
                        left[number] -= 1
                        if left[number] <= 0 and not self._leaving:
                            self._end(number)
                left = {k: left[k] for k in left if k not in closed or not self._leaving}
        self._alone.set()

    def _end(self, gone: int) -> NoReturn:
        self._ending.set()
        line = f"process {gone} is gone; start all again\n"
        os.write(2, (b"\n" if os.isatty(2) else b"") + line.encode())
        if self._process == 0:  # JAX aborts the others when process 0 ends before them
            others = [own for number, own in self._others.items() if number != gone]
            for own in others:
                own.send(f"gone {gone}")
            end = time.monotonic() + 2 * _BEAT_SECONDS
            for own in others:
                while own.line(max(end - time.monotonic(), 0)) is not None:
                    pass
        os._exit(1)
