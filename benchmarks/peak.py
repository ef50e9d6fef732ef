"""How much of a device's arithmetic a large model's training step reaches.

    python -m benchmarks.peak [--what=dense] [--compute=bfloat16] [--scale=8] [--batch=8192]

prints one JSON line. The trainer's own dispatches are timed on random rows, in turns with a plain
product of two square matrices in the same type: `share` is the step's operations a second over the
product's, of the best rounds. Operations are those of the step's products alone,
two for each number of a kernel and row (and pixel), three times over (forward, and the gradients of
the kernel and of what it multiplies, which the first layer has no need of); those of optimizer,
activations and likelihood count as none, so that a share of 1 cannot be reached.

--what=dense          784, three layers of 1024 scale, 64 scale and the mirror.
--what=convolutional  Images of 32 x 32 x 3, two stages of 32 scale and 64 scale channels (3 x 3),
                      64 scale numbers and the mirror.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from jax import lax

from aejax.config import Config, Evaluation
from aejax.data.sources.base import Arrays
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Convolutional, Dense
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adam
from aejax.training.setup import setup
from benchmarks.dispatch import timed
from benchmarks.machine import machine
from benchmarks.ratios import spread

_WHAT = flags.DEFINE_enum("what", "dense", ["dense", "convolutional"], "The model.")
_COMPUTE = flags.DEFINE_enum("compute", "bfloat16", ["float32", "bfloat16"], "Type of products.")
_SCALE = flags.DEFINE_integer("scale", 8, "Width, in parts of the least.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 8192, "Rows of a step.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 8192, "Of the plain product's matrices.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each is run.", lower_bound=1)

_STEPS = 10


def model() -> tuple[Autoencoder, tuple[int, ...]]:
    """The settings, and the shape of a row."""
    scale = _SCALE.value
    if _WHAT.value == "dense":
        coder, shape = Dense(hidden=(1024 * scale,) * 3, activation="relu"), (784,)
    else:
        coder = Convolutional(channels=(32 * scale, 64 * scale), activation="relu")
        shape = (32, 32, 3)
    bottleneck = Plain(activation="linear")
    return Autoencoder(coder, 64 * scale, bottleneck, Bernoulli()), shape


def operations(params: Any) -> float:
    """Of one row's products in a training step."""
    total = 0
    for path, kernel in jax.tree_util.tree_leaves_with_path(params):
        part, layers, number, *_ = (entry.key for entry in path)
        if kernel.ndim < 2:
            continue
        # An encoder's kernel slides over its stage's image, a decoder's before it is doubled.
        sides = {"encoder": (32, 16), "decoder": (8, 16)}[part]
        pixels = sides[number] ** 2 if layers == "stages" else 1
        # Of a dense coder "layers" come first, of a convolutional one "stages".
        on_rows = part == "encoder" and number == 0 and (_WHAT.value == "dense") == (pixels == 1)
        total += 2 * (2 if on_rows else 3) * kernel.size * pixels
    return float(total)


def step() -> tuple[Callable[[], float], float, int]:
    """Seconds of one training step, measured anew at each call; operations; parameters."""
    settings, shape = model()
    rows = np.random.RandomState(0).randint(256, size=(2 * _BATCH.value, *shape))
    source = Arrays(rows.astype(np.uint8), None, 255.0)
    config = Config(
        model=settings,
        optimizer=Adam(learning_rate=1e-4),
        batch_size=_BATCH.value,
        duration=f"{10 * _STEPS} steps",
        compute=_COMPUTE.value,
        evaluation=Evaluation(every=""),
    )
    run = setup(config, (source, source), devices=jax.devices()[:1])
    params = run.state.params
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return timed(run, _STEPS), operations(params) * _BATCH.value, count


def product() -> tuple[Callable[[], float], float]:
    """Seconds of a product of two square matrices of random numbers, and its operations."""
    side = _SIDE.value
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (side, side), _COMPUTE.value) / side**0.5 for key in keys)
    many = jax.jit(lambda a, b: lax.fori_loop(0, _STEPS, lambda _, a: a @ b, a))
    jax.block_until_ready(many(a, b))

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(many(a, b))
        return (time.perf_counter() - start) / _STEPS

    return run, 2.0 * side**3


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1:]}: not accepted")
    run, needed, parameters = step()
    plain, most = product()
    found: dict[str, list[float]] = {"step": [], "product": []}
    for _ in range(_ROUNDS.value):
        found["step"].append(run())
        found["product"].append(plain())
    rates = {
        name: count / min(found[name]) / 1e12
        for name, count in (("step", needed), ("product", most))
    }
    result = {
        "benchmark": "peak",
        "what": _WHAT.value,
        "compute": _COMPUTE.value,
        **machine(),
        "parameters": parameters,
        "batch": _BATCH.value,
        "rounds": _ROUNDS.value,
        "milliseconds": {name: spread(times, 1e-3) for name, times in found.items()},
        "teraflops": {name: round(rate, 3) for name, rate in rates.items()},
        "share": round(rates["step"] / rates["product"], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
