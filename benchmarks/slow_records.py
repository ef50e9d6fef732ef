"""How many threads feed a step from a source whose records are slow to read or decode.

    python -m benchmarks.slow_records [--rounds=3] [--record_ms=5] [--threads=8,16,32]

prints one JSON line. Each record of the source takes 5 ms in which Python waits, as for a disk, a
network or a decoder that leaves the interpreter's lock; a batch of 32 has 160 ms of them. The model
(784-1000-500-32 and back, Adam) is trained by the public `train`, with everything on: from data on
the device, and streaming with each number of threads (`config.data.threads`), in turns.

- `step_ms`: of each, the best and the median round, milliseconds a step by metrics.jsonl, once what
  was read ahead while the program was compiled is used up.
- `needed`: threads that records a step / seconds a step asks for, at the resident feed's best step.
- `ratio`: streaming over resident, best rounds, at each number of threads. At `needed` and above it
  should stand near 1: reading, copying and sending are hidden behind the steps.

A decoder that computes, on the cores that also compute the step, is no matter of threads: there the
cores are what is short.

The last result stands in benchmarks/README.md.
"""

import dataclasses
import json
import math
import os
import statistics
import tempfile
import time

import jax
import numpy as np
from absl import app, flags

from aejax import Config
from aejax.data.sources.base import Rows, Spec
from aejax.models import Autoencoder
from aejax.models.coders import Dense
from aejax.training.trainer import Trainer

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of all variants.", lower_bound=1)
_RECORD = flags.DEFINE_float("record_ms", 5.0, "Milliseconds that one record takes.", 0.0)
_THREADS = flags.DEFINE_list("threads", ["8", "16", "32"], "Numbers of threads.")

ROWS, BATCH_SIZE = 4096, 32
# The feed hands out blocks of 256 steps: from within the second to the same place in the fourth.
STEPS, FROM, TO, ROW = 1024, 320, 832, 64


@dataclasses.dataclass(frozen=True)
class Slow:
    """Rows of noise, each of which takes a while."""

    x: np.ndarray
    seconds: float

    @property
    def spec(self) -> Spec:
        return Spec(self.x.shape[1:], "uint8", 255, False)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: np.ndarray | slice) -> Rows:
        rows = self.x[index]
        for _ in rows:
            time.sleep(self.seconds)
        return Rows(rows)


def config(threads: int) -> Config:
    """The settings of the run; 0 threads for the resident feed."""
    made = Config(
        model=Autoencoder(coder=Dense(hidden=(1000, 500))),
        batch_size=BATCH_SIZE,
        duration=f"{STEPS} steps",
        log_every=ROW,
    )
    made.evaluation.every = ""
    made.data.feed = "streaming" if threads else "resident"
    made.data.threads = threads or 1
    return made


def milliseconds_a_step(threads: int, seconds: float) -> float:
    """Trains once; streaming pays `seconds` for each record, the resident feed nothing."""
    x = np.random.RandomState(0).randint(0, 256, (ROWS, 28, 28, 1), np.uint8)
    sources = Slow(x, seconds if threads else 0.0), Slow(x[:64], 0.0)
    with tempfile.TemporaryDirectory() as workdir:
        outcome = Trainer(config(threads), workdir, *sources).fit(quiet=True)
        with open(os.path.join(workdir, "metrics.jsonl")) as file:
            rows = [json.loads(line) for line in file]
    if outcome.status != "done":
        raise SystemExit(f"training ended as {outcome}")
    at = {row["step"]: row["seconds"] for row in rows if row["split"] == "train"}
    return 1000 * (at[TO] - at[FROM]) / (TO - FROM)


def main(_) -> None:
    """Measures in turns and prints the line."""
    numbers = [0, *(int(word) for word in _THREADS.value)]
    seconds = _RECORD.value / 1000
    rounds = [{n: milliseconds_a_step(n, seconds) for n in numbers} for _ in range(_ROUNDS.value)]
    best = {n: min(each[n] for each in rounds) for n in numbers}
    median = {n: statistics.median(each[n] for each in rounds) for n in numbers}
    names = {n: f"{n} threads" if n else "resident" for n in numbers}
    result = {
        "benchmark": "slow_records",
        "record_ms": _RECORD.value,
        "records_a_step": BATCH_SIZE,
        "rounds": _ROUNDS.value,
        "step_ms": {names[n]: [round(best[n], 2), round(median[n], 2)] for n in numbers},
        "needed": math.ceil(BATCH_SIZE * _RECORD.value / best[0]),
        "ratio": {names[n]: round(best[n] / best[0], 3) for n in numbers[1:]},
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
