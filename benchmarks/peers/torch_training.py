"""A training loop of PyTorch on tensors in memory, by hand: a DataLoader costs more.

Bytes in memory, rows taken by index and scaled in the step. On the GPU where there is one.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from benchmarks.peers import worker

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def images(folder: str, split: str) -> torch.Tensor:
    """Bytes [rows, pixels] on the device."""
    return torch.from_numpy(worker.images(folder, split).copy()).to(DEVICE)


def filled(layer: nn.Module, weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    """The layer with these parameters."""
    parameters = layer.get_parameter("weight"), layer.get_parameter("bias")
    with torch.no_grad():
        for parameter, array in zip(parameters, (weight, bias), strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return layer


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """A layer of a weight [outputs, inputs]."""
    return filled(nn.Linear(weight.shape[1], weight.shape[0]), weight, bias)  # pyright: ignore


class Training:
    """A network in training: `loss` of rows of bytes, nats a row."""

    def __init__(self, data: torch.Tensor, loss: Callable, optimizer: torch.optim.Optimizer):
        self._data, self._loss, self._optimizer = data, loss, optimizer
        self._order: list[torch.Tensor] = []

    def steps(self, steps: int, batch_size: int) -> float:
        """Makes so many updates; their mean loss."""
        total = torch.zeros((), device=DEVICE)
        for _ in range(steps):
            if not self._order:  # a permutation an epoch, without rows that fill no batch
                order = torch.randperm(len(self._data), device=DEVICE).split(batch_size)
                self._order = list(order[: len(self._data) // batch_size])
            loss = self._loss(self._data[self._order.pop()])
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
        return total.item() / steps
