"""Output that nobody can take any more does not end a program.

A terminal is closed, `| head` has seen enough, the disk of a log is full: what cannot be written is
dropped, and the program goes on. What only repeats a failure is left out.
"""

import errno
import os
import signal
import sys
from typing import Any

# A pipe without a reader, and a terminal that is gone: nothing can be written there again.
_GONE = (errno.EPIPE, errno.EIO)

# What asyncio says where a loop has ended.
_CLOSED = "Event loop is closed"


class Lasting:
    """A stream like the one it is made of, whose errors end nothing."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text, or drops it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lost(error)
            return len(text)

    def flush(self) -> None:
        """Writes what is left, or drops it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        if error.errno in _GONE:  # C++ writes to the same file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def outlive_terminal() -> None:
    """Lets this process go on where its terminal is closed, or its output cannot be written."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would be written to as this one
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout, sys.stderr = Lasting(sys.stdout), Lasting(sys.stderr)


def leave_out_late_writes() -> None:
    """Leaves out the tracebacks of a checkpoint's other writes once one of them has failed.

    Orbax tells the failure and closes its event loop, which writes that end later still look for.
    """
    tell = sys.unraisablehook

    def told(found: Any) -> None:
        if not isinstance(found.exc_value, RuntimeError) or str(found.exc_value) != _CLOSED:
            tell(found)

    sys.unraisablehook = told
