"""The profiler's trace of some steps, also over dispatches, restarts and early ends."""

import dataclasses
from collections.abc import Callable

import jax

from aejax.runs import folder


@dataclasses.dataclass
class Trace:
    """Records a trace from the window's first step (or the run's start, if later) to its last.

    Attributes:
        window: first and last step, or None for no trace.
        workdir: the run's folder; the trace goes to profile/ in it.
        wait: waits for all dispatched steps.
        say: prints a line.
    """

    window: tuple[int, int] | None
    workdir: str
    wait: Callable[[], None]
    say: Callable[[str], None]
    running: bool = False

    def at(self, step: int) -> None:
        """Starts or ends the trace if this step is its first or last."""
        if self.window is None:
            return
        first, last = self.window
        if first <= step < last and not self.running:
            self.wait()
            self.running = True
            jax.profiler.start_trace(folder.path(self.workdir, "profile"))
        elif step >= last:
            self.end()

    def end(self) -> None:
        """Writes the trace, if one is being taken."""
        if self.running:
            self.wait()
            self.running = False
            jax.profiler.stop_trace()
            self.say(f"profile: {folder.path(self.workdir, 'profile')}")
