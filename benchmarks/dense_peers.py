"""aejax's trainer against Keras, PyTorch and a bare JAX scan: one network, the same updates.

    python benchmarks/dense_peers.py --data=FOLDER --peers_python=PEERS/bin/python

FOLDER has MNIST's (or Fashion-MNIST's) IDX files. The network is 784-32-784 with a relu code and
the cross-entropy of Bernoulli pixels, float32, batch 256, 234 batches an epoch, Glorot's
initialisation, Adadelta with rate 1 or Adam with rate 0.001. Prints one JSON line; what it is doing
goes to standard error. `benchmarks/README.md` says how to install the peers and read the line.

--what=epochs      Seconds an epoch in warm processes that take turns, a round of --epochs each.
                   aejax: all that the public trainer does in a round, with progress, metrics,
                   TensorBoard, an evaluation and a checkpoint (`benchmarks/peers/aejax_trainer.py`
                   says how it is paused between rounds). The others: their training alone.
--what=process     Seconds from starting Python to its end, --epochs in all: `python -m
                   launch.train` at its default settings (ten evaluations, and a checkpoint at each
                   that is the best so far), the others with one evaluation at the end; with no
                   compilation cache (cold) and with a filled one (warm).
--what=streaming   aejax reading its rows as it goes against the data on the device, as `epochs`.
--what=memory      Peak resident memory of one whole run of each, less the data's size.

With two cores: epochs 5 minutes, process 15, streaming 1, memory 1. The exit code is 1 when the
final test losses differ by more than a hundredth: the work was not equal then, and no ratio means
anything.
"""

import contextlib
import dataclasses
import gzip
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from typing import Any

from absl import app, flags

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
    "competitor",
    ["bare_scan", "aejax", "keras_jax", "torch_memory"],
    ["bare_scan", "aejax", "keras_jax", "torch_memory"],
    "Who takes part; as often as wanted. Default: all.",
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

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BATCH_SIZE = 256
_RATES = {"adadelta": 1.0, "adam": 1e-3}
_PEERS = {"keras_jax": ("keras", "jax"), "torch_memory": ("torch",)}
_PAUSE_SECONDS = 0.3  # until threads that spin after their work are asleep
_TOLERANCE = 0.01
_MIB = 2**20
# Ratios of seconds that are told, and where the best one should stand.
_RATIOS: dict[str, dict[tuple[str, str], tuple[str, float] | None]] = {
    "epochs": {
        ("aejax", "bare_scan"): ("at most", 1.1),
        ("keras_jax", "aejax"): ("at least", 1.4),
        ("torch_memory", "aejax"): ("at least", 1.8),
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
_MEMORY_MIB = 600.0  # of aejax, above the data

Result = dict[str, Any]


class Failed(RuntimeError):
    """A competitor ended, or did not answer."""


@dataclasses.dataclass(frozen=True)
class Entrant:
    """Who is measured, and how.

    Attributes:
        name: in the results.
        program: bare_scan, aejax, keras_jax or torch_memory.
        more: further words of its command line.
        cache: folder that keeps its compiled programs; "" for none.
    """

    name: str
    program: str
    more: tuple[str, ...] = ()
    cache: str = ""

    def worker(self, optimizer: str, epochs: int, rounds: int, workdir: str) -> list[str]:
        """The command of its program in `benchmarks/peers`."""
        python = PEERS_PYTHON.value if self.program in _PEERS else sys.executable
        module = {"aejax": "aejax_trainer"}.get(self.program, self.program)
        settings = {
            "data": _data(),
            "optimizer": optimizer,
            "epochs": epochs,
            "rounds": rounds,
            "seed": SEED.value,
            "workdir": workdir,
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        return [python, "-m", f"benchmarks.peers.{module}", *words, *self.more]

    def whole(self, optimizer: str, epochs: int, workdir: str) -> list[str]:
        """The command that a user would give for so many epochs."""
        if self.program != "aejax":
            return self.worker(optimizer, epochs, 1, workdir)
        settings = {
            "data.source": f"idx:{_data()}",
            "optimizer": optimizer,
            "optimizer.learning_rate": _RATES[optimizer],
            "batch_size": _BATCH_SIZE,
            "duration": f"{epochs * (_shape('train')[0] // _BATCH_SIZE)}steps",
            "seed": SEED.value,
            "compilation_cache": self.cache,
        }
        words = [f"--config.{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "launch.train", "--config=dense"]
        return [*command, *words, f"--workdir={workdir}", *self.more]

    def environment(self) -> dict[str, str]:
        """This one's, but for compilation caches."""
        out = {name: value for name, value in os.environ.items() if "COMPILATION" not in name}
        if self.cache:
            out["JAX_COMPILATION_CACHE_DIR"] = self.cache
            out["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        return out


class Worker:
    """A process that trains a round when asked to; it ends with the context."""

    def __init__(self, entrant: Entrant, optimizer: str, epochs: int, rounds: int, folder: str):
        self.name = entrant.name
        os.makedirs(folder)
        self._log = os.path.join(folder, "stderr.txt")
        command = entrant.worker(optimizer, epochs, rounds, os.path.join(folder, "run"))
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                [*command, "--serve"],
                cwd=_ROOT,
                env=entrant.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def answer(self) -> Result:
        """Waits for its next line."""
        try:
            line = self._answers.get(timeout=TIMEOUT.value)
        except queue.Empty:
            raise Failed(f"{self.name}: no answer in --timeout={TIMEOUT.value} s") from None
        if not line:
            raise Failed(f"{self.name} ended:\n{_tail(self._log)}")
        return json.loads(line)

    def ask(self, word: str) -> tuple[Result, float]:
        """Sends a line; returns the answer and the seconds until it came."""
        assert self._process.stdin is not None
        since = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):  # the answer then says that it ended
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        answer = self.answer()
        return answer, time.perf_counter() - since


def main(argv: list[str]) -> int | None:
    """Measures what --what says and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"stray word: {argv[1]!r}")
    measure = {"epochs": _epochs, "process": _process, "streaming": _streaming, "memory": _memory}
    results = {}
    try:
        rows = _shape("train")[0]
        names = _present(list(dict.fromkeys(COMPETITORS.value)))
        for optimizer in dict.fromkeys(OPTIMIZERS.value):
            with tempfile.TemporaryDirectory() as folder:
                results[optimizer] = measure[WHAT.value](optimizer, names, folder)
    except (Failed, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    line = {
        "benchmark": "dense_peers",
        "what": WHAT.value,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "train_rows": rows,
        "batch_size": _BATCH_SIZE,
        "epochs_a_round": _epochs_a_round(),
        "rounds": ROUNDS.value,
        "seed": SEED.value,
        "results": results,
    }
    print(json.dumps(line))
    unequal = [name for name, result in results.items() if not result["losses_equal"]]
    if unequal:
        print(f"failed: final test losses differ with {', '.join(unequal)}", file=sys.stderr)
        return 1
    return None


def _epochs(optimizer: str, names: list[str], folder: str) -> Result:
    """Seconds an epoch of warm processes that take turns."""
    entrants = [Entrant(name, name) for name in names]
    if "keras_jax" in names:
        steps = _best_steps(lambda keras: _short_epochs(keras, optimizer, folder))
        entrants[names.index("keras_jax")] = _keras(steps)
    return _take_turns(optimizer, entrants, folder)


def _streaming(optimizer: str, names: list[str], folder: str) -> Result:
    """Seconds an epoch of aejax alone, by the way its rows reach the device."""
    feeds = ("resident", "streaming")
    entrants = [Entrant(feed, "aejax", (f"--feed={feed}",)) for feed in feeds]
    return _take_turns(optimizer, entrants, folder)


def _take_turns(optimizer: str, entrants: list[Entrant], folder: str) -> Result:
    """Starts and warms up these processes, then times them round by round."""
    epochs, rounds = _epochs_a_round(), ROUNDS.value
    seconds: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    with contextlib.ExitStack() as stack:
        workers = []
        for entrant in entrants:
            place = os.path.join(folder, entrant.name)
            worker = Worker(entrant, optimizer, epochs, WARMUP.value + rounds, place)
            workers.append(stack.enter_context(worker))
            worker.answer()
            for _ in range(WARMUP.value):
                worker.ask("go")
            _say(f"{optimizer}: {worker.name} is warm")
        for number in range(1, rounds + 1):
            for worker in workers:
                time.sleep(_PAUSE_SECONDS)
                seconds[worker.name].append(worker.ask("go")[1] / epochs)
            _say(f"{optimizer}: round {number}/{rounds}, s/epoch: {_last(seconds)}")
        ends = {worker.name: worker.ask("end")[0] for worker in workers}
    return _result(entrants, seconds, ends)


def _process(optimizer: str, names: list[str], folder: str) -> Result:
    """Seconds of whole processes that take turns, with and without a compilation cache."""
    entrants = [Entrant(name, name) for name in names]
    if "keras_jax" in names:
        _whole(_keras(1), optimizer, folder)  # fills the disk's cache
        steps = _best_steps(lambda keras: _whole(keras, optimizer, folder)["seconds"])
        entrants[names.index("keras_jax")] = _keras(steps)
    entrants += [
        dataclasses.replace(cold, name=f"{cold.name} warm", cache=f"{folder}/{cold.name}-cache")
        for cold in entrants
        if cold.program != "torch_memory"
    ]
    seconds: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    ends: dict[str, Result] = {}
    for number in range(ROUNDS.value + 1):  # the first fills caches and is not timed
        for entrant in entrants:
            time.sleep(_PAUSE_SECONDS)
            ends[entrant.name] = _whole(entrant, optimizer, folder)
            if number:
                seconds[entrant.name].append(ends[entrant.name]["seconds"])
        if number:
            _say(f"{optimizer}: round {number}/{ROUNDS.value}, s: {_last(seconds)}")
    return _result(entrants, seconds, ends)


def _memory(optimizer: str, names: list[str], folder: str) -> Result:
    """Peak resident memory of whole processes, less the data's size."""
    entrants = [Entrant(name, name) for name in names if name != "keras_jax"]
    if "keras_jax" in names:
        entrants.append(_keras(STEPS_PER_EXECUTION.value[0]))
    if "aejax" in names:
        entrants.append(Entrant("aejax streaming", "aejax", ("--config.data.feed=streaming",)))
    ends = {entrant.name: _whole(entrant, optimizer, folder) for entrant in entrants}
    result = _result(entrants, {}, ends)
    data = sum(rows * pixels for rows, pixels in map(_shape, ("train", "t10k"))) / _MIB
    result["data_mib"] = round(data, 1)
    for entrant in entrants:
        peak = ends[entrant.name]["peak_mib"]
        found = {"peak_mib": round(peak, 1), "above_data_mib": round(peak - data, 1)}
        result["competitors"][entrant.name] |= found
        _say(f"{optimizer}: {entrant.name}: {peak:.0f} MiB, {peak - data:.0f} above the data")
        if entrant.program == "aejax":
            bar = _bar(found["above_data_mib"], "at most", _MEMORY_MIB)
            result["bars"][f"{entrant.name} above the data, MiB"] = bar
    return result


def _keras(steps: int) -> Entrant:
    return Entrant("keras_jax", "keras_jax", (f"--steps_per_execution={steps}",))


def _best_steps(seconds: Any) -> int:
    """The steps_per_execution with which Keras takes the fewest `seconds(entrant)`."""
    times = {steps: seconds(_keras(steps)) for steps in dict.fromkeys(STEPS_PER_EXECUTION.value)}
    shown = "  ".join(f"{steps}: {taken:.3f}" for steps, taken in times.items())
    _say(f"keras_jax, seconds by steps_per_execution: {shown}")
    return min(times, key=lambda steps: times[steps])


def _short_epochs(entrant: Entrant, optimizer: str, folder: str) -> float:
    """Seconds an epoch: the best of three short rounds, after one to warm up."""
    epochs, rounds = 2, 4
    with tempfile.TemporaryDirectory(dir=folder) as place:
        worker = Worker(entrant, optimizer, epochs, rounds, os.path.join(place, "worker"))
        with worker:
            worker.answer()
            return min([worker.ask("go")[1] for _ in range(rounds)][1:]) / epochs


def _whole(entrant: Entrant, optimizer: str, folder: str) -> Result:
    """Runs a process from start to end: {"seconds", "peak_mib", "test_loss", ...}."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run, printed = os.path.join(place, "run"), os.path.join(place, "stdout.txt")
        log = os.path.join(place, "stderr.txt")
        command = entrant.whole(optimizer, _epochs_a_round(), run)
        environment = entrant.environment()
        with open(printed, "w") as out, open(log, "w") as errors:
            since = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdout=out, stderr=errors
            )
            late = threading.Timer(TIMEOUT.value, process.kill)
            late.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - since
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                late.cancel()
                if process.returncode is None:
                    process.kill()
                    process.wait()
        if process.returncode:
            raise Failed(f"{entrant.name} ended with {process.returncode}:\n{_tail(log)}")
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        measured = {"seconds": seconds, "peak_mib": usage.ru_maxrss * unit / _MIB}
        if entrant.program != "aejax":
            with open(printed) as file:
                return measured | json.load(file)
        with open(os.path.join(run, "metrics.jsonl")) as file:
            rows = [json.loads(line) for line in file]
    last = [row for row in rows if row["split"] == "test"][-1]
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax")}
    versions = {"python": platform.python_version(), **versions}
    return measured | {"test_loss": last["nll"] / _shape("train")[1], "versions": versions}


def _result(
    entrants: list[Entrant], seconds: dict[str, list[float]], ends: dict[str, Result]
) -> Result:
    """What is told of one optimizer."""
    competitors: dict[str, Result | None] = dict.fromkeys(COMPETITORS.value)
    if WHAT.value == "streaming":
        competitors = {}
    for entrant in entrants:
        end = ends[entrant.name]
        told = {name: end[name] for name in ("test_loss", "versions", "device") if name in end}
        if "evaluation_seconds" in end:
            told["evaluation_seconds_a_round"] = round(end["evaluation_seconds"], 4)
        told["test_loss"] = round(told["test_loss"], 6)
        if entrant.more:
            told["settings"] = " ".join(entrant.more)
        if times := seconds.get(entrant.name):
            told["seconds"] = {
                "best": round(min(times), 4),
                "median": round(statistics.median(times), 4),
                "worst": round(max(times), 4),
                "rounds": [round(time_, 4) for time_ in times],
            }
        competitors[entrant.name] = told
    losses = [end["test_loss"] for end in ends.values()]
    ratios, bars = _ratios(seconds)
    return {
        "competitors": competitors,
        "ratios": ratios,
        "bars": bars,
        "losses_equal": max(losses) <= (1 + _TOLERANCE) * min(losses),
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
        code = "import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, {!r}))"
        command = [PEERS_PYTHON.value, "-c", code.format(_PEERS.get(name, ()))]
        if name not in _PEERS or subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0:
            out.append(name)
        else:
            packages = " and ".join(_PEERS[name])
            _say(f"{name} is left out: --peers_python={PEERS_PYTHON.value} has no {packages}")
    return out


def _data() -> str:
    folder = DATA.value or os.path.join(os.environ.get("AEJAX_DATA", ""), "mnist")
    return os.path.abspath(os.path.expanduser(folder))


def _shape(split: str) -> tuple[int, int]:
    """Rows and pixels of an IDX file, by its header."""
    name = os.path.join(_data(), f"{split}-images-idx3-ubyte")
    if not os.path.exists(name) and not os.path.exists(name + ".gz"):
        raise Failed(f"--data={_data()}: there is no {os.path.basename(name)}, nor with .gz")
    opened = open(name, "rb") if os.path.exists(name) else gzip.open(name + ".gz")  # noqa: SIM115
    with opened as file:
        header = file.read(16)
    rows, height, width = (int.from_bytes(header[i : i + 4], "big") for i in (4, 8, 12))
    return rows, height * width


def _epochs_a_round() -> int:
    return EPOCHS.value or (10 if WHAT.value in ("process", "memory") else 5)


def _last(seconds: dict[str, list[float]]) -> str:
    return "  ".join(f"{name} {times[-1]:.4f}" for name, times in seconds.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tail(log: str) -> str:
    with open(log) as file:
        return file.read()[-2000:]


if __name__ == "__main__":
    app.run(main)
