"""aejax's public trainer, `aejax.Trainer`, as a user runs it.

All is on: progress, a row of metrics.jsonl three times an epoch, TensorBoard, and once a round an
evaluation of the test split with its picture and a checkpoint, which is written beside the training
with its checksums. Five epochs to a round are what the default settings do in 50 epochs. How long
the evaluations took is told beside, since the others have none.

The trainer compiles once a run, so one run is paused between rounds instead of starting many. It
asks its `stop` between dispatches, and between the batches of an evaluation. A round ends at the
first question of the evaluation that closes it: by then the row of the round's last step stands in
metrics.jsonl, so every step is done and looked at, and nothing runs on the devices. The answer is
held back until the driver says go. The evaluation, the picture and the save then belong to the
next round; each round has one of each. The first evaluation is compiled while the first answer is
held back: at least two rounds are for warming up.

With --save_initial it only writes the parameters that all competitors start at, its own.
"""

import argparse
import json
import math
import os
import time

import jax
import numpy as np

from aejax import Config
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Bernoulli
from aejax.optimizer import Adadelta, Adam
from aejax.training.setup import setup
from aejax.training.trainer import Trainer
from benchmarks.peers import worker

ROWS_AN_EPOCH = 3


class Pause:
    """A `stop` that never stops, but holds its answer back at the end of each round.

    Attributes:
        evaluations: seconds of the evaluation that closed each round; pauses are not in them.
        nll: what it found on the test split, nats a row.
    """

    def __init__(self, driver: worker.Driver, workdir: str, steps: int, rounds: int):
        self.evaluations: list[float] = []
        self.nll: list[float] = []
        self._driver, self._steps, self._rounds = driver, steps, rounds
        self._name, self._metrics = os.path.join(workdir, "metrics.jsonl"), None
        self._round = 0
        self._trained_at = self._paused = 0.0

    def __call__(self) -> bool:
        if self._metrics is None:
            if not os.path.exists(self._name):
                return False
            self._metrics = open(self._name)  # noqa: SIM115 - read until the process ends
        for line in self._metrics:
            row = json.loads(line)
            if row["split"] == "test":
                self.evaluations.append(row["seconds"] - self._trained_at - self._paused)
                self.nll.append(row["nll"])
            elif row["step"] == (self._round + 1) * self._steps:
                self._trained_at = row["seconds"]
                self._hold()
        return False

    def _hold(self) -> None:
        since = time.monotonic()
        self._round += 1
        self._driver.tell(done=True)
        self._driver.wait()
        self._paused = time.monotonic() - since


def config(settings: argparse.Namespace, steps: int) -> Config:
    """The settings of the run; `steps` are those of a round."""
    optimizers = {
        "adadelta": Adadelta(learning_rate=1.0, rho=0.95, eps=1e-7),
        "adam": Adam(learning_rate=1e-3),
    }
    made = Config(
        model=Autoencoder(
            coder=Dense(hidden=()),
            latent_dim=worker.LATENT_DIM,
            bottleneck=Plain(activation="relu"),
            likelihood=Bernoulli(),
        ),
        optimizer=optimizers[settings.optimizer],
        batch_size=worker.BATCH_SIZE,
        duration=f"{settings.rounds * steps} steps",
        seed=settings.seed,
        log_every=max(1, steps // settings.epochs // ROWS_AN_EPOCH),
        trackers=("tensorboard",),
        compilation_cache="",
    )
    made.data.source, made.data.feed = f"idx:{settings.data}", settings.feed
    made.evaluation.every = made.checkpoint.every = f"{steps} steps"
    made.evaluation.batch_size = worker.TEST_BATCH_SIZE
    return made


def save_initial(settings: argparse.Namespace) -> None:
    """Writes the kernels of a fresh state: encoder [pixels, code], decoder [code, pixels]."""
    params = setup(config(settings, 1)).init().params

    def kernel(name: str) -> np.ndarray:
        """[pixels, code], however the library lays it out."""
        largest = max(map(np.asarray, jax.tree.leaves(params[name])), key=np.size)
        return largest if largest.shape[1] == worker.LATENT_DIM else largest.T

    np.savez(settings.initial, encoder=kernel("encoder"), decoder=kernel("decoder").T)


def main() -> None:
    """Trains in rounds, and tells the driver."""
    settings = worker.arguments(__doc__)
    if settings.save_initial:
        save_initial(settings)
        return
    rows, pixels = worker.images(settings.data, "train").shape
    steps = settings.epochs * (rows // worker.BATCH_SIZE)
    if steps // settings.epochs % ROWS_AN_EPOCH:
        raise SystemExit(f"{steps // settings.epochs} steps an epoch: not {ROWS_AN_EPOCH} rows")
    driver = worker.Driver()
    pause = Pause(driver, settings.workdir, steps, settings.rounds)
    driver.tell(ready=True)
    driver.wait()
    outcome = Trainer(config(settings, steps), settings.workdir).fit(stop=pause)
    pause()
    if outcome.status != "done" or not math.isfinite(outcome.metrics["nll"]):
        raise SystemExit(f"training ended as {outcome}")
    driver.tell(
        test_loss=outcome.metrics["nll"] / pixels,
        device=jax.devices()[0].device_kind,
        versions=worker.versions("jax", "flax", "optax", "orbax-checkpoint"),
        evaluations=pause.evaluations,
        test_losses=[nll / pixels for nll in pause.nll],
    )


if __name__ == "__main__":
    main()
