"""Ends a process whose steps hang, with every thread's stack."""

import faulthandler
import math
import sys

from aejax import cluster

# It is wound up at most this often: each time starts a thread, as long as many small steps.
_SECONDS = 1.0


class Watchdog:
    """Ends the process once it has not been wound up for so many minutes; never with 0."""

    def __init__(self, minutes: float):
        self._seconds, self._wound_at = 60 * minutes, -math.inf

    def wind_up(self) -> None:
        """It counts from here, or from a moment ago."""
        now = cluster.clock()
        if self._seconds and now - self._wound_at > min(_SECONDS, self._seconds / 10):
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=sys.__stderr__ or 2)
            self._wound_at = now

    def stop(self) -> None:
        """It counts no longer, until it is wound up again."""
        faulthandler.cancel_dump_traceback_later()
        self._wound_at = -math.inf
