"""Attention on this backend: aejax's own, JAX's as one operation, and PyTorch's.

    python -m benchmarks.attention [--peers_python=PEERS/bin/python] [--rounds=9] [--threads=2]
        [--compute=bfloat16] [--large] [--lengths=64,512]

prints one JSON line. Queries, keys and values are [rows, length, heads, size], as a layer makes
them. Each variant is timed forward and with its gradients; those of JAX as steps inside one
`lax.fori_loop` (which is how aejax trains), PyTorch's as a loop of its own in a process of its own,
which waits while the others run. aejax's is first held against float32 (a relative difference of
2 in 100 ends the program). All take turns, so that what disturbs one disturbs all: read
`ratio`, how many times PyTorch's time (or JAX's own form) aejax's is, of the best rounds and of the
medians. Differences under a fifth are noise.
"""

import functools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from aejax.nn.attention import attend
from benchmarks.machine import machine

# rows, length, heads, size
SETTINGS = {"64": (8, 64, 8, 32), "512": (8, 512, 8, 32), "1024": (8, 1024, 4, 32)}
LARGE = {"64": (512, 64, 8, 64), "512": (64, 512, 8, 64), "1024": (32, 1024, 8, 64)}
KINDS = ("forward", "gradients")
# A dispatch is of so many steps that it takes about this long.
SECONDS, STEPS = 0.1, 100
_AWAY = 0.02

_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times every variant is run.", lower_bound=1)
_COMPUTE = flags.DEFINE_enum("compute", "float32", ["float32", "bfloat16"], "Type of the arrays.")
_LARGE = flags.DEFINE_bool("large", False, "The same lengths with as many rows as suit a GPU.")
_LENGTHS = flags.DEFINE_list("lengths", list(SETTINGS), f"Which of {', '.join(SETTINGS)}.")
_PEERS_PYTHON = flags.DEFINE_string("peers_python", None, "Interpreter that has torch, if any has.")
_THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Of PyTorch.", lower_bound=1)

Timed = Callable[[int], float]  # steps -> seconds


def jax_runs(form: Callable, shape: tuple[int, ...]) -> dict[str, Timed]:
    """{"forward", "gradients"} of one form of JAX's."""
    random = np.random.RandomState(0)
    arrays = tuple(jnp.asarray(random.randn(*shape), _COMPUTE.value) for _ in range(3))

    def forward(arrays):
        # All three change, or XLA would move what stays the same out of the loop.
        out = 1e-9 * form(*arrays)
        return tuple(array + out for array in arrays)

    def gradients(arrays):
        loss = lambda *arrays: 0.5 * jnp.sum(jnp.square(form(*arrays)))  # noqa: E731
        slopes = jax.grad(loss, (0, 1, 2))(*arrays)
        return tuple(a - 1e-9 * g for a, g in zip(arrays, slopes, strict=True))

    def timed(step: Callable) -> Timed:
        loop = jax.jit(lambda n, arrays: lax.fori_loop(0, n, lambda _, a: step(a), arrays))

        def run(steps: int) -> float:
            start = time.perf_counter()
            jax.block_until_ready(loop(steps, arrays))
            return time.perf_counter() - start

        run(1)
        return run

    return dict(zip(KINDS, map(timed, (forward, gradients)), strict=True))


class Torch:
    """PyTorch's scaled_dot_product_attention in a process of its own."""

    def __init__(self, python: str, threads: int):
        program = "benchmarks.peers.torch_attention"
        command = [python, "-m", program, str(threads), _COMPUTE.value]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("PyTorch's process ended early")
        return json.loads(line)

    def runs(self, shape: tuple[int, ...]) -> dict[str, Timed]:
        def run(kind: str, steps: int) -> float:
            assert self.process.stdin is not None
            print(json.dumps([kind, shape, steps]), file=self.process.stdin, flush=True)
            return self._answer()

        return {kind: functools.partial(run, kind) for kind in KINDS}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def check(shape: tuple[int, ...]) -> None:
    """Raises AssertionError where aejax's form gives other numbers than JAX's own in float32."""
    random = np.random.RandomState(1)
    arrays = tuple(jnp.asarray(random.randn(*shape), _COMPUTE.value) for _ in range(3))

    def numbers(form: Callable, arrays: tuple[jax.Array, ...]) -> list[np.ndarray]:
        loss = lambda *arrays: 0.5 * jnp.sum(jnp.square(jnp.float32(form(*arrays))))  # noqa: E731
        slopes = jax.jit(jax.grad(loss, (0, 1, 2)))(*arrays)
        return [np.asarray(array, np.float32) for array in (form(*arrays), *slopes)]

    found = numbers(attend, arrays)
    with jax.default_matmul_precision("highest"):
        exact = numbers(jax.nn.dot_product_attention, tuple(map(jnp.float32, arrays)))
    for one, other in zip(found, exact, strict=True):
        away = np.linalg.norm(one - other) / np.linalg.norm(other)
        if not away < _AWAY:
            raise AssertionError(f"attention of {shape}: {away} away from float32")


def measure(shape: tuple[int, ...], torch: Torch | None, rounds: int) -> dict[str, Any]:
    """Best and median milliseconds a step of every variant, and the ratios."""
    check(shape)
    variants = {
        "aejax": jax_runs(attend, shape),
        "jax": jax_runs(jax.nn.dot_product_attention, shape),
    }
    if torch is not None:
        variants["torch"] = torch.runs(shape)
    runs = {(name, kind): run for name, of in variants.items() for kind, run in of.items()}
    steps = {key: max(1, min(STEPS, round(SECONDS / run(1)))) for key, run in runs.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            times[key].append(run(steps[key]) / steps[key] * 1e3)
    found = {key: (min(t), statistics.median(t)) for key, t in times.items()}
    ratio = {
        f"aejax / {name}": {
            kind: [round(a / b, 2) for a, b in zip(found["aejax", kind], pair, strict=True)]
            for (other, kind), pair in found.items()
            if other == name
        }
        for name in variants
        if name != "aejax"
    }
    told = {
        name: {kind: [float(f"{t:.3g}") for t in found[name, kind]] for kind in KINDS}
        for name in variants
    }
    return {"shape": shape, "best_median_ms": told, "ratio": ratio}


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    unknown = set(_LENGTHS.value) - set(SETTINGS)
    if len(argv) > 1 or unknown:
        raise app.UsageError(f"{[*argv[1:], *unknown]}: --lengths takes {', '.join(SETTINGS)}")
    torch = Torch(_PEERS_PYTHON.value, _THREADS.value) if _PEERS_PYTHON.value else None
    settings = LARGE if _LARGE.value else SETTINGS
    lengths = {key: measure(settings[key], torch, _ROUNDS.value) for key in _LENGTHS.value}
    result = {
        "benchmark": "attention",
        **machine(),
        "compute": _COMPUTE.value,
        "torch": torch and torch.version,
        "rounds": _ROUNDS.value,
        "lengths": lengths,
    }
    if torch is not None:
        torch.close()
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
