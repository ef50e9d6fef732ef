"""aejax's public trainer on the variational preset, paused between rounds.

    python -m benchmarks.peers.aejax_variational DATA WORKDIR EPOCHS ROUNDS

DATA is a folder with MNIST's IDX files, WORKDIR that of the run, EPOCHS those of a round. As
`aejax_trainer` says, all is on, and each round has an evaluation of the test split and a checkpoint
of its own. A row of metrics.jsonl is the mean over an epoch. `benchmarks.variational_peers` asks.
"""

import json
import math
import os
import sys

import jax

from aejax.training.trainer import Trainer
from benchmarks.peers import worker
from benchmarks.peers.aejax_trainer import Pause
from configs.variational import get_config


def main(data: str, workdir: str, epochs: int, rounds: int) -> None:
    """Trains in rounds, and tells the driver."""
    driver = worker.Driver()
    rows = len(worker.images(data, "train"))
    config = get_config()
    config.data.source = f"idx:{data}"
    an_epoch, rest = divmod(rows, config.batch_size)
    if rest:
        raise SystemExit(f"{rows} rows are no whole number of batches of {config.batch_size}")
    steps = epochs * an_epoch
    config.duration, config.log_every = f"{rounds * steps} steps", an_epoch
    config.evaluation.every = config.checkpoint.every = f"{steps} steps"
    config.compilation_cache = ""
    pause = Pause(driver, workdir, steps, rounds)
    versions = worker.versions("jax", "flax", "optax")
    driver.tell(versions=versions, device=jax.devices()[0].device_kind)
    driver.wait()
    outcome = Trainer(config, workdir).fit(stop=pause)
    pause()
    if outcome.status != "done" or not math.isfinite(outcome.metrics["nll"]):
        raise SystemExit(f"training ended as {outcome}")
    with open(os.path.join(workdir, "metrics.jsonl")) as file:
        found = [json.loads(line) for line in file]
    losses = [row["loss"] for row in found if row["split"] == "train"]
    driver.tell(losses=losses, evaluations=pause.evaluations)


if __name__ == "__main__":
    _, data, workdir, epochs, rounds = sys.argv
    main(data, workdir, int(epochs), int(rounds))
