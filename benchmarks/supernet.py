"""A supernet's training step against the steps of what it is made of.

    python -m benchmarks.supernet [--config=search_par] [--length=64] [--rounds=9]

prints one JSON line. A supernet holds every candidate of a slot, so a step of it may take as long
as one step of each candidate: the model with the first candidate in every searched slot, with the
second, and so on, summed, each with all that stands around the slots. `blocks` is a step before the
search begins, `searching` the mean of steps in it, of which a share (`config.supernet.share`) has
the architecture weights' gradient as well. The trainer's own dispatches are timed, on random
symbols, in turns. `met` says whether both are within the sum.
"""

import dataclasses
import importlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags

from aejax.data.sources.base import Arrays
from aejax.search import Search
from aejax.search.space import with_layout
from aejax.search.supernet import Pairs, Supernet
from aejax.training.setup import setup
from benchmarks.dispatch import timed
from benchmarks.turns import machine, ratio, spread, take_turns

_CONFIG = flags.DEFINE_string("config", "search_par", "A search of text.")
_LENGTH = flags.DEFINE_integer("length", 64, "Symbols of a row.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each is run.", lower_bound=1)

BAR = 1.0
# Each call begins before the first step of the search: ten of 20 have both gradients.
_ROWS, _STEPS, _NEVER = 1024, 20, 10**9


def sides(made: Search) -> dict[str, Callable[[], float]]:
    """Seconds a step of each side, measured anew at each call."""
    space, symbols = made.space(), made.run.model.symbols
    draw = np.random.RandomState(0).randint(symbols, size=(_ROWS, _LENGTH.value))
    rows = Arrays(draw.astype(np.uint8), None, None)
    out = {}
    for number in range(len(space.searched[0][2])):
        layout = space.layout([number] * len(space.searched))
        out[str(layout)] = _seconds(made, with_layout(made.run.model, layout), rows)
    for name, warmup in (("blocks", _NEVER), ("searching", 0)):
        model = Supernet.of(made, dict.fromkeys(space.letters, 1.0))
        model = dataclasses.replace(model, learned=float("inf"), warmup=warmup)
        out[name] = _seconds(made, model, Pairs(rows, rows))
    return out


def _seconds(made: Search, model: Any, rows: Any) -> Callable[[], float]:
    config = dataclasses.replace(made.run, model=model)
    return timed(setup(config, (rows, rows), devices=jax.devices()[:1]), _STEPS)


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1:]}: not accepted")
    made: Search = importlib.import_module(f"configs.{_CONFIG.value}").get_config()
    counts = {len(letters) for _, _, letters in made.space().searched}
    if len(counts) > 1 or not made.run.model.symbols:
        raise app.UsageError(
            f"--config={_CONFIG.value}: must be a search of text, with as many candidates a slot"
        )
    found = take_turns(sides(made), _ROUNDS.value)
    parts = [times for name, times in found.items() if name not in ("blocks", "searching")]
    total = [sum(times) for times in zip(*parts, strict=True)]
    ratios = {name: ratio(found[name], total) for name in ("blocks", "searching")}
    result = {
        "benchmark": "supernet",
        **machine(),
        "config": _CONFIG.value,
        "rounds": _ROUNDS.value,
        "milliseconds": {name: spread(times, 1e-3) for name, times in found.items()},
        "ratio": ratios,
        "met": max(each["best"] for each in ratios.values()) <= BAR,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
