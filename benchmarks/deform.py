"""What deformed images cost: preparation alone, and a whole training step with them and without.

    python -m benchmarks.deform [--source=idx:FOLDER] [--rounds=9] [--batch_size=128]

prints one JSON line; what it is doing goes to standard error. `prepare` is the preparation of one
batch of resident rows, its keys and gathering included, many to a dispatch. `plain` and `deformed`
are the compiled dispatch of an autoencoder of 1000-1000-1000 units and back, on one device.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from aejax.config import Config, Data, Prepare
from aejax.data.deform import stream_keys
from aejax.models import Autoencoder
from aejax.models.coders import Dense
from aejax.optimizer import Adam
from aejax.training.setup import Setup, setup
from benchmarks.dispatch import Dispatch
from benchmarks.turns import machine, ratio, spread, take_turns

_SOURCE = flags.DEFINE_string("source", "digits", "Images: digits, or idx:FOLDER for MNIST's.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Times each side is run.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_size", 128, "Rows of a step.", lower_bound=1)

# Steps of a round.
_TRAINED, _PREPARED = 20, 200


def run_of(deform: float) -> Setup:
    """The run whose step is measured."""
    config = Config(
        model=Autoencoder(coder=Dense(hidden=(1000, 1000)), latent_dim=1000),
        optimizer=Adam(learning_rate=1e-3),
        data=Data(source=_SOURCE.value, feed="resident", prepare=Prepare(deform=deform)),
        batch_size=_BATCH.value,
        duration="1000 steps",
    )
    return setup(config, devices=jax.devices()[:1])


def training(run: Setup) -> Callable[[], float]:
    """Seconds a step."""
    dispatch = Dispatch(run)
    state = dispatch(dispatch.init(), _TRAINED)[0]

    def side() -> float:
        nonlocal state
        since = time.perf_counter()
        state, report = dispatch(state, _TRAINED)
        dispatch.mean_loss(report)
        return (time.perf_counter() - since) / _TRAINED

    return side


def preparing(run: Setup) -> Callable[[], float]:
    """Seconds a batch."""
    feed = run.open_feed()
    constants, index = run.constants(feed), feed.at(0).arrays

    @jax.jit
    def prepare(rows: Any, index: jax.Array) -> jax.Array:
        def add(i: jax.Array, total: jax.Array) -> jax.Array:
            raw = rows.gather(index[i % len(index)].ravel())
            epoch = jnp.full(len(raw.index), i, jnp.uint32)
            keys = stream_keys(jax.random.wrap_key_data(constants.key), epoch, raw.index)
            return total + run.preparation(raw.x, None, keys)

        zeros = jnp.zeros((_BATCH.value, *run.train.spec.shape))
        return jax.lax.fori_loop(0, _PREPARED, add, zeros)

    jax.block_until_ready(prepare(constants.rows, index))

    def side() -> float:
        since = time.perf_counter()
        jax.block_until_ready(prepare(constants.rows, index))
        return (time.perf_counter() - since) / _PREPARED

    return side


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1:]}: there are flags alone")
    plain, deformed = run_of(0.0), run_of(1.0)
    sides = {
        "prepare": preparing(deformed),
        "plain": training(plain),
        "deformed": training(deformed),
    }
    seconds = take_turns(sides, _ROUNDS.value)
    images = {
        name: round(_BATCH.value / float(np.median(times))) for name, times in seconds.items()
    }
    result = {
        "benchmark": "deform",
        **machine(),
        "source": _SOURCE.value,
        "rounds": _ROUNDS.value,
        "batch_size": _BATCH.value,
        "milliseconds": {name: spread(times, 1e-3) for name, times in seconds.items()},
        "images_a_second": images,
        "deformed_over_plain": ratio(seconds["deformed"], seconds["plain"]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
