"""A preset's training step against the same model by hand: aejax's dispatch and a bare scan.

    python -m benchmarks.presets [--presets=dense,deep] [--rounds=9] [--steps=200]
                                 [--source=idx:FOLDER]

prints one JSON line; what it is doing goes to standard error. aejax's side is what its trainer runs
between two rows of metrics: the compiled dispatch of many steps on resident data. The other side is
one `lax.scan` of a step written by hand for the preset (`benchmarks/bare/`): optax's optimizer, the
same rows, nothing recorded but the loss. The ratio is what the trainer's generality costs.

The work is the same, which is checked before anything is timed: both start at the same parameters;
one batch has the same loss (without draws, where a preset makes some), and so has the mean of the
first steps, but for draws; the loss falls.
"""

import dataclasses
import importlib
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from aejax.models.batch import Batch
from aejax.training.setup import Setup, setup
from benchmarks.bare import scan
from benchmarks.bare.table import MODELS, RANDOM, Rows
from benchmarks.dispatch import Dispatch, flat
from benchmarks.turns import machine, ratio, say, spread, take_turns

_PRESETS = flags.DEFINE_list("presets", list(MODELS), f"Which of {', '.join(MODELS)}.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each side is run.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 0, "Of one dispatch; 0: by time.", lower_bound=0)
_SOURCE = flags.DEFINE_string("source", "digits", "Images: digits, or idx:FOLDER for MNIST's.")

BAR = 1.1
# A dispatch, and a round of them, take about this long.
_DISPATCH, _ROUND = 0.2, 0.4
_ONE_BATCH, _FIRST_STEPS, _DRAWN = 1e-5, 1e-3, 3e-2


class Side:
    """One side's dispatches, in rounds: a call makes a round and returns seconds a step.

    Attributes:
        times: dispatches of a round.
        first, last: mean losses of the first and of the last dispatch.
    """

    def __init__(self, dispatch: Callable, state: Any, mean: Callable[[Any], float], steps: int):
        self._dispatch, self._state, self._mean = dispatch, state, mean
        self._steps, self.times, self.last = steps, 1, 0.0
        self()
        self.first = self.last

    def __call__(self) -> float:
        since, window = time.perf_counter(), None
        for _ in range(self.times):
            self._state, window = self._dispatch(self._state)
        self.last = self._mean(jax.block_until_ready((self._state, window))[1])
        return (time.perf_counter() - since) / (self.times * self._steps)


def made(name: str) -> Setup:
    """The preset's run on one device, without pre-training."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config = dataclasses.replace(config, pretrain=None)
    config.data.source = _SOURCE.value
    return setup(config, devices=jax.devices()[:1])


def measure(name: str) -> dict[str, Any]:
    """Checks and times one preset."""
    run = made(name)
    dispatch = Dispatch(run)
    params = flat(dispatch.init().params)
    one = dispatch.mean_loss(dispatch(dispatch.init(), 1)[1])
    steps = min(_STEPS.value or _steps(dispatch), len(dispatch.index))
    index = dispatch.index[:steps]

    loss, optimizer = MODELS[name](_rows(run))
    data = jnp.asarray(np.asarray(run.train[slice(None)].x).reshape(len(run.train), -1))
    key = jax.random.key(run.config.seed)
    _check_one(name, run, loss, params, data[index[0]], one)
    state = scan.start(params, optimizer)
    bare = scan.compiled(loss, optimizer, state, data, index, key)

    sides = {
        "aejax": Side(
            lambda state: dispatch(state, steps), dispatch.init(), dispatch.mean_loss, steps
        ),
        "bare": Side(lambda state: bare(state, data, index, key), state, float, steps),
    }
    a, b = (side.first for side in sides.values())
    if not abs(a - b) <= (_DRAWN if name in RANDOM else _FIRST_STEPS) * abs(b):
        raise AssertionError(f"{name}: mean loss of the first {steps} steps {a}, by hand {b}")
    times = max(1, round(_ROUND / (steps * max([side() for side in sides.values()]))))
    for side in sides.values():
        side.times = times
    seconds = take_turns(dict(sides), _ROUNDS.value)
    if not all(side.last < side.first for side in sides.values()):  # nor where one is no number
        told = {which: (side.first, side.last) for which, side in sides.items()}
        raise AssertionError(f"{name}: the mean loss of a dispatch does not fall: {told}")
    ratios = ratio(seconds["aejax"], seconds["bare"])
    return {
        "parameters": sum(array.size for array in params.values()),
        "steps": steps,
        "losses": {
            which: [round(side.first, 4), round(side.last, 4)] for which, side in sides.items()
        },
        "microseconds": {which: spread(times, 1e-6) for which, times in seconds.items()},
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


def _steps(dispatch: Dispatch) -> int:
    """Steps of a dispatch that takes about _DISPATCH seconds."""
    steps = min(5, len(dispatch.index))
    state, report = dispatch(dispatch.init(), steps)
    dispatch.mean_loss(report)
    since = time.perf_counter()
    dispatch.mean_loss(dispatch(state, steps)[1])
    return max(1, round(_DISPATCH * steps / (time.perf_counter() - since)))


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
