"""The convolutional preset's network in PyTorch, for a comparison of training steps alone.

The loop of `torch_training`, PyTorch's own cross-entropy on logits, fused Adam. Short trials choose
the quickest of images as PyTorch lays them (`plain`) and `channels_last`, and of one thread and one
a core; then a fresh network is made.
"""

import itertools
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers import worker
from benchmarks.peers.torch_training import DEVICE, Training, filled, images, linear

SIDE = 28
FORMATS = {"plain": torch.contiguous_format, "channels_last": torch.channels_last}


def network(initial: dict[str, np.ndarray]) -> nn.Sequential:
    """Two stages of convolution, relu and pooling, dense layers to the code, and mirrored back."""
    stages = [convolution(initial, n) for n in (0, 1)]
    into = linear(initial["encoder/layers/0/weight"], initial["encoder/layers/0/bias"])
    channels = len(initial["encoder/stages/1/bias"])
    # aejax's images have their channels last, so its flat vectors are in another order.
    inner = (SIDE // 4, SIDE // 4, channels)
    order = np.arange(into.in_features).reshape(inner).transpose(2, 0, 1).ravel()
    code = linear(initial["encoder/layers/1/weight"], initial["encoder/layers/1/bias"])
    out = linear(initial["decoder/layers/0/kernel"].T, initial["decoder/layers/0/bias"])
    back = linear(initial["decoder/layers/1/kernel"].T, initial["decoder/layers/1/bias"])
    with torch.no_grad():
        into.weight.copy_(into.weight[:, order].clone())
        back.weight.copy_(back.weight[order].clone())
        back.bias.copy_(back.bias[order].clone())
    down = [layer for stage in stages for layer in (stage, nn.ReLU(), nn.MaxPool2d(2))]
    dense = [nn.Flatten(), into, nn.ReLU(), code, out, nn.ReLU(), back, nn.ReLU()]
    shape = nn.Unflatten(1, (channels, *inner[:2]))
    up = [doubling(initial, 0), nn.ReLU(), doubling(initial, 1)]
    return nn.Sequential(*down, *dense, shape, *up)


def convolution(initial: dict[str, np.ndarray], stage: int) -> nn.Module:
    """The encoder's, from a kernel [rows, columns, inputs, outputs]."""
    kernel, bias = (initial[f"encoder/stages/{stage}/{name}"] for name in ("kernel", "bias"))
    layer = nn.Conv2d(*kernel.shape[2:], kernel.shape[0], padding="same")
    return filled(layer, kernel.transpose(3, 2, 0, 1), bias)


def doubling(initial: dict[str, np.ndarray], stage: int) -> nn.Module:
    """The transposed convolution that aejax.nn's enlarging one is, by its documentation."""
    kernel, bias = (initial[f"decoder/stages/{stage}/{name}"] for name in ("kernel", "bias"))
    inputs, outputs = kernel.shape[2], kernel.shape[3] // 4
    # [u, v, c, a, b, o]: element [2 - 2 u + a, 2 - 2 v + b] of the transposed kernel.
    parts = kernel.reshape(2, 2, inputs, 2, 2, outputs)[::-1, ::-1]
    weight = parts.transpose(2, 5, 0, 3, 1, 4).reshape(inputs, outputs, 4, 4)
    return filled(nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1), weight, bias)


class TorchConvolution:
    """The network, its optimizer and its data."""

    def __init__(self, given: worker.Settings):
        torch.manual_seed(given["seed"])
        self._given, self._initial = given, worker.initial(given)
        self._data = images(given["data"], "train")
        forms = itertools.product(FORMATS, sorted({1, os.cpu_count() or 1}))
        layout, threads = min(forms, key=lambda form: self._seconds(*form))
        self._begin(layout, threads)
        self.about = {
            "device": DEVICE,
            "layout": layout,
            "threads": threads,
            "parameters": sum(array.numel() for array in self._model.parameters()),
            "first_loss": self._tell(given["batch_size"]),
        }

    def _begin(self, layout: str, threads: int) -> None:
        """Makes a fresh network."""
        torch.set_num_threads(threads)
        self._format = FORMATS[layout]
        self._model = network(self._initial).to(DEVICE, memory_format=self._format)
        rate = self._given["rate"]
        adam = torch.optim.Adam(self._model.parameters(), lr=rate, fused=True)
        self._training = Training(self._data, self._loss, adam)

    def _seconds(self, layout: str, threads: int) -> float:
        """The best of three trials of ten steps of a fresh network, after one to warm up."""
        self._begin(layout, threads)
        times = []
        for _ in range(4):
            since = time.perf_counter()
            self._training.steps(10, self._given["batch_size"])
            times.append(time.perf_counter() - since)
        return min(times[1:])

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        x = rows.float().mul_(1 / 255)
        shaped = x.view(-1, 1, SIDE, SIDE).contiguous(memory_format=self._format)
        logits = self._model(shaped).flatten(1)
        return functional.binary_cross_entropy_with_logits(logits, x) * x.shape[1]

    def _tell(self, rows: int) -> float:
        with torch.no_grad():
            return self._loss(self._data[:rows]).item()

    def train(self) -> float:
        """Makes a round's updates; their mean loss."""
        return self._training.steps(self._given["steps"], self._given["batch_size"])

    def test_loss(self) -> float:
        """Of the first 1000 rows of the training split, nats a row."""
        return self._tell(1000)


if __name__ == "__main__":
    worker.run(TorchConvolution, "torch")
