"""Several runs in one process, in parallel on a CPU."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax

from aejax import cluster
from aejax.mesh import Devices

# Each run in parallel holds a copy of the data.
_AT_ONCE = 4


def parallel_map(
    make: Callable[[Any], Any],
    items: Iterable[Any],
    devices: Devices | None,
    stop_others: Callable[[], None],
) -> list[Any]:
    """The results of `make` for each item, in order; runs are trained in parallel on one CPU.

    There a small model's step uses one core only. Programs over several devices must start in the
    same order on all of them, and a GPU's memory is left to one run.

    Args:
        make: trains the run of an item.
        items: of the runs.
        devices: those to train on; None for all.
        stop_others: called when one fails, so that the others save their state and stop.

    Raises:
        Exception: that of the first failed item; `cluster.Stopped` only if there is no other.
    """
    devices = devices or jax.devices()
    if len(devices) > 1 or devices[0].platform != "cpu":
        return [make(item) for item in items]

    def watched(item: Any) -> Any:
        try:
            return make(item)
        except Exception:
            stop_others()
            raise

    with ThreadPoolExecutor(min(cluster.cores(), _AT_ONCE)) as pool:
        made = [pool.submit(watched, item) for item in items]
        wait(made)
    if errors := [error for one in made if (error := one.exception())]:
        # A failure is more important than that the others were stopped.
        raise min(errors, key=lambda error: isinstance(error, cluster.Stopped))
    return [one.result() for one in made]
