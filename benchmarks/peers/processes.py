"""The processes of the peers: those that are asked for rounds, and whole runs.

JAX is not imported here: the driver's own memory would count where that of its children is read.
"""

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Self

# Programs for --peers_python, and the packages that they import.
NEEDS = {
    "keras_dense": ("keras", "jax"),
    "torch_dense": ("torch",),
    "torch_convolution": ("torch",),
    "torch_attention": ("torch",),
    "pythae_variational": ("pythae", "torch"),
}
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

Result = dict[str, Any]


class Failed(RuntimeError):
    """A peer ended, or did not answer."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Who takes part, and how.

    Attributes:
        name: in the results.
        program: a module of this package.
        python: the interpreter that runs it.
        settings: of the program, as `worker` reads them.
        timeout: seconds that an answer, or a whole run, may take.
        command: of a whole run, where that is another one.
        cache: folder that keeps its compiled programs; "" for none.
    """

    name: str
    program: str
    python: str
    settings: dict[str, Any]
    timeout: float
    command: tuple[str, ...] = ()
    cache: str = ""

    def with_settings(self, **settings: Any) -> "Peer":
        """The same peer with some settings changed."""
        return dataclasses.replace(self, settings=self.settings | settings)

    def start(self, words: tuple[str, ...] = (), **streams: Any) -> subprocess.Popen:
        """Starts its program, or the command of these words, from the repository's folder."""
        own = [self.python, "-m", f"benchmarks.peers.{self.program}", json.dumps(self.settings)]
        env = {name: value for name, value in os.environ.items() if "COMPILATION" not in name}
        env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several share one GPU
        if self.cache:
            env["JAX_COMPILATION_CACHE_DIR"] = self.cache
            env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        return subprocess.Popen(list(words) or own, cwd=_ROOT, env=env, text=True, **streams)


class Process:
    """A peer's program that is asked line by line, as `worker` says; it ends with the context."""

    def __init__(self, peer: Peer, folder: str):
        """`folder` is for its files; it must exist."""
        self._peer = peer
        own = tempfile.mkdtemp(dir=folder)
        self._log = os.path.join(own, "stderr.txt")
        peer = peer.with_settings(serve=True, workdir=os.path.join(own, "run"))
        pipe = subprocess.PIPE
        with open(self._log, "w") as errors:
            self._process = peer.start(stdin=pipe, stdout=pipe, stderr=errors)
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
        name, timeout = self._peer.name, self._peer.timeout
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise Failed(f"{name}: no answer in --timeout={timeout:g} s") from None
        if not line:
            raise Failed(f"{name} ended:\n{_tail(self._log)}")
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


def whole(peer: Peer, folder: str) -> Result:
    """Runs a peer from start to end: {"seconds", "peak_mib"} and what it tells.

    With a command of its own "metrics" has the rows that it wrote, and its output is not read.
    """
    with tempfile.TemporaryDirectory(dir=folder) as own:
        run, out, log = (os.path.join(own, name) for name in ("run", "stdout.txt", "stderr.txt"))
        peer = peer.with_settings(serve=False, workdir=run)
        words = (*peer.command, f"--workdir={run}") if peer.command else ()
        with open(out, "w") as printed, open(log, "w") as errors:
            since = time.perf_counter()
            process = peer.start(words, stdout=printed, stderr=errors)
        late = threading.Timer(peer.timeout, process.kill)
        late.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - since
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Failed(f"{peer.name} ended with {process.returncode}:\n{_tail(log)}")
        unit = 2**20 if sys.platform == "darwin" else 2**10  # a MiB in units of ru_maxrss
        measured = {"seconds": seconds, "peak_mib": usage.ru_maxrss / unit}
        with open(os.path.join(run, "metrics.jsonl") if words else out) as file:
            rows = [json.loads(line) for line in file]
    return measured | ({"metrics": rows} if words else rows[-1])


def initial(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The settings with a file of the parameters that all start at; aejax writes it."""
    name = os.path.join(folder, f"initial-{settings['seed']}.npz")
    settings = settings | {"initial": name}
    if not os.path.exists(name):
        writer = Peer("aejax", "aejax_models", sys.executable, settings, timeout=0)
        process = writer.start(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        errors = process.communicate()[1]
        if process.returncode:
            raise Failed(f"the initial parameters could not be made:\n{errors[-2000:]}")
    return settings


def has(python: str, packages: tuple[str, ...]) -> bool:
    """Whether an interpreter finds these packages."""
    code = (
        f"import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, {packages}))"
    )
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def _tail(log: str) -> str:
    with open(log) as file:
        return file.read()[-2000:]
