"""PyTorch's scaled_dot_product_attention, timed on request.

    python -m benchmarks.peers.torch_attention THREADS TYPE

says its version, then answers each line [kind, [rows, length, heads, size], steps] with the seconds
that so many steps took. `benchmarks.attention` asks.
"""

import functools
import json
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention


@functools.cache
def _arrays(shape: tuple[int, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = getattr(torch, sys.argv[2])
    return [torch.randn(*shape, device=device, dtype=kind, requires_grad=True) for _ in range(3)]


def _attend(arrays: list[torch.Tensor]) -> torch.Tensor:
    q, k, v = (array.transpose(1, 2) for array in arrays)
    return scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _step(kind: str, arrays: list[torch.Tensor]) -> None:
    if kind == "forward":
        with torch.no_grad():
            _attend(arrays)
        return
    (0.5 * _attend(arrays).square().sum()).backward()
    for array in arrays:
        array.grad = None


def seconds(kind: str, shape: tuple[int, ...], steps: int) -> float:
    """What so many steps take, after one that is not counted."""
    arrays = _arrays(shape)
    _step(kind, arrays)
    start = time.perf_counter()
    for _ in range(steps):
        _step(kind, arrays)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(torch.__version__), flush=True)
    for line in sys.stdin:
        kind, shape, steps = json.loads(line)
        print(json.dumps(seconds(kind, tuple(shape), steps)), flush=True)
