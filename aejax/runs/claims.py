"""Work that processes on one file system share: whoever holds the lock of a piece does it.

    WORKDIR/claims/NAME/    the lock of the process that does NAME

It is free again when its process ends, however it ends. The folder stays.
"""

import contextlib
import threading
import time
from collections.abc import Callable

from aejax import cluster
from aejax.errors import InputError
from aejax.runs import folder, lock

# How often a process that waits looks again.
POLL_SECONDS = 1.0
# What threads of this process hold: a lock need not keep one thread from another.
_held: set[str] = set()
_guard = threading.Lock()


def claim(place: str, stop: Callable[[], bool] = cluster.never) -> contextlib.ExitStack | None:
    """The lock of a piece of work, to be closed; None where another process or thread holds it.

    Args:
        place: folder of the lock; made where it does not exist.
        stop: asked where it has to see whether the last owner lives.

    Raises:
        Stopped: asked to stop.
    """
    name = folder.path(place)
    with contextlib.ExitStack() as stack:
        with _guard:
            if name in _held:
                return None
            _held.add(name)
        stack.callback(_held.discard, name)
        try:
            stack.enter_context(lock.locked(place, stop=stop))
        except InputError:
            return None
        return stack.pop_all()


def wait(
    place: str, stop: Callable[[], bool], say: Callable[[], None] = lambda: None
) -> contextlib.ExitStack:
    """The lock of a piece of work, once whoever holds it has ended.

    Args:
        place: as in `claim`.
        stop: asked between looks.
        say: called once, where there is something to wait for.

    Raises:
        Stopped: asked to stop.
    """
    told = False
    while (own := claim(place, stop)) is None:
        if not told:
            say()
        told = True
        if stop():
            raise cluster.Stopped
        time.sleep(POLL_SECONDS)
    return own
