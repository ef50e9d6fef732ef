"""aejax's trainer against Keras, PyTorch and a bare JAX scan: one network, the same updates.

    python -m benchmarks.dense_peers --data=FOLDER --peers_python=PEERS/bin/python

FOLDER has MNIST's (or Fashion-MNIST's) IDX files. The network is 784-32-784 with a relu code and
the cross-entropy of Bernoulli pixels, float32, batch 256, 234 batches an epoch, the same initial
parameters, Adadelta with rate 1 and Adam with rate 0.001. Prints one JSON line; what it is doing
goes to standard error. `benchmarks/README.md` says how to install the peers and read the line.

--what=epochs      Seconds an epoch in warm processes that take turns, a round of --epochs each.
                   aejax trains through its public trainer with progress, metrics, TensorBoard and
                   checkpoints (`benchmarks/peers/aejax_trainer.py` says how it is paused between
                   rounds). It evaluates once a round, the others do not: that time is left out of
                   "aejax", and stands in "aejax with evaluation".
--what=process     Seconds from starting Python to its end, --epochs in all: `python -m
                   launch.train` at its default settings (ten evaluations, and a checkpoint at each
                   that is the best so far), the others with one evaluation at the end; with no
                   compilation cache (cold) and with a filled one (warm).
--what=streaming   aejax reading its rows as it goes against the data on the device, as `epochs`.
--what=memory      Peak resident memory of one whole run of each, less the data's size.

With two cores: epochs 5 minutes, process 20, streaming 2, memory 2. The exit code is 1 when test
losses (the lowest of the rounds) differ by more than a hundredth: the work was not equal then,
and no ratio means anything.
"""

import contextlib
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from absl import app, flags

from benchmarks.peers import processes
from benchmarks.peers.processes import PEERS, PROGRAMS, Entrant, Failed, Job, Result, Worker

DATA = flags.DEFINE_string(
    "data", None, "Folder with MNIST's IDX files. Default: mnist/ in the folder AEJAX_DATA."
)
WHAT = flags.DEFINE_enum(
    "what", "epochs", ["epochs", "process", "streaming", "memory"], "What is measured."
)
OPTIMIZERS = flags.DEFINE_multi_enum(
    "optimizer", ["adadelta", "adam"], ["adadelta", "adam"], "Once or twice. Default: both."
)
COMPETITORS = flags.DEFINE_multi_enum(
    "competitor", list(PROGRAMS), list(PROGRAMS), "Who takes part, one a flag. Default: all."
)
PEERS_PYTHON = flags.DEFINE_string(
    "peers_python", sys.executable, "Interpreter that has keras, jax and torch. Default: this one."
)
ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed rounds.", lower_bound=1)
WARMUP = flags.DEFINE_integer(
    "warmup", 2, "Rounds before, not timed; of whole processes it is one.", lower_bound=2
)
EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Epochs of a round. Default: 5; of a whole process 10.", lower_bound=1
)
STEPS_PER_EXECUTION = flags.DEFINE_multi_integer(
    "steps_per_execution", [1, 32, 117, 234], "Keras's; the quickest of these is taken."
)
SEED = flags.DEFINE_integer("seed", 0, "Of the initial parameters and the order.", lower_bound=0)
TIMEOUT = flags.DEFINE_integer("timeout", 600, "Seconds that a round may take.", lower_bound=1)

_WITH = "aejax with evaluation"
_PAUSE_SECONDS = 0.3  # until threads that spin after their work are asleep
_TOLERANCE = 0.01
_MEMORY_MIB = 600.0  # of aejax, above the data
# Ratios of seconds that are told, and where the best one should stand.
_RATIOS: dict[str, dict[tuple[str, str], tuple[str, float] | None]] = {
    "epochs": {
        ("aejax", "bare_scan"): ("at most", 1.1),
        ("keras_jax", "aejax"): ("at least", 1.4),
        ("torch_memory", "aejax"): ("at least", 1.8),
        (_WITH, "bare_scan"): None,
        ("keras_jax", _WITH): None,
        ("torch_memory", _WITH): None,
    },
    "process": {
        ("aejax", "keras_jax"): ("at most", 0.7),
        ("aejax warm", "keras_jax"): ("at most", 0.7),
        ("aejax warm", "keras_jax warm"): None,
        ("aejax", "torch_memory"): None,
        ("aejax", "bare_scan"): None,
        ("aejax warm", "bare_scan warm"): None,
    },
    "streaming": {("streaming", "resident"): ("at most", 1.5)},
    "memory": {},
}


def main(argv: list[str]) -> int | None:
    """Measures what --what says and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"stray word: {argv[1]!r}")
    measure = {"epochs": _epochs, "process": _process, "streaming": _streaming, "memory": _memory}
    results = {}
    try:
        names = _present(list(dict.fromkeys(COMPETITORS.value)))
        for optimizer in dict.fromkeys(OPTIMIZERS.value):
            with tempfile.TemporaryDirectory() as folder:
                job = _job(optimizer, folder)
                rows, pixels = job.shape("train")
                results[optimizer] = measure[WHAT.value](job, names)
    except (Failed, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    line = {
        "benchmark": "dense_peers",
        "what": WHAT.value,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "rows": rows,
        "pixels": pixels,
        "batch_size": processes.BATCH_SIZE,
        "epochs_a_round": job.epochs,
        "rounds": ROUNDS.value,
        "seed": SEED.value,
        "results": results,
    }
    print(json.dumps(line), flush=True)
    unequal = [name for name, result in results.items() if not result["losses_equal"]]
    if unequal:
        print(f"failed: test losses differ with {', '.join(unequal)}", file=sys.stderr)
        return 1
    return None


def _job(optimizer: str, folder: str) -> Job:
    data = DATA.value or os.path.join(os.environ.get("AEJAX_DATA", ""), "mnist")
    return Job(
        data=os.path.abspath(os.path.expanduser(data)),
        optimizer=optimizer,
        epochs=EPOCHS.value or (10 if WHAT.value in ("process", "memory") else 5),
        seed=SEED.value,
        peers_python=PEERS_PYTHON.value,
        timeout=TIMEOUT.value,
        folder=folder,
    )


def _epochs(job: Job, names: list[str]) -> Result:
    """Seconds an epoch of warm processes that take turns."""
    entrants = [Entrant(name, name) for name in names]
    if "keras_jax" in names:
        steps = _best_steps(lambda keras: _short_epochs(keras, job))
        entrants[names.index("keras_jax")] = _keras(steps)
    return _take_turns(job, entrants)


def _streaming(job: Job, names: list[str]) -> Result:
    """Seconds an epoch of aejax alone, by the way its rows reach the device."""
    del names
    feeds = ("resident", "streaming")
    return _take_turns(job, [Entrant(feed, "aejax", (f"--feed={feed}",)) for feed in feeds])


def _take_turns(job: Job, entrants: list[Entrant]) -> Result:
    """Starts and warms up these processes, then times them round by round."""
    rounds, warmup = ROUNDS.value, WARMUP.value
    seconds: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    losses: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    with contextlib.ExitStack() as stack:
        workers = []
        for entrant in entrants:
            worker = stack.enter_context(Worker(entrant, job, warmup + rounds))
            workers.append(worker)
            worker.answer()
            for _ in range(warmup):
                worker.ask("go")
            _say(f"{job.optimizer}: {worker.name} is warm")
        for number in range(1, rounds + 1):
            for worker, entrant in zip(workers, entrants, strict=True):
                time.sleep(_PAUSE_SECONDS)
                seconds[worker.name].append(worker.ask("go")[1] / job.epochs)
                if entrant.program != "aejax":
                    losses[worker.name].append(worker.ask("test")[0]["test_loss"])
            _say(f"{job.optimizer}: round {number}/{rounds}, s/epoch: {_last(seconds)}")
        ends = {worker.name: worker.ask("end")[0] for worker in workers}
    for name, end in ends.items():
        losses[name] = losses[name] or end["test_losses"][warmup:]
    if "aejax" in ends:
        # A round begins with the evaluation that closes the round before.
        evaluations = ends["aejax"]["evaluations"][warmup - 1 : warmup - 1 + rounds]
        seconds[_WITH] = seconds["aejax"]
        seconds["aejax"] = [
            all_ - evaluation / job.epochs
            for all_, evaluation in zip(seconds[_WITH], evaluations, strict=True)
        ]
        entrants = [*entrants, Entrant(_WITH, "aejax")]
        ends[_WITH], losses[_WITH] = ends["aejax"], losses["aejax"]
    return _result(entrants, ends, losses, seconds)


def _process(job: Job, names: list[str]) -> Result:
    """Seconds of whole processes that take turns, with and without a compilation cache."""
    entrants = [Entrant(name, name) for name in names]
    if "keras_jax" in names:
        processes.whole(_keras(1), job)  # its files are in the system's cache from here on
        steps = _best_steps(lambda keras: processes.whole(keras, job)["seconds"])
        entrants[names.index("keras_jax")] = _keras(steps)
    entrants += [
        dataclasses.replace(cold, name=f"{cold.name} warm", cache=f"{job.folder}/{cold.name}")
        for cold in entrants
        if cold.program != "torch_memory"
    ]
    seconds: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    losses: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    ends: dict[str, Result] = {}
    for number in range(ROUNDS.value + 1):  # the first fills caches and is not timed
        job = dataclasses.replace(job, seed=SEED.value + number)
        job.initial()
        for entrant in entrants:
            time.sleep(_PAUSE_SECONDS)
            ends[entrant.name] = processes.whole(entrant, job)
            if number:
                seconds[entrant.name].append(ends[entrant.name]["seconds"])
                losses[entrant.name].append(ends[entrant.name]["test_loss"])
        if number:
            _say(f"{job.optimizer}: round {number}/{ROUNDS.value}, s: {_last(seconds)}")
    return _result(entrants, ends, losses, seconds)


def _memory(job: Job, names: list[str]) -> Result:
    """Peak resident memory of whole processes, less the data's size."""
    entrants = [Entrant(name, name) for name in names if name != "keras_jax"]
    if "keras_jax" in names:
        entrants.append(_keras(STEPS_PER_EXECUTION.value[0]))
    if "aejax" in names:
        entrants.append(Entrant("aejax streaming", "aejax", ("--config.data.feed=streaming",)))
    ends = {entrant.name: processes.whole(entrant, job) for entrant in entrants}
    losses = {name: [end["test_loss"]] for name, end in ends.items()}
    result = _result(entrants, ends, losses, {})
    data = sum(rows * pixels for rows, pixels in map(job.shape, ("train", "t10k"))) / 2**20
    result["data_mib"] = round(data, 1)
    for entrant in entrants:
        peak = ends[entrant.name]["peak_mib"]
        found = {"peak_mib": round(peak, 1), "above_data_mib": round(peak - data, 1)}
        result["competitors"][entrant.name] |= found
        _say(f"{job.optimizer}: {entrant.name}: {peak:.0f} MiB, {peak - data:.0f} above the data")
        if entrant.program == "aejax":
            bar = _bar(found["above_data_mib"], "at most", _MEMORY_MIB)
            result["bars"][f"{entrant.name} above the data, MiB"] = bar
    return result


def _keras(steps: int) -> Entrant:
    return Entrant("keras_jax", "keras_jax", (f"--steps_per_execution={steps}",))


def _best_steps(seconds: Callable[[Entrant], float]) -> int:
    """The steps_per_execution with which Keras takes the fewest seconds."""
    times = {steps: seconds(_keras(steps)) for steps in dict.fromkeys(STEPS_PER_EXECUTION.value)}
    shown = "  ".join(f"{steps}: {taken:.3f}" for steps, taken in times.items())
    _say(f"keras_jax, seconds by steps_per_execution: {shown}")
    return min(times, key=lambda steps: times[steps])


def _short_epochs(entrant: Entrant, job: Job) -> float:
    """Seconds an epoch: the best of three short rounds, after one to warm up."""
    epochs, rounds = 2, 4
    with Worker(entrant, dataclasses.replace(job, epochs=epochs), rounds) as worker:
        worker.answer()
        return min([worker.ask("go")[1] for _ in range(rounds)][1:]) / epochs


def _result(
    entrants: list[Entrant],
    ends: dict[str, Result],
    losses: dict[str, list[float]],
    seconds: dict[str, list[float]],
) -> Result:
    """What is told of one optimizer.

    Losses are compared by the lowest of the rounds: with a rate of 1, Adadelta's test loss jumps up
    by one or two hundredths now and then, and comes back.
    """
    lowest = {name: min(found) for name, found in losses.items()}
    # Those that could not take part stand there too.
    missing = [] if WHAT.value == "streaming" else COMPETITORS.value
    competitors: dict[str, Result | None] = dict.fromkeys(missing)
    for entrant in entrants:
        end = ends[entrant.name]
        told = {name: end[name] for name in ("versions", "device") if name in end}
        told["test_loss"] = round(lowest[entrant.name], 6)
        told["last_test_loss"] = round(end["test_loss"], 6)
        if entrant.more:
            told["settings"] = " ".join(entrant.more)
        if times := seconds.get(entrant.name):
            told["seconds"] = {
                "best": round(min(times), 4),
                "median": round(statistics.median(times), 4),
                "worst": round(max(times), 4),
                "rounds": [round(taken, 4) for taken in times],
            }
        competitors[entrant.name] = told
    ratios, bars = _ratios(seconds)
    return {
        "competitors": competitors,
        "ratios": ratios,
        "bars": bars,
        "losses_equal": max(lowest.values()) <= (1 + _TOLERANCE) * min(lowest.values()),
    }


def _ratios(seconds: dict[str, list[float]]) -> tuple[Result, Result]:
    """Ratios of best, of median, and the median of the ratios round by round; and the bars."""
    ratios, bars = {}, {}
    for (above, below), bar in _RATIOS[WHAT.value].items():
        if above not in seconds or below not in seconds:
            continue
        a, b = seconds[above], seconds[below]
        ratio = {
            "best": min(a) / min(b),
            "median": statistics.median(a) / statistics.median(b),
            "by_round": statistics.median(x / y for x, y in zip(a, b, strict=True)),
        }
        name = f"{above} / {below}"
        ratios[name] = {key: round(value, 3) for key, value in ratio.items()}
        if bar is not None:
            bars[name] = _bar(ratios[name]["best"], *bar)
    return ratios, bars


def _bar(value: float, way: str, limit: float) -> Result:
    met = value <= limit if way == "at most" else value >= limit
    return {"value": value, "bar": f"{way} {limit:g}", "met": met}


def _present(names: list[str]) -> list[str]:
    """Those whose packages the peers' interpreter has; the others are named."""
    out = []
    for name in names:
        if name not in PEERS or processes.has(PEERS_PYTHON.value, PEERS[name]):
            out.append(name)
            continue
        packages = " and ".join(PEERS[name])
        _say(f"{name} is left out: --peers_python={PEERS_PYTHON.value} has no {packages}")
    return out


def _last(seconds: dict[str, list[float]]) -> str:
    return "  ".join(f"{name} {times[-1]:.4f}" for name, times in seconds.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app.run(main)
