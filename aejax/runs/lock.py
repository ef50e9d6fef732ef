"""The lock of a folder: one process at a time trains there.

    .lock     the owner holds it by flock, which ends with the process
    .lease    who the owner is; it is renewed while the owner lives, and removed at the end

Some file systems have no flock, and some network file systems keep it to one machine. There the
lease decides: it belongs to a process that lives as long as it changes. No clock but a process's
own is read, so that clocks which differ or jump do no harm.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from aejax import cluster, files, launchers
from aejax.errors import InputError
from aejax.runs.folder import path

# The owner renews its lease this often; one that has not changed for so long is nobody's.
RENEW_SECONDS = 5.0
EXPIRE_SECONDS = 20.0
# Without flock two processes may write a lease at once: the one that still stands after this.
SETTLE_SECONDS = 2.0


@contextlib.contextmanager
def locked(
    workdir: str,
    say: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = cluster.never,
) -> Iterator[None]:
    """Keeps other processes from training in the same folder; ends with the process.

    Where the last owner was killed on another machine, waits until its lease has expired.

    Args:
        workdir: the folder; made where it does not exist.
        say: told before it waits.
        stop: asked while it waits.

    Raises:
        InputError: another process trains there.
        Stopped: asked to stop.
    """
    os.makedirs(path(workdir), exist_ok=True)
    with open(path(workdir, ".lock"), "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            flocked = True
        except BlockingIOError:
            raise _refused(workdir, read(workdir)) from None
        except OSError:
            flocked = False
        owner = read(workdir)
        if owner and not (flocked and _is_dead(owner)):
            _await_expiry(workdir, owner, say, stop)
        lease = Lease(workdir)
        lease.write()
        if not flocked:
            time.sleep(SETTLE_SECONDS)
            if lease.is_lost():
                raise _refused(workdir, read(workdir))
        lease.start()
        try:
            yield
        finally:
            lease.end()


class Lease(threading.Thread):
    """Renews the lease of this process; ends the process when another one has taken the folder."""

    def __init__(self, workdir: str):
        super().__init__(name="lease", daemon=True)
        self._workdir, self._file = workdir, path(workdir, ".lease")
        self._ended = threading.Event()
        self._says: dict[str, Any] = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "launch": launchers.shared_launch(os.environ),
            "renewed": 0,
        }

    def write(self) -> None:
        """Says that this process lives. A full disk is no reason not to train."""
        self._says["renewed"] += 1
        with contextlib.suppress(OSError), open(self._file, "w", encoding="utf-8") as file:
            json.dump(self._says, file)

    def is_lost(self) -> bool:
        """Whether the lease is another process's."""
        return read(self._workdir).get("owner", self._says["owner"]) != self._says["owner"]

    def run(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            if self.is_lost():
                _end(self._workdir)
            self.write()

    def end(self) -> None:
        """The folder is free."""
        self._ended.set()
        self.join()
        if not self.is_lost():
            with contextlib.suppress(OSError):
                os.remove(self._file)


def read(workdir: str) -> dict[str, Any]:
    """What the lease says; {} where there is none."""
    try:
        with open(path(workdir, ".lease"), "rb") as file:
            data = file.read()
    except OSError:
        return {}
    try:
        found = json.loads(data)
    except ValueError:  # read while it was written, or left so
        found = {}
    return found if isinstance(found, dict) and found else {"unreadable": data.hex()}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine had the lease, and has ended, or is this one.

    Where it lives and has no lock, somebody has removed the lock.
    """
    number = owner.get("process")
    if owner.get("host") != socket.gethostname() or not isinstance(number, int):
        return False
    return number == os.getpid() or not files.lives(number)


def _await_expiry(
    workdir: str, owner: dict[str, Any], say: Callable[[str], None], stop: Callable[[], bool]
) -> None:
    """Waits until nobody has renewed the lease for a while.

    Raises:
        InputError: somebody has.
        Stopped: asked to stop.
    """
    who = f"process {owner.get('process', '?')} of {owner.get('host', '?')}"
    say(
        f"{workdir}: {who} trained here and has not said that it ended: waiting up to"
        f" {EXPIRE_SECONDS:g} s to see whether it lives"
    )
    end = time.monotonic() + EXPIRE_SECONDS
    while time.monotonic() < end:
        if stop():
            raise cluster.Stopped
        time.sleep(min(0.25, EXPIRE_SECONDS / 10))
        if not (now := read(workdir)):
            return
        if now != owner and "unreadable" not in now:
            raise _refused(workdir, now)


def _refused(workdir: str, owner: dict[str, Any]) -> InputError:
    """The error, with what the owner has in common with this process."""
    who = ""
    if "process" in owner:
        who = f" (process {owner['process']} of {owner.get('host')})"
    return InputError(
        f"--workdir={workdir}: another process is training in this folder{who}{_shared(owner)}"
    )


def _shared(owner: dict[str, Any]) -> str:
    """What the owner has in common with this process, as the end of a sentence."""
    if owner.get("process") == os.getpid() and owner.get("host") == socket.gethostname():
        return ""
    for shared in launchers.shared_launch(os.environ):
        if shared in owner.get("launch", ()):
            return (
                f", and both {shared}. They did not find each other as processes of one training:"
                " such are started by srun or mpirun, as a Kubernetes Job with --processes=N, or"
                " with the same --coordinator=HOST:PORT --processes=N and each its --process=I"
            )
    return ""


def _end(workdir: str) -> NoReturn:
    """What this process would write now would spoil what the other one writes."""
    print(
        f"failed: {workdir}: another process has taken this folder over: this one did not run for"
        f" {EXPIRE_SECONDS:g} s, or its .lock and .lease were removed",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
