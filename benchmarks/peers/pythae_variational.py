"""pythae's trainer on the network of aejax's variational preset, paused between rounds.

Its `BaseTrainer` as it comes: its data loader in the process itself, its copy of the best model, no
evaluation and no checkpoint but the last. Initial kernels of the distribution of aejax's (Glorot
and Bengio 2010), its own Adam. The first round takes one thread, the second one a core, and the
others as many as the quicker of the two.
"""

import os
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn

from benchmarks.peers import worker

PIXELS, HIDDEN, CODE = 784, 200, 50
BATCH_SIZE, RATE = 100, 1e-3


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer with Glorot's kernel and no bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def layers(inputs: int, outputs: int, *last: nn.Module) -> nn.Sequential:
    """Two hidden layers with tanh, and what follows."""
    hidden = [linear(inputs, HIDDEN), nn.Tanh(), linear(HIDDEN, HIDDEN), nn.Tanh()]
    return nn.Sequential(*hidden, linear(HIDDEN, outputs), *last)


class Encoder(BaseEncoder):
    """784-200-200 and the mean and log variance of 50, in one layer."""

    def __init__(self):
        super().__init__()
        self.layers = layers(PIXELS, 2 * CODE)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_variance = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """50-200-200-784, to the pixels' probabilities, which pythae's likelihood takes."""

    def __init__(self):
        super().__init__()
        self.layers = layers(CODE, PIXELS, nn.Sigmoid())

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


class Pause(TrainingCallback):
    """Tells each round's last mean loss, and waits for the next round."""

    def __init__(self, driver: worker.Driver, epochs: int):
        self._driver, self._epochs = driver, epochs
        self._threads = (1, os.cpu_count() or 1)
        self._seconds: list[float] = []  # of the first two rounds
        self._since = 0.0

    def on_epoch_begin(self, training_config: Any, **found: Any) -> None:
        if (found["epoch"] - 1) % self._epochs == 0:
            self._driver.wait_for_round()
            torch.set_num_threads(self.threads())
            self._since = time.perf_counter()

    def threads(self) -> int:
        """Of the next round."""
        if len(self._seconds) < 2:
            return self._threads[len(self._seconds)]
        return self._threads[self._seconds[1] < self._seconds[0]]

    def on_log(self, training_config: Any, logs: dict[str, float], **found: Any) -> None:
        if found["global_step"] % self._epochs == 0:
            if len(self._seconds) < 2:
                self._seconds.append(time.perf_counter() - self._since)
            self._driver.tell(loss=logs["train_epoch_loss"])


def main() -> None:
    """Trains in rounds, and tells the driver."""
    driver, given = worker.Driver(), worker.settings()
    torch.manual_seed(given["seed"])
    images = torch.from_numpy(worker.images(given["data"], "train").copy()).float() / 255
    pause = Pause(driver, given["epochs"])
    config = VAEConfig(input_dim=(PIXELS,), latent_dim=CODE, reconstruction_loss="bce")
    model = VAE(config, Encoder(), Decoder())
    trainer = BaseTrainer(
        model,
        train_dataset=BaseDataset(images, torch.zeros(len(images))),
        training_config=BaseTrainerConfig(
            output_dir=given["workdir"],
            per_device_train_batch_size=BATCH_SIZE,
            num_epochs=given["epochs"] * given["rounds"],
            optimizer_cls="Adam",
            learning_rate=RATE,
        ),
        callbacks=[pause],
    )
    versions = worker.versions("pythae", "torch")
    driver.tell(versions=versions, device=str(trainer.device))
    trainer.train()
    driver.wait_for_round()
    driver.tell(threads=pause.threads())


if __name__ == "__main__":
    main()
