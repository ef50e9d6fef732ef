"""A training step of the convolutional preset's network against PyTorch's of the same network.

    python -m benchmarks.convolution_peers --data=FOLDER --peers_python=PEERS/bin/python

prints one JSON line; what it is doing goes to standard error. About three minutes on two cores.
FOLDER has MNIST's IDX files. The network: convolutions of 3x3 to 16 and 32 channels, each with relu
and 2x2 pooling, 512 units, a code of 30, and mirrored back with transposed convolutions of 4x4; the
cross-entropy of Bernoulli pixels, float32, batch 128, Adam with rate 0.002.

aejax runs its compiled dispatch of many steps (`benchmarks/dispatch.py`), PyTorch a loop in a
process of its own, on data in memory, in the quickest of two layouts of images with one thread or
one a core, which is found out before. Both start at the same parameters, which is checked by their
number and by the loss of one batch, and have made as many updates in the end, which is checked by
the loss of 1000 rows. Rounds take turns. aejax should take at most 1.5 times PyTorch's time.

PyTorch's threads wait for each other actively: where another program wants a core, its steps take
many times as long with two. Take its figures from a machine that does nothing else.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from aejax.models.batch import Batch
from aejax.optimizer import Adam
from aejax.training.setup import Setup, setup
from benchmarks.dispatch import Dispatch, flat, mean_loss
from benchmarks.peers.processes import Failed, Process
from benchmarks.ratios import ratio, spread
from configs.convolutional import get_config

_DATA = flags.DEFINE_string(
    "data", None, "Folder with MNIST's IDX files. Default: mnist/ in the folder AEJAX_DATA."
)
_PEERS_PYTHON = flags.DEFINE_string(
    "peers_python", sys.executable, "Interpreter that has torch. Default: this one."
)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed rounds.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 100, "Of a round.", lower_bound=1, upper_bound=2000)
_TIMEOUT = flags.DEFINE_integer("timeout", 300, "Seconds a round may take.", lower_bound=1)

BAR = 1.5
BATCH_SIZE, RATE = 128, 2e-3
LAYOUTS = ("plain", "channels_last")
_PAUSE_SECONDS = 0.3  # until threads that spin after their work are asleep
_SAME, _TRAINED = 1e-5, 0.03


def made(folder: str) -> Setup:
    """The preset in the size for MNIST, with a rate that stays."""
    config = get_config()
    config.data.source = f"idx:{folder}"
    config.model.coder = dataclasses.replace(config.model.coder, hidden=(512,))
    config.optimizer = Adam(learning_rate=RATE)
    config.batch_size = BATCH_SIZE
    return setup(config, devices=jax.devices()[:1])


class Trainer:
    """aejax's side."""

    def __init__(self, run: Setup):
        self._run, self._dispatch = run, Dispatch(run)
        self._state, self._next = self._dispatch.init(), 0

    def params(self) -> dict[str, np.ndarray]:
        """By name, as arrays of the host."""
        return {name: np.asarray(array) for name, array in flat(self._state.params).items()}

    def train(self, steps: int) -> float:
        """Makes so many updates, on rows not seen while there are such; seconds."""
        first = self._next if self._next + steps <= len(self._dispatch.index) else 0
        self._next = first + steps
        since = time.perf_counter()
        self._state, window = self._dispatch(self._state, steps, first)
        mean_loss(jax.block_until_ready((self._state, window))[1])
        return time.perf_counter() - since

    def loss(self, rows: int) -> float:
        """Of the first rows, nats a row."""
        model = self._run.program.merge(self._state.params, self._state.model_state)
        x = self._run.preparation(jnp.asarray(self._run.train[slice(rows)].x))
        return float(model.loss(Batch(x))[0])


def measure(trainer: Trainer, torch: Process) -> dict[str, Any]:
    """Checks and times both."""
    steps, rounds = _STEPS.value, _ROUNDS.value
    found = torch.answer()
    form = _quickest(torch)
    begun = torch.ask(f"start {form}")[0]  # afresh
    params = sum(array.size for array in trainer.params().values())
    one = trainer.loss(BATCH_SIZE)
    if begun["parameters"] != params or not abs(begun["loss"] - one) <= _SAME * one:
        raise Failed(f"networks differ: aejax has {params} parameters and the loss {one}, {begun}")
    times: dict[str, list[float]] = {"aejax": [], "torch": []}
    for number in range(rounds + 2):  # two to warm up
        taken = {"aejax": trainer.train(steps), "torch": torch.ask(f"train {steps}")[1]}
        time.sleep(_PAUSE_SECONDS)
        if number > 1:
            for name, seconds in taken.items():
                times[name].append(seconds / steps)
        shown = "  ".join(f"{name} {1e3 * t / steps:.1f}" for name, t in taken.items())
        print(f"round {number - 1}/{rounds}, ms a step: {shown}", file=sys.stderr)
    losses = {"aejax": trainer.loss(1000), "torch": torch.ask("test")[0]["loss"]}
    ratios = ratio(times["aejax"], times["torch"])
    return {
        "parameters": params,
        "torch": {**found, "layout_and_threads": form},
        "milliseconds": {name: spread(each, 1e-3) for name, each in times.items()},
        "losses": {name: round(loss, 3) for name, loss in losses.items()},
        "losses_equal": max(losses.values()) <= (1 + _TRAINED) * min(losses.values()),
        "ratio": ratios,
        "met": ratios["best"] <= BAR,
    }


def _quickest(torch: Process) -> str:
    """The layout and the number of threads with which PyTorch takes the fewest seconds."""
    seconds = {}
    for layout in LAYOUTS:
        for threads in {1, os.cpu_count() or 1}:
            form = f"{layout} {threads}"
            torch.ask(f"start {form}")
            seconds[form] = statistics.median([torch.ask("train 10")[1] for _ in range(4)][1:])
    shown = "  ".join(f"{form}: {100 * taken:.1f}" for form, taken in seconds.items())
    print(f"torch, ms a step by layout and threads: {shown}", file=sys.stderr)
    return min(seconds, key=lambda form: seconds[form])


def main(argv: list[str]) -> int | None:
    """Measures, and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"stray word: {argv[1]!r}")
    data = _DATA.value or os.path.join(os.environ.get("AEJAX_DATA", ""), "mnist")
    data = os.path.abspath(os.path.expanduser(data))
    trainer = Trainer(made(data))
    with tempfile.TemporaryDirectory() as folder:
        initial, log = (os.path.join(folder, name) for name in ("initial.npz", "stderr.txt"))
        arrays = {name.replace("/", "."): array for name, array in trainer.params().items()}
        np.savez(initial, **arrays)  # pyright: ignore[reportArgumentType]
        module = "benchmarks.peers.torch_convolution"
        command = [_PEERS_PYTHON.value, "-m", module, data, initial]
        try:
            with Process("torch", command, log, _TIMEOUT.value) as torch:
                result = measure(trainer, torch)
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    line = {
        "benchmark": "convolution_peers",
        "backend": jax.default_backend(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "batch_size": BATCH_SIZE,
        "rounds": _ROUNDS.value,
        "steps": _STEPS.value,
        "bar": f"aejax / torch at most {BAR}",
        **result,
    }
    print(json.dumps(line), flush=True)
    return None if result["losses_equal"] else 1


if __name__ == "__main__":
    app.run(main)
