"""pythae's trainer on the network of aejax's variational preset, paused between rounds.

    python -m benchmarks.peers.pythae_variational DATA WORKDIR EPOCHS ROUNDS

DATA is a folder with MNIST's IDX files, WORKDIR that of the run, EPOCHS those of a round. Its
`BaseTrainer` as it comes: its data loader in the process itself, its copy of the best model, no
evaluation and no checkpoint but the last. Initial kernels as aejax's (Glorot and Bengio 2010), its
own Adam. `benchmarks.variational_peers` asks: `go THREADS` trains a round with so many threads.
"""

import sys
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


class Encoder(BaseEncoder):
    """784-200-200 and the mean and log variance of 50, in one layer."""

    def __init__(self):
        super().__init__()
        hidden = [linear(PIXELS, HIDDEN), nn.Tanh(), linear(HIDDEN, HIDDEN), nn.Tanh()]
        self.layers = nn.Sequential(*hidden, linear(HIDDEN, 2 * CODE))

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_variance = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """50-200-200-784, to the pixels' probabilities, which pythae's likelihood takes."""

    def __init__(self):
        super().__init__()
        hidden = [linear(CODE, HIDDEN), nn.Tanh(), linear(HIDDEN, HIDDEN), nn.Tanh()]
        self.layers = nn.Sequential(*hidden, linear(HIDDEN, PIXELS), nn.Sigmoid())

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


class Pause(TrainingCallback):
    """Tells each round's last mean loss, and waits for the next round."""

    def __init__(self, driver: worker.Driver, epochs: int):
        self._driver, self._epochs = driver, epochs

    def on_epoch_begin(self, training_config: Any, **found: Any) -> None:
        if (found["epoch"] - 1) % self._epochs == 0:
            torch.set_num_threads(int(self._driver.wait().split()[1]))

    def on_log(self, training_config: Any, logs: dict[str, float], **found: Any) -> None:
        if found["global_step"] % self._epochs == 0:
            self._driver.tell(loss=logs["train_epoch_loss"])


def main(data: str, workdir: str, epochs: int, rounds: int) -> None:
    """Trains in rounds, and tells the driver."""
    driver = worker.Driver()
    torch.manual_seed(0)
    images = torch.from_numpy(worker.images(data, "train").copy()).float() / 255
    config = VAEConfig(input_dim=(PIXELS,), latent_dim=CODE, reconstruction_loss="bce")
    model = VAE(config, Encoder(), Decoder())
    trainer = BaseTrainer(
        model,
        train_dataset=BaseDataset(images, torch.zeros(len(images))),
        training_config=BaseTrainerConfig(
            output_dir=workdir,
            per_device_train_batch_size=BATCH_SIZE,
            num_epochs=epochs * rounds,
            optimizer_cls="Adam",
            learning_rate=RATE,
        ),
        callbacks=[Pause(driver, epochs)],
    )
    count = sum(array.numel() for array in model.parameters())
    versions = worker.versions("pythae", "torch")
    driver.tell(parameters=count, versions=versions, device=str(trainer.device))
    trainer.train()
    driver.wait()


if __name__ == "__main__":
    _, data, workdir, epochs, rounds = sys.argv
    main(data, workdir, int(epochs), int(rounds))
