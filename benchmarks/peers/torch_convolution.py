"""The convolutional preset's network in PyTorch, trained on request.

    python -m benchmarks.peers.torch_convolution DATA INITIAL

DATA is a folder with MNIST's IDX files, INITIAL the parameters that both sides start at, as aejax
names and lays them. Bytes in memory, rows taken by index and scaled in the step, PyTorch's own
cross-entropy on logits, fused Adam. `benchmarks.convolution_peers` asks:

    start LAYOUT THREADS    a fresh network; images plain, as PyTorch lays them, or channels_last:
                            its parameters, and the loss of the first batch
    train STEPS             so many updates: their mean loss
    test                    the loss of the first 1000 rows
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import worker

BATCH_SIZE = 128
SIDE = 28
RATE = 2e-3


def network(initial: dict[str, np.ndarray]) -> nn.Sequential:
    """Two stages of convolution, relu and pooling, dense layers to the code, and mirrored back."""
    stages = [convolution(initial, n) for n in (0, 1)]
    into = linear(initial["encoder.layers.0.weight"], initial["encoder.layers.0.bias"])
    channels = stages[1].out_channels
    # aejax's images have their channels last, so its flat vectors are in another order.
    inner = (SIDE // 4, SIDE // 4, channels)
    order = np.arange(into.in_features).reshape(inner).transpose(2, 0, 1).ravel()
    code = linear(initial["encoder.layers.1.weight"], initial["encoder.layers.1.bias"])
    out = linear(initial["decoder.layers.0.kernel"].T, initial["decoder.layers.0.bias"])
    back = linear(initial["decoder.layers.1.kernel"].T, initial["decoder.layers.1.bias"])
    with torch.no_grad():
        into.weight.copy_(into.weight[:, order].clone())
        back.weight.copy_(back.weight[order].clone())
        back.bias.copy_(back.bias[order].clone())
    down = [layer for stage in stages for layer in (stage, nn.ReLU(), nn.MaxPool2d(2))]
    dense = [nn.Flatten(), into, nn.ReLU(), code, out, nn.ReLU(), back, nn.ReLU()]
    shape = nn.Unflatten(1, (channels, *inner[:2]))
    up = [doubling(initial, 0), nn.ReLU(), doubling(initial, 1)]
    return nn.Sequential(*down, *dense, shape, *up)


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """From a weight [outputs, inputs]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    return filled(layer, weight, bias)


def convolution(initial: dict[str, np.ndarray], stage: int) -> nn.Conv2d:
    """The encoder's, from a kernel [rows, columns, inputs, outputs]."""
    kernel, bias = (initial[f"encoder.stages.{stage}.{name}"] for name in ("kernel", "bias"))
    layer = nn.Conv2d(*kernel.shape[2:], kernel.shape[0], padding="same")
    return filled(layer, kernel.transpose(3, 2, 0, 1), bias)


def doubling(initial: dict[str, np.ndarray], stage: int) -> nn.ConvTranspose2d:
    """The transposed convolution that aejax.nn's enlarging one is, by its documentation."""
    kernel, bias = (initial[f"decoder.stages.{stage}.{name}"] for name in ("kernel", "bias"))
    inputs, outputs = kernel.shape[2], kernel.shape[3] // 4
    # [u, v, c, a, b, o]: element [2 - 2 u + a, 2 - 2 v + b] of the transposed kernel.
    parts = kernel.reshape(2, 2, inputs, 2, 2, outputs)[::-1, ::-1]
    weight = parts.transpose(2, 5, 0, 3, 1, 4).reshape(inputs, outputs, 4, 4)
    return filled(nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1), weight, bias)


def filled(layer: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
    """The layer with these parameters."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    return layer


class Training:
    """One network in training."""

    def __init__(self, data: torch.Tensor, initial: dict[str, np.ndarray], layout: str):
        self.data = data
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.model = network(initial).to(data.device, memory_format=self.format)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=True)
        self.order: list[torch.Tensor] = []

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of rows of bytes, nats a row."""
        x = rows.float().mul_(1 / 255)
        images = x.view(-1, 1, SIDE, SIDE).contiguous(memory_format=self.format)
        logits = self.model(images).flatten(1)
        return functional.binary_cross_entropy_with_logits(logits, x) * x.shape[1]

    def train(self, steps: int) -> float:
        """Makes so many updates; the mean of their losses."""
        total = torch.zeros((), device=self.data.device)
        for _ in range(steps):
            if not self.order:
                order = torch.randperm(len(self.data), device=self.data.device)
                self.order = list(order.split(BATCH_SIZE))[: len(self.data) // BATCH_SIZE]
            loss = self.loss(self.data[self.order.pop()])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return total.item() / steps

    def tell(self, rows: int) -> float:
        """The loss of the first rows, nats a row."""
        with torch.no_grad():
            return self.loss(self.data[:rows]).item()


def main(folder: str, initial: str) -> None:
    """Answers the driver."""
    torch.manual_seed(0)
    driver = worker.Driver()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = torch.from_numpy(worker.images(folder, "train").copy()).to(device)
    with np.load(initial) as file:
        arrays = dict(file)
    driver.tell(versions=worker.versions("torch"), device=device)
    training: Any = None
    while True:
        word, *more = driver.wait().split()
        if word == "start":
            torch.set_num_threads(int(more[1]))
            training = Training(data, arrays, more[0])
            count = sum(array.numel() for array in training.model.parameters())
            driver.tell(parameters=count, loss=training.tell(BATCH_SIZE))
        elif word == "train":
            driver.tell(loss=training.train(int(more[0])))
        else:
            driver.tell(loss=training.tell(1000))


if __name__ == "__main__":
    main(*sys.argv[1:])
