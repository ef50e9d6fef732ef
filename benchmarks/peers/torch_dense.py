"""PyTorch with its tensors in memory and a loop by hand; no DataLoader, which costs more.

Bytes in memory, rows taken by index and scaled in the step; PyTorch's own cross-entropy on logits,
or one written out where a short trial finds it faster (on an AMD EPYC log1p took eleven times as
long as log); its optimizers in the form that is fastest where this was measured (Adam fused,
Adadelta over all tensors at once). On all cores, or on the GPU where there is one.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers import worker


class Written(torch.autograd.Function):
    """Cross-entropy of logits z and x, nats a row, with its gradient in closed form."""

    @staticmethod
    def forward(ctx, z, x):
        ctx.save_for_backward(z, x)
        values = torch.exp(z.abs().neg_()).add_(1).log_().add_(z.clamp(min=0)).sub_(z * x)
        return values.sum() / len(z)

    @staticmethod
    def backward(ctx, *gradients):
        z, x = ctx.saved_tensors
        return torch.sigmoid(z).sub_(x).mul_(gradients[0] / len(z)), None


def own(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """PyTorch's cross-entropy of logits z and x, nats a row."""
    return functional.binary_cross_entropy_with_logits(z, x) * x.shape[1]


def seconds(loss: Callable, device: str) -> float:
    """The best of some trials with gradients, on a batch."""
    z = torch.randn(worker.BATCH_SIZE, 784, device=device, requires_grad=True)
    x, times = torch.rand_like(z), []
    for _ in range(10):
        start = time.perf_counter()
        loss(z, x).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def optimizer(name: str, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    """An optimizer with the settings of all competitors."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=1e-3, fused=True)
    return torch.optim.Adadelta(parameters, lr=1.0, rho=0.95, eps=1e-7, foreach=True)


def linear(weight: np.ndarray, bias: np.ndarray) -> torch.nn.Linear:
    """A layer of a weight [outputs, inputs]."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    return layer


class TorchDense:
    """The network, its optimizer and its data."""

    def __init__(self, given: worker.Settings):
        torch.set_num_threads(os.cpu_count() or 1)
        torch.manual_seed(given["seed"])
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._folder, self._epochs = given["data"], given["epochs"]
        self._cross_entropy = min(
            (own, Written.apply), key=lambda loss: seconds(loss, self._device)
        )
        self._data, start = self._images("train"), worker.initial(given)
        encoder = linear(start["encoder/layers/0/weight"], start["encoder/layers/0/bias"])
        decoder = linear(start["decoder/layers/0/kernel"].T, start["decoder/layers/0/bias"])
        self._model = torch.nn.Sequential(encoder, torch.nn.ReLU(), decoder).to(self._device)
        self._optimizer = optimizer(given["optimizer"], list(self._model.parameters()))
        self.about = {"device": self._device}

    def _images(self, split: str) -> torch.Tensor:
        return torch.from_numpy(worker.images(self._folder, split).copy()).to(self._device)

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of rows of bytes, nats a row."""
        x = rows.float().mul_(1 / 255)
        return self._cross_entropy(self._model(x), x)

    def train(self) -> float:
        """Trains a round; the last epoch's mean loss, nats a row."""
        steps, mean = len(self._data) // worker.BATCH_SIZE, 0.0
        for _ in range(self._epochs):
            total = torch.zeros((), device=self._device)
            order = torch.randperm(len(self._data), device=self._device)
            for index in order[: steps * worker.BATCH_SIZE].view(steps, -1):
                loss = self._loss(self._data[index])
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self._optimizer.step()
                total += loss.detach()
            mean = total.item() / steps
        return mean

    def test_loss(self) -> float:
        """Cross-entropy on the test split, nats a pixel."""
        with torch.no_grad():
            test = self._images("t10k")
            return self._loss(test).item() / test.shape[1]


if __name__ == "__main__":
    worker.run(TorchDense, "torch")
