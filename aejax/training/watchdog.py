"""Ends a process whose steps hang, with every thread's stack."""

import faulthandler
import math
import sys
import threading
from typing import ClassVar

from aejax import cluster

# It is reset at most this often: each time starts a thread, as long as many small steps.
_SECONDS = 1.0


class Watchdog:
    """Ends the process once it has not been reset for so many minutes; never with 0.

    Runs side by side have one each; the process's only timer stands at the first one's end.
    """

    _ends: ClassVar[dict["Watchdog", float]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, minutes: float):
        self._seconds, self._wound_at = 60 * minutes, -math.inf

    def reset(self) -> None:
        """It counts from here, or from a moment ago."""
        now = cluster.clock()
        if self._seconds and now - self._wound_at > min(_SECONDS, self._seconds / 10):
            self._wound_at = now
            with self._lock:
                self._ends[self] = now + self._seconds
                self._set()

    def stop(self) -> None:
        """It counts no longer, until it is reset again."""
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
