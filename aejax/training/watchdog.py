"""Ends a process whose steps hang, with every thread's stack."""

import faulthandler
import math
import sys
import threading
from typing import ClassVar

from aejax import cluster

# Least seconds between resets: each starts a thread, which takes as long as many small steps.
_SECONDS = 1.0


class Watchdog:
    """Ends the process if it is not reset for so many minutes; 0 turns it off.

    Parallel runs have one each, but share the process's only timer, which is set to the earliest.
    """

    _ends: ClassVar[dict["Watchdog", float]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, minutes: float):
        self._seconds, self._wound_at = 60 * minutes, -math.inf

    def reset(self) -> None:
        """Restarts the timer, at most once a second."""
        now = cluster.clock()
        if self._seconds and now - self._wound_at > min(_SECONDS, self._seconds / 10):
            self._wound_at = now
            with self._lock:
                self._ends[self] = now + self._seconds
                self._set()

    def stop(self) -> None:
        """Stops the timer until the next reset."""
        self._wound_at = -math.inf
        with self._lock:
            self._ends.pop(self, None)
            self._set()

    def _set(self) -> None:
        if self._ends:
            left = max(min(self._ends.values()) - cluster.clock(), 0.001)
            faulthandler.dump_traceback_later(left, exit=True, file=sys.__stderr__ or 2)
        else:
            faulthandler.cancel_dump_traceback_later()
