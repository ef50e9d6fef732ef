"""Rounds that take turns, how their times are told, and what every result says of the machine."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any


def take_turns(
    sides: dict[str, Callable[[], float]], rounds: int, pause: float = 0.0
) -> dict[str, list[float]]:
    """Calls all sides in each round, so that what disturbs one disturbs all.

    Args:
        sides: each runs its part of a round and returns its seconds.
        rounds: how many.
        pause: seconds before each part of a round.

    Returns:
        For each side the seconds of its rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(1, rounds + 1):
        for name, run in sides.items():
            time.sleep(pause)
            seconds[name].append(run())
        last = "  ".join(f"{name} {times[-1]:.4g}" for name, times in seconds.items())
        say(f"round {number}/{rounds}, seconds: {last}")
    return seconds


def spread(times: list[float], unit: float = 1.0) -> dict[str, float]:
    """The best, the median and the worst, in units of so many seconds, to four digits."""
    values = {"best": min(times), "median": statistics.median(times), "worst": max(times)}
    return {name: float(f"{value / unit:.4g}") for name, value in values.items()}


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Of the best, of the medians, and of each round: the median, the lowest and the highest."""
    by_round = [a / b for a, b in zip(above, below, strict=True)]
    values = {
        "best": min(above) / min(below),
        "median": statistics.median(above) / statistics.median(below),
        "by_round": statistics.median(by_round),
        "lowest": min(by_round),
        "highest": max(by_round),
    }
    return {name: round(value, 3) for name, value in values.items()}


def machine() -> dict[str, Any]:
    """The kind of processor, cores, and JAX's version, backend and device."""
    import jax  # here, because the driver of the peers does without

    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def say(text: str) -> None:
    """Prints to standard error; standard output has the result alone."""
    print(text, file=sys.stderr, flush=True)
