"""Many steps to a dispatch: with their number traced, as aejax trains, against a fixed number.

    python -m benchmarks.fixed_steps [--presets=dense,deep] [--source=idx:FOLDER] [--steps=200]

prints one JSON line. aejax compiles one program for every number of steps. With the number written
into the program a compiler may know more (a GPU need not ask after each step whether another comes)
and needs a program for each number. Both run the same steps from the same state, in turns, and end
with the same bits, which is checked. `ratio` is traced over fixed.
"""

import dataclasses
import importlib
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags

from aejax.training.setup import Setup, setup
from aejax.training.step import dispatch
from benchmarks.machine import machine
from benchmarks.ratios import ratio, spread

_PRESETS = flags.DEFINE_list("presets", ["dense", "deep", "variational"], "Which.")
_SOURCE = flags.DEFINE_string("source", "digits", "Of their data.")
_STEPS = flags.DEFINE_integer("steps", 200, "Of a dispatch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each is run.", lower_bound=1)

_WARM = 2


def made(name: str) -> Setup:
    """The preset's run on one device, without pre-training."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config = dataclasses.replace(config, pretrain=None)
    config.data.source = _SOURCE.value
    return setup(config, devices=jax.devices()[:1])


def both(run: Setup) -> tuple[dict[str, Callable[[Any], Any]], int]:
    """{traced, fixed}: a state to the state so many steps later, and their number."""
    feed = run.open_feed()
    block = feed.at(0).arrays
    steps = min(_STEPS.value, len(jax.tree.leaves(block)[0]))
    plain, first, fresh = dispatch(run.step), np.int32(0), np.bool_(True)

    def fixed(state, data, block):
        return plain(state, data, block, first, steps, fresh)

    traced = run.compile(feed)
    alone = jax.jit(fixed, donate_argnums=0).lower(run.state, feed.data, block).compile()
    put = jax.device_put((first, np.int32(steps), fresh), run.replicated)

    def again(state: Any) -> Any:
        """The state, as one that has made no steps: the same rows come again."""
        return dataclasses.replace(state, step=put[0].copy())

    return {
        "traced": lambda state: traced(again(state), feed.data, block, *put)[0],
        "fixed": lambda state: alone(again(state), feed.data, block)[0],
    }, steps


def measure(name: str) -> dict[str, Any]:
    """Checks and times one preset."""
    run = made(name)
    sides, steps = both(run)
    states = {side: call(run.init()) for side, call in sides.items()}
    for a, b in zip(*map(jax.tree.leaves, states.values()), strict=True):
        if not np.array_equal(np.asarray(a), np.asarray(b)):
            raise AssertionError(f"{name}: the states differ")
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(-_WARM, _ROUNDS.value):
        for side, call in sides.items():
            start = time.perf_counter()
            states[side] = jax.block_until_ready(call(states[side]))
            if number >= 0:
                times[side].append((time.perf_counter() - start) / steps)
    return {
        "steps": steps,
        "microseconds": {side: spread(found, 1e-6) for side, found in times.items()},
        "ratio": ratio(times["traced"], times["fixed"]),
    }


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1:]}: not accepted")
    result = {
        "benchmark": "fixed_steps",
        **machine(),
        "source": _SOURCE.value,
        "rounds": _ROUNDS.value,
        "presets": {name: measure(name) for name in _PRESETS.value},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
