"""The competitors' processes: those that train a round when asked to, and whole runs.

Standard library alone: the driver's own memory must not count where that of its children is read.
"""

import contextlib
import dataclasses
import gzip
import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from typing import Any, Self

BATCH_SIZE = 256
PEERS = {"keras_jax": ("keras", "jax"), "torch_memory": ("torch",)}  # and what they need
PROGRAMS = ("bare_scan", "aejax", *PEERS)
_RATES = {"adadelta": 1.0, "adam": 1e-3}
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

Result = dict[str, Any]


class Failed(RuntimeError):
    """A competitor ended, or did not answer."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What all competitors do.

    Attributes:
        data: folder with MNIST's IDX files.
        optimizer: adadelta or adam.
        epochs: of a round, or of a whole run.
        seed: of the initial parameters and the order.
        peers_python: interpreter of Keras and PyTorch.
        timeout: seconds that a round may take.
        folder: for their files; it is not kept.
    """

    data: str
    optimizer: str
    epochs: int
    seed: int
    peers_python: str
    timeout: float
    folder: str

    def initial(self) -> str:
        """The file of the parameters that all start at; aejax writes it when it is first needed."""
        name = os.path.join(self.folder, f"initial-{self.seed}.npz")
        if not os.path.exists(name):
            command = Entrant("aejax", "aejax").worker(self, 1, self.folder, name)
            done = subprocess.run(
                [*command, "--save_initial"], cwd=_ROOT, capture_output=True, text=True
            )
            if done.returncode:
                raise Failed(f"the initial parameters could not be made:\n{done.stderr[-2000:]}")
        return name

    def shape(self, split: str) -> tuple[int, int]:
        """Rows and pixels of a split (train, t10k), by its file's header."""
        name = os.path.join(self.data, f"{split}-images-idx3-ubyte")
        if os.path.exists(name):
            with open(name, "rb") as file:
                header = file.read(16)
        elif os.path.exists(name + ".gz"):
            with gzip.open(name + ".gz", "rb") as file:
                header = file.read(16)
        else:
            raise Failed(f"--data={self.data}: there is no {os.path.basename(name)}, nor with .gz")
        rows, height, width = (int.from_bytes(header[i : i + 4], "big") for i in (4, 8, 12))
        return rows, height * width

    def steps(self) -> int:
        """Updates of a round."""
        return self.epochs * (self.shape("train")[0] // BATCH_SIZE)


@dataclasses.dataclass(frozen=True)
class Entrant:
    """Who is measured, and how.

    Attributes:
        name: in the results.
        program: one of `PROGRAMS`.
        more: further words of its command line.
        cache: folder that keeps its compiled programs; "" for none.
    """

    name: str
    program: str
    more: tuple[str, ...] = ()
    cache: str = ""

    def worker(self, job: Job, rounds: int, workdir: str, initial: str) -> list[str]:
        """The command of its program in this folder."""
        python = job.peers_python if self.program in PEERS else sys.executable
        module = "aejax_trainer" if self.program == "aejax" else self.program
        settings = {
            "data": job.data,
            "optimizer": job.optimizer,
            "epochs": job.epochs,
            "rounds": rounds,
            "seed": job.seed,
            "initial": initial,
            "workdir": workdir,
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        return [python, "-m", f"benchmarks.peers.{module}", *words, *self.more]

    def whole(self, job: Job, workdir: str) -> list[str]:
        """The command that a user would give for the job's epochs."""
        if self.program != "aejax":
            return self.worker(job, 1, workdir, job.initial())
        settings = {
            "data.source": f"idx:{job.data}",
            "optimizer": job.optimizer,
            "optimizer.learning_rate": _RATES[job.optimizer],
            "batch_size": BATCH_SIZE,
            "duration": f"{job.steps()}steps",
            "seed": job.seed,
            "compilation_cache": self.cache,
        }
        words = [f"--config.{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "launch.train", "--config=dense"]
        return [*command, *words, f"--workdir={workdir}", *self.more]

    def environment(self) -> dict[str, str]:
        """That of this process, but for compilation caches."""
        out = {name: value for name, value in os.environ.items() if "COMPILATION" not in name}
        if self.cache:
            out["JAX_COMPILATION_CACHE_DIR"] = self.cache
            out["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        return out


class Process:
    """A program that is asked line by line, as `worker.Driver` says; it ends with the context."""

    def __init__(
        self,
        name: str,
        command: list[str],
        log: str,
        timeout: float,
        environment: dict[str, str] | None = None,
    ):
        """`log`: the file of what it says to standard error; `timeout`: seconds for an answer."""
        self.name, self._log, self._timeout = name, log, timeout
        with open(log, "w") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
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
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise Failed(f"{self.name}: no answer in --timeout={self._timeout:g} s") from None
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


class Worker(Process):
    """A competitor that trains a round when asked to."""

    def __init__(self, entrant: Entrant, job: Job, rounds: int):
        folder = tempfile.mkdtemp(dir=job.folder)
        command = entrant.worker(job, rounds, os.path.join(folder, "run"), job.initial())
        super().__init__(
            entrant.name,
            [*command, "--serve"],
            os.path.join(folder, "stderr.txt"),
            job.timeout,
            entrant.environment(),
        )


def whole(entrant: Entrant, job: Job) -> Result:
    """Runs a process from its start to its end: {"seconds", "peak_mib", "test_loss", ...}."""
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        run, printed = os.path.join(folder, "run"), os.path.join(folder, "stdout.txt")
        log = os.path.join(folder, "stderr.txt")
        command, environment = entrant.whole(job, run), entrant.environment()
        with open(printed, "w") as out, open(log, "w") as errors:
            since = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdout=out, stderr=errors
            )
        late = threading.Timer(job.timeout, process.kill)
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
        unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
        measured = {"seconds": seconds, "peak_mib": usage.ru_maxrss * unit / 2**20}
        if entrant.program != "aejax":
            with open(printed) as file:
                return measured | json.load(file)
        with open(os.path.join(run, "metrics.jsonl")) as file:
            rows = [json.loads(line) for line in file]
    last = [row for row in rows if row["split"] == "test"][-1]
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax")}
    versions = {"python": platform.python_version(), **versions}
    return measured | {"test_loss": last["nll"] / job.shape("train")[1], "versions": versions}


def has(python: str, packages: tuple[str, ...]) -> bool:
    """Whether an interpreter finds these packages."""
    code = (
        f"import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, {packages}))"
    )
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def _tail(log: str) -> str:
    with open(log) as file:
        return file.read()[-2000:]
