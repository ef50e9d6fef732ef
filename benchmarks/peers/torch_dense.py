"""PyTorch on the dense network, in a loop by hand (`torch_training`).

PyTorch's own cross-entropy on logits, or one written out where a short trial finds it faster (on an
AMD EPYC log1p took eleven times as long as log); its optimizers in the form that is fastest where
this was measured (Adam fused, Adadelta over all tensors at once). On all cores.
"""

import os
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.peers import worker
from benchmarks.peers.torch_training import DEVICE, Training, images, linear


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


def seconds(loss: Callable) -> float:
    """The best of some trials with gradients, on a batch."""
    z = torch.randn(worker.BATCH_SIZE, 784, device=DEVICE, requires_grad=True)
    x, times = torch.rand_like(z), []
    for _ in range(10):
        start = time.perf_counter()
        loss(z, x).backward()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def optimizer(name: str, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    """An optimizer with the settings of all competitors."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=1e-3, fused=True)
    return torch.optim.Adadelta(parameters, lr=1.0, rho=0.95, eps=1e-7, foreach=True)


class TorchDense:
    """The network, its optimizer and its data."""

    def __init__(self, given: worker.Settings):
        torch.set_num_threads(os.cpu_count() or 1)
        torch.manual_seed(given["seed"])
        self._cross_entropy, start = min((own, Written.apply), key=seconds), worker.initial(given)
        encoder = linear(start["encoder/layers/0/weight"], start["encoder/layers/0/bias"])
        decoder = linear(start["decoder/layers/0/kernel"].T, start["decoder/layers/0/bias"])
        self._model = torch.nn.Sequential(encoder, torch.nn.ReLU(), decoder).to(DEVICE)
        chosen = optimizer(given["optimizer"], list(self._model.parameters()))
        data, self._folder = images(given["data"], "train"), given["data"]
        self._steps = given["epochs"] * (len(data) // worker.BATCH_SIZE)
        self._training = Training(data, self._loss, chosen)
        self.about = {"device": DEVICE}

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        x = rows.float().mul_(1 / 255)
        return self._cross_entropy(self._model(x), x)

    def train(self) -> float:
        """Trains a round; the mean loss, nats a row."""
        return self._training.steps(self._steps, worker.BATCH_SIZE)

    def test_loss(self) -> float:
        """Cross-entropy on the test split, nats a pixel."""
        with torch.no_grad():
            test = images(self._folder, "t10k")
            return self._loss(test).item() / test.shape[1]


if __name__ == "__main__":
    worker.run(TorchDense, "torch")
