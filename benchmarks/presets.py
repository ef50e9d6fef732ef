"""Every preset's training step against the same model by hand: aejax's dispatch and a bare scan.

    python -m benchmarks.presets [--presets=dense,deep] [--rounds=9] [--steps=200]
                                 [--source=idx:FOLDER]

prints one JSON line; what it is doing goes to standard error. About three minutes for all on two
cores. aejax's side is what its trainer runs between two rows of metrics: the compiled dispatch of
many steps on resident data. The other side is one `lax.scan` of a step written by hand for the
preset (`benchmarks/bare/`): optax's optimizer, the same rows, nothing recorded but the loss. A
preset's ratio is what the trainer's generality costs; it should be at most 1.2.

The work is the same, which is checked before anything is timed: both start at the same parameters;
one batch has the same loss (without draws, where a preset makes some), and so has the mean of the
first steps, but for draws; the loss falls. Rounds take turns, so that what disturbs one disturbs
the other: `by_round` holds on a machine that does other things too.
"""

import dataclasses
import importlib
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from aejax.config import Config
from aejax.data.sources.base import Arrays
from aejax.models.batch import Batch
from aejax.training.setup import Setup, setup
from benchmarks.bare import scan
from benchmarks.bare.table import MODELS, RANDOM, Rows
from benchmarks.dispatch import Dispatch, flat, mean_loss
from benchmarks.turns import machine, ratio, say, spread, take_turns

_PRESETS = flags.DEFINE_list("presets", list(MODELS), f"Which of {', '.join(MODELS)}.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each side is run.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 0, "Of one dispatch; 0: by time.", lower_bound=0)
_SOURCE = flags.DEFINE_string("source", "digits", "Images: digits, or idx:FOLDER for MNIST's.")

BAR = 1.2
# A dispatch, and a round of them, take about this long.
_DISPATCH, _ROUND = 0.2, 0.4
_ONE_BATCH, _FIRST_STEPS, _DRAWN = 1e-5, 1e-3, 3e-2
_WINDOWS = 4096  # of text


class Side(NamedTuple):
    """One side: `run(times)` makes so many dispatches and returns the mean loss of the last."""

    run: Callable[[int], float]
    first: float  # mean loss of the first dispatch


def preset(name: str) -> Config:
    """The preset as it stands, without pre-training; its shape is what counts, not its data."""
    config = importlib.import_module(f"configs.{name}").get_config()
    return dataclasses.replace(config, pretrain=None)


def made(name: str) -> Setup:
    """The preset's run on one device; of text, on windows of random letters."""
    config = preset(name)
    sources = None
    if name == "sequence_text":
        windows = np.random.RandomState(0).randint(32, 127, (_WINDOWS, 32)).astype(np.uint8)
        sources = (Arrays(windows, None, 255.0), Arrays(windows[:256], None, 255.0))
    else:
        config.data.source = _SOURCE.value
    return setup(config, sources, devices=jax.devices()[:1])


def seconds(call: Callable, *arguments: Any) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def measure(name: str) -> dict[str, Any]:
    """Checks and times one preset."""
    run = made(name)
    dispatch = Dispatch(run)
    params = flat(dispatch.init().params)
    one = mean_loss(dispatch(dispatch.init(), 1)[1])
    steps = min(_STEPS.value or _steps(dispatch), len(dispatch.index))
    index = dispatch.index[:steps]

    loss, optimizer = MODELS[name](_rows(run))
    data = jnp.asarray(np.asarray(run.train[slice(None)].x).reshape(len(run.train), -1))
    key = jax.random.key(run.config.seed)
    _check_one(name, run, loss, params, data[index[0]], one)
    state = scan.start(params, optimizer)
    bare = scan.compiled(loss, optimizer, state, data, index, key)

    sides = {
        "aejax": _side(lambda state: dispatch(state, steps), dispatch.init(), mean_loss),
        "bare": _side(lambda state: bare(state, data, index, key), state, float),
    }
    allowed = _DRAWN if name in RANDOM else _FIRST_STEPS
    a, b = (sides[side].first for side in ("aejax", "bare"))
    if not abs(a - b) <= allowed * abs(b):
        raise AssertionError(f"{name}: mean loss of the first {steps} steps {a}, by hand {b}")
    found, last = _in_turn(sides, steps)
    for side, value in last.items():
        if not value < sides[side].first:  # nor where it is not a number
            raise AssertionError(f"{name}: {side}'s loss went from {sides[side].first} to {value}")
    ratios = ratio(found["aejax"], found["bare"])
    return {
        "parameters": sum(array.size for array in params.values()),
        "steps": steps,
        "losses": {
            side: [float(f"{value:.5g}") for value in (sides[side].first, last[side])]
            for side in sides
        },
        "microseconds": {side: spread(times, 1e-6) for side, times in found.items()},
        "ratio": ratios,
        "met": ratios["best"] <= BAR,
    }


def _rows(run: Setup) -> Rows:
    """What the model by hand knows of the data."""
    spec, known = run.train.spec, run.preparation.statistics
    mean, deviation = (
        np.asarray(known[name], np.float32) if name in known else None
        for name in ("mean", "deviation")
    )
    scaled = run.preparation.settings.scale
    maximum = (spec.maximum if scaled else None) or 1.0
    return Rows(spec.shape, maximum, mean, deviation, run.total)


def _in_turn(sides: dict[str, Side], steps: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds a step in each round, and the mean loss of the last dispatch."""
    times = max(1, round(_ROUND / max([seconds(side.run, 1) for side in sides.values()])))
    last: dict[str, float] = {}

    def timed(name: str) -> Callable[[], float]:
        def run() -> float:
            since = time.perf_counter()
            last[name] = sides[name].run(times)
            return (time.perf_counter() - since) / (times * steps)

        return run

    return take_turns({name: timed(name) for name in sides}, _ROUNDS.value), last


def _steps(dispatch: Dispatch) -> int:
    """Steps of a dispatch that takes about _DISPATCH seconds."""
    steps = min(5, len(dispatch.index))
    state, window = dispatch(dispatch.init(), steps)
    mean_loss(window)
    taken = seconds(lambda: mean_loss(dispatch(state, steps)[1])) / steps
    return max(1, round(_DISPATCH / taken))


def _side(dispatch: Callable, state: Any, mean: Callable[[Any], float]) -> Side:
    kept = [state]

    def run(times: int) -> float:
        found = None
        for _ in range(times):
            kept[0], found = dispatch(kept[0])
        return mean(jax.block_until_ready((kept[0], found))[1])

    return Side(run, run(1))


def _check_one(
    name: str, run: Setup, loss: scan.Loss, params: scan.Params, rows: jax.Array, one: float
) -> None:
    """Raises AssertionError where one batch has another loss than aejax gives it."""
    if name in RANDOM:
        state = run.init()
        model = run.program.merge(state.params, state.model_state)
        one = float(model.loss(Batch(run.preparation(rows)))[0])
    by_hand = float(jax.jit(loss)(params, rows, None, jnp.int32(0)))
    if not abs(one - by_hand) <= _ONE_BATCH * abs(one):
        raise AssertionError(f"{name}: one batch has the loss {one}, by hand {by_hand}")


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    unknown = set(_PRESETS.value) - set(MODELS)
    if len(argv) > 1 or unknown:
        raise app.UsageError(f"{[*argv[1:], *unknown]}: --presets takes {', '.join(MODELS)}")
    presets = {}
    for name in _PRESETS.value:
        presets[name] = measure(name)
        found = presets[name]["ratio"]
        say(f"{name}: {found['best']} ({found['by_round']} by round)")
    result = {
        "benchmark": "presets",
        **machine(),
        "source": _SOURCE.value,
        "rounds": _ROUNDS.value,
        "bar": f"aejax / bare at most {BAR}",
        "presets": presets,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
