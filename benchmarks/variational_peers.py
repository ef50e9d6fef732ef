"""aejax's trainer against pythae's: the variational preset's network on MNIST.

    python -m benchmarks.variational_peers --data=FOLDER --peers_python=PYTHAE/bin/python

prints one JSON line; what it is doing goes to standard error. FOLDER has MNIST's IDX files. The
network is 784-200-200-50 and back, tanh, a normal code, Bernoulli pixels (grey ones as they are),
float32, batch 100, Adam with rate 0.001, the negative ELBO with one sample a row.

Both are warm processes that take turns, a round of --epochs each. aejax trains through its public
trainer, with progress, metrics, TensorBoard, an evaluation and a checkpoint in each round
(`benchmarks/peers/aejax_variational.py`); pythae through its `BaseTrainer` as it comes, with one
thread or one a core, whichever was quicker in the rounds to warm up, and without an evaluation. The
time of aejax's evaluations is not left out. After as many updates both have the same negative ELBO
to a nat, as means over the last epoch, else the exit code is 1 and the ratio means nothing. aejax
should be at least twice as fast.
"""

import json
import os
import sys
import tempfile
import time
from typing import Any

from absl import app, flags

from benchmarks.peers.processes import Failed, Process
from benchmarks.ratios import ratio, spread

_DATA = flags.DEFINE_string(
    "data", None, "Folder with MNIST's IDX files. Default: mnist/ in the folder AEJAX_DATA."
)
_PEERS_PYTHON = flags.DEFINE_string(
    "peers_python", sys.executable, "Interpreter that has pythae. Default: this one."
)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed rounds.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 2, "Of a round.", lower_bound=1)
_TIMEOUT = flags.DEFINE_integer("timeout", 300, "Seconds a round may take.", lower_bound=1)

BAR = 2.0
WARMUP = 2
_PAUSE_SECONDS = 0.3  # until threads that spin after their work are asleep
_NATS = 1.0


def measure(aejax: Process, pythae: Process) -> dict[str, Any]:
    """Times both, round by round, and compares what they learned."""
    begun = {"aejax": aejax.answer(), "pythae": pythae.answer()}
    times: dict[str, list[float]] = {"aejax": [], "pythae": []}
    threads = [1, os.cpu_count() or 1]
    warm, last = [], 0.0
    for number in range(1 - WARMUP, _ROUNDS.value + 1):
        with_threads = threads[number + WARMUP - 1] if number < 1 else threads[_least(warm)]
        taken = {"aejax": aejax.ask("go")[1]}
        time.sleep(_PAUSE_SECONDS)
        answer, taken["pythae"] = pythae.ask(f"go {with_threads}")
        time.sleep(_PAUSE_SECONDS)
        last = answer["loss"]
        if number < 1:
            warm.append(taken["pythae"])
        else:
            for name, seconds in taken.items():
                times[name].append(seconds / _EPOCHS.value)
        shown = "  ".join(f"{name} {t / _EPOCHS.value:.2f}" for name, t in taken.items())
        print(f"round {number}/{_ROUNDS.value}, s an epoch: {shown}", file=sys.stderr)
    end = aejax.ask("end")[0]
    losses = {"aejax": end["losses"][-1], "pythae": last}
    ratios = ratio(times["pythae"], times["aejax"])
    return {
        "sides": begun,
        "threads_of_pythae": threads[_least(warm)],
        "seconds_an_epoch": {name: spread(each) for name, each in times.items()},
        "seconds_of_aejax_evaluations": spread(end["evaluations"][WARMUP:]),
        "negative_elbo": {name: round(loss, 3) for name, loss in losses.items()},
        "elbos_equal": abs(losses["aejax"] - losses["pythae"]) <= _NATS,
        "ratio": ratios,
        "met": ratios["best"] >= BAR,
    }


def _least(values: list[float]) -> int:
    return min(range(len(values)), key=lambda n: values[n])


def main(argv: list[str]) -> int | None:
    """Measures, and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"stray word: {argv[1]!r}")
    data = _DATA.value or os.path.join(os.environ.get("AEJAX_DATA", ""), "mnist")
    data = os.path.abspath(os.path.expanduser(data))
    pythons = {"aejax": sys.executable, "pythae": _PEERS_PYTHON.value}
    with tempfile.TemporaryDirectory() as folder:

        def process(name: str) -> Process:
            module = f"benchmarks.peers.{name}_variational"
            words = [data, os.path.join(folder, name), _EPOCHS.value, _ROUNDS.value + WARMUP]
            command = [pythons[name], "-m", module, *map(str, words)]
            return Process(name, command, os.path.join(folder, f"{name}.txt"), _TIMEOUT.value)

        try:
            with process("aejax") as aejax, process("pythae") as pythae:
                result = measure(aejax, pythae)
        except Failed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    line = {
        "benchmark": "variational_peers",
        "cores": os.cpu_count(),
        "rounds": _ROUNDS.value,
        "epochs_a_round": _EPOCHS.value,
        "bar": f"pythae / aejax at least {BAR}",
        **result,
    }
    print(json.dumps(line), flush=True)
    return None if result["elbos_equal"] else 1


if __name__ == "__main__":
    app.run(main)
