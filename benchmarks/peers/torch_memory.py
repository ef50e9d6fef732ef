"""PyTorch with its tensors in memory and a loop by hand; no DataLoader, which costs more.

Bytes in memory, rows taken by index and scaled in the step; PyTorch's own cross-entropy on logits,
and its optimizers in the form that is fastest where this was measured (Adam fused, Adadelta over
all tensors at once). On all cores, or on the GPU where there is one.
"""

import argparse
import os

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers import worker


def optimizer(name: str, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    """An optimizer with the settings of all competitors."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=1e-3, fused=True)
    return torch.optim.Adadelta(parameters, lr=1.0, rho=0.95, eps=1e-7, foreach=True)


def _linear(kernel: np.ndarray) -> torch.nn.Linear:
    layer = torch.nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
        layer.bias.zero_()
    return layer


class TorchMemory:
    """The network, its optimizer and its data."""

    def __init__(self, settings: argparse.Namespace):
        torch.set_num_threads(os.cpu_count() or 1)
        torch.manual_seed(settings.seed)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.folder = settings.data
        self.data = self._images("train")
        encoder, decoder = worker.initial(settings.initial)
        layers = [_linear(encoder), torch.nn.ReLU(), _linear(decoder)]
        self.model = torch.nn.Sequential(*layers).to(self.device)
        self.optimizer = optimizer(settings.optimizer, list(self.model.parameters()))

    def _images(self, split: str) -> torch.Tensor:
        return torch.from_numpy(worker.images(self.folder, split).copy()).to(self.device)

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of rows of bytes, nats a row."""
        x = rows.float().mul_(1 / 255)
        mean = functional.binary_cross_entropy_with_logits(self.model(x), x)
        return mean * x.shape[1]

    def train(self, epochs: int) -> None:
        """Trains, and returns once the last update is made."""
        steps = len(self.data) // worker.BATCH_SIZE
        for _ in range(epochs):
            total = torch.zeros((), device=self.device)
            order = torch.randperm(len(self.data), device=self.device)
            for index in order[: steps * worker.BATCH_SIZE].view(steps, -1):
                loss = self._loss(self.data[index])
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                total += loss.detach()
            total.item()

    def test_loss(self) -> float:
        """Binary cross-entropy on the test split, nats a pixel."""
        with torch.no_grad():
            test = self._images("t10k")
            return self._loss(test).item() / test.shape[1]


if __name__ == "__main__":
    worker.run(worker.arguments(__doc__), TorchMemory, ("torch",))
