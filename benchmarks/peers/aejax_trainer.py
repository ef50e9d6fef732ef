"""aejax's public trainer, `aejax.Trainer`, as a user runs it.

All is on: progress, rows of metrics.jsonl, TensorBoard, and once a round an evaluation of the test
split with its picture and a checkpoint, which is written beside the training with its checksums.
Unless the setting "with_evaluation" says so, its evaluations do not count: the others have none.
The setting "without" leaves out one thing: checkpoints, trackers, or rows of metrics but the last
of a round.

The trainer compiles once a run, so one run is paused between rounds instead of starting many. It
asks its `stop` between dispatches, and between the batches of an evaluation. A round ends at the
first question of the evaluation that closes it: by then the row of the round's last step stands in
metrics.jsonl, so every step is done and looked at, and nothing runs on the devices. The answer is
held back until the driver says go. The evaluation, the picture and the save then belong to the
next round; each round has one of each. The first evaluation is compiled while the first answer is
held back: at least two rounds are for warming up.
"""

import json
import math
import os
import time

import jax

from aejax import Config
from aejax.training.trainer import Trainer
from benchmarks.peers import aejax_models, worker

ROWS_AN_EPOCH = {"dense": 3, "variational": 1, "rbm": 1}  # of metrics.jsonl


class Pause:
    """A `stop` that never stops, but holds its answer back at the end of each round.

    Attributes:
        losses: of the test split after each round, nats a row.
    """

    def __init__(self, driver: worker.Driver, given: worker.Settings, steps: int):
        self.losses: list[float] = []
        self._driver, self._steps, self._left_out = driver, steps, not given["with_evaluation"]
        self._name, self._metrics = os.path.join(given["workdir"], "metrics.jsonl"), None
        self._next = steps
        self._trained_at = self._paused = self._evaluation = 0.0

    def __call__(self) -> bool:
        if self._metrics is None:
            if not os.path.exists(self._name):
                return False
            self._metrics = open(self._name)  # noqa: SIM115 - read until the process ends
        for line in self._metrics:
            row = json.loads(line)
            if row["split"] == "test":
                self._evaluation = row["seconds"] - self._trained_at - self._paused
                self.losses.append(row["loss"])
            elif row["step"] == self._next:
                self._trained_at = row["seconds"]
                self._hold(row["loss"])
        return False

    def _hold(self, loss: float) -> None:
        since = time.monotonic()
        self._next += self._steps
        # The evaluation that closed the round before, which this round began with.
        self._driver.tell(loss=loss, evaluation=self._evaluation if self._left_out else 0.0)
        self._driver.wait_for_round()
        self._paused = time.monotonic() - since


def in_rounds(given: worker.Settings, rows: int) -> tuple[Config, int]:
    """The settings of a run with an evaluation and a checkpoint a round, and a round's steps."""
    made = aejax_models.config(given)
    an_epoch = rows // made.batch_size
    often, rest = divmod(an_epoch, ROWS_AN_EPOCH[given["network"]])
    if rest:
        raise SystemExit(f"{an_epoch} steps an epoch cannot be divided into rows of metrics")
    steps = given["epochs"] * an_epoch
    made.duration, made.log_every = f"{given['rounds'] * steps} steps", often
    made.trackers, made.data.feed = ("tensorboard",), given["feed"]
    made.evaluation.every = made.checkpoint.every = f"{steps} steps"
    made.evaluation.batch_size = worker.TEST_BATCH_SIZE
    if given.get("without") == "checkpoints":
        made.checkpoint.every, made.checkpoint.minutes = "", 0
    if given.get("without") == "trackers":
        made.trackers = ()
    if given.get("without") == "rows":
        made.log_every = steps
    return made, steps


def main() -> None:
    """Trains in rounds, and tells the driver."""
    driver, given = worker.Driver(), worker.settings()
    rows, pixels = worker.images(given["data"], "train").shape
    made, steps = in_rounds(given, given.get("rows", rows))
    pause = Pause(driver, given, steps)
    packages = ("jax", "flax", "optax", "orbax-checkpoint")
    driver.tell(versions=worker.versions(*packages), device=jax.devices()[0].device_kind)
    driver.wait_for_round()
    outcome = Trainer(made, given["workdir"]).fit(stop=pause)
    pause()
    if outcome.status != "done" or not math.isfinite(outcome.metrics["loss"]):
        raise SystemExit(f"training ended as {outcome}")
    each = {"dense": pixels, "rbm": 1}.get(given["network"])
    losses = [] if each is None else [loss / each for loss in pause.losses]
    driver.tell(losses=losses)


if __name__ == "__main__":
    main()
