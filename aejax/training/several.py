"""Several runs: side by side in one process where they can be, and shared by several processes."""

import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax

from aejax import cluster
from aejax.mesh import Devices
from aejax.runs import claims

# More at once would hold as many copies of the data.
_AT_ONCE = 4


def parallel_map(
    make: Callable[[Any], Any],
    items: Iterable[Any],
    devices: Devices | None,
    stop_others: Callable[[], None],
) -> list[Any]:
    """`make` of each item, in their order; side by side where runs can be.

    On one CPU they can: a small model's step fills one core. Programs that span devices must start
    in one order on all of them, and a GPU's memory is for one run.

    Args:
        make: trains the run of an item.
        items: of the runs.
        devices: those to train on; None for all.
        stop_others: called where one fails, so that those that still run are saved and stop.

    Raises:
        Exception: what the first of them raised, but `cluster.Stopped` only where nothing else was.
    """
    count = _at_once(devices)
    if not count:
        return [make(item) for item in items]

    def watched(item: Any) -> Any:
        try:
            return make(item)
        except Exception:
            stop_others()
            raise

    with ThreadPoolExecutor(count) as pool:
        made = [pool.submit(watched, item) for item in items]
        wait(made)
    if errors := [error for one in made if (error := one.exception())]:
        # That others were stopped is no news beside what failed.
        raise min(errors, key=lambda error: isinstance(error, cluster.Stopped))
    return [one.result() for one in made]


def _at_once(devices: Devices | None) -> int:
    """How many runs go side by side; 0 where none can."""
    devices = devices or jax.devices()
    one_cpu = len(devices) == 1 and devices[0].platform == "cpu"
    return min(cluster.cores(), _AT_ONCE) if one_cpu else 0


@dataclasses.dataclass(frozen=True)
class Work:
    """A run that one of several processes trains.

    Attributes:
        claim: folder of its lock (`aejax.runs.claims`).
        known: what came out of it; None where it has not ended.
        make: trains it, writes down what came out, so that `known` finds it, and returns it.
    """

    claim: str
    known: Callable[[], Any]
    make: Callable[[], Any]


class Shared:
    """Work of which each of several processes takes the first piece that nobody has.

    A piece whose process has died is taken up by another one. The processes of one job of JAX train
    everything together, and claim nothing.
    """

    def __init__(self, work: Sequence[Work], stop: Callable[[], bool], leave: bool = False):
        """Names the work; nothing is read or trained before `run`.

        Args:
            work: the same in all processes.
            stop: asked between pieces, and while there is none to take.
            leave: end where others have all that is left, in place of waiting for them.
        """
        self._work, self._stop, self._leave = work, stop, leave
        self._found: dict[int, Any] = {}
        self._making = self._made = 0  # here, by all threads
        self._failed, self._change = False, threading.Condition()

    def run(self, devices: Devices | None, stop_others: Callable[[], None]) -> list[Any]:
        """What came out of each piece; None of those that were left to others.

        Args:
            devices: as `parallel_map` takes them.
            stop_others: as `parallel_map` takes it.

        Raises:
            Stopped: asked to, with everything saved.
        """
        if jax.process_count() > 1:
            return [work.make() for work in self._work]
        threads = range(_at_once(devices) or 1)
        parallel_map(lambda thread: self._take_all(), threads, devices, stop_others)
        return [self._found.get(number) for number in range(len(self._work))]

    def _take_all(self) -> None:
        """Does one piece after another until there is none left to take."""
        while left := [n for n in range(len(self._work)) if n not in self._found]:
            if self._failed or self._stop():
                raise cluster.Stopped
            made = self._made
            if any(self._take(number) for number in left) or not self._found.keys().isdisjoint(
                left
            ):
                continue  # from the first again: others may have died meanwhile
            if self._leave and not self._making:
                return
            with self._change:  # soon where another thread ends
                self._change.wait_for(lambda made=made: self._made != made, claims.POLL_SECONDS)

    def _take(self, number: int) -> bool:
        """Does a piece, unless it is known or another has it; whether it was done here."""
        work = self._work[number]
        if self._note(number) or (claim := claims.claim(work.claim, self._stop)) is None:
            return False
        with claim:
            if self._note(number):  # it has ended since
                return False
            with self._change:
                self._making += 1
            try:
                self._found[number] = work.make()
            except BaseException:
                self._failed = True  # before its claim is free: no other thread shall try it
                raise
            finally:
                with self._change:
                    self._making, self._made = self._making - 1, self._made + 1
                    self._change.notify_all()
        return True

    def _note(self, number: int) -> bool:
        """Looks whether a piece has ended."""
        found = self._found.get(number)
        if found is None and (found := self._work[number].known()) is not None:
            self._found[number] = found
        return found is not None
