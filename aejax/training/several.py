"""Several runs in one process: side by side where they can be."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax

from aejax import cluster
from aejax.mesh import Devices

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
        # That others were stopped is no news beside what failed.
        raise min(errors, key=lambda error: isinstance(error, cluster.Stopped))
    return [one.result() for one in made]
