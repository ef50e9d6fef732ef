"""PyTorch's scaled_dot_product_attention, in a loop of Python."""

import os

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.peers import worker


class TorchAttention:
    """Attention, forward or with its gradients."""

    def __init__(self, given: worker.Settings):
        torch.set_num_threads(os.cpu_count() or 1)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._gradients = given["kind"] == "gradients"
        place = {"device": self._device, "dtype": getattr(torch, given["compute"])}
        inputs = worker.attention_inputs(given)
        self._arrays = [torch.tensor(array, **place, requires_grad=True) for array in inputs]
        self._steps = worker.attention_steps(self._run)
        self.about = {"device": self._device, "steps": self._steps}

    def _attend(self) -> torch.Tensor:
        q, k, v = (array.transpose(1, 2) for array in self._arrays)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2)

    def _step(self) -> list[torch.Tensor]:
        if not self._gradients:
            with torch.no_grad():
                return [self._attend()]
        for array in self._arrays:
            array.grad = None
        (0.5 * self._attend().square().sum()).backward()
        return [array.grad for array in self._arrays if array.grad is not None]

    def _run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()
        if self._device == "cuda":
            torch.cuda.synchronize()

    def train(self) -> None:
        """Runs the steps of a round."""
        self._run(self._steps)

    def test_loss(self) -> float:
        """The size of what a step computes."""
        return worker.root_mean_square([array.float().cpu().numpy() for array in self._step()])


if __name__ == "__main__":
    worker.run(TorchAttention, "torch")
