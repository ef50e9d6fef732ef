"""Why aejax/nn computes likelihood, convolutions and pooling as it does: forms compared.

    python -m benchmarks.forms [--rounds=7] [--forms=bernoulli,stride_2]

prints one JSON line. Each form is timed forward and with its gradients, as steps inside one
`lax.fori_loop` (which is how aejax trains) and with its gradients as one dispatch a step. All
variants of a form are timed in turns, so that what disturbs one disturbs all: read the ratios.
`aejax` is what the library does on this backend, `usual` what one would write first, and
`ratio` says how many times longer the usual one takes.

Result on 2 CPU cores (AVX-512) that others used too, jax 0.10.2, best milliseconds a step:

                          usual, with gradients      aejax    ratio
                          in a loop   outside        in a loop  in a loop  outside
    bernoulli             1.68        1.84           1.00       1.7        1.9
    stride_2              264         8.4            6.0        44         1.2
    stride_1              484         8.0            13.6       36         0.5
    stride_1_to_1_channel 24          7.9            3.0        8          2.4
    doubling              459         54             10         45         5
    doubling_3            435         64             9.3        47         7
    doubling_to_1_channel 5.3         1.9            0.8        7          2.1
    network               698         391            17         41         25
    max_pool              7.5         7.6            1.0        7          9
    max_pool_3_channels   1.6         1.7            0.3        5          6
    product               6.1         5.2            3.8        1.6        1.4

So the gradient of XLA's convolution must not be run in a loop on a CPU; outside one it is faster
only for stride 1 between equal numbers of channels. Forward alone, aejax takes 1.0 (stride 2) to
1.6 (stride 1) times as long as one convolution of XLA's, 0.2 to 0.5 where an image is doubled, and
0.3 for the whole network.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jax import lax

from aejax.nn import bernoulli
from aejax.nn.convolution import convolve, convolve_up
from aejax.nn.depth_to_space import depth_to_space
from aejax.nn.pooling import max_pool
from aejax.nn.product import product
from benchmarks.machine import machine

LAYOUT = ("NHWC", "HWIO", "NHWC")
# A dispatch is of so many steps that it takes about this long.
SECONDS, STEPS = 0.05, 20


@dataclasses.dataclass
class Form:
    """One thing to compute, and the ways to do so.

    Attributes:
        setting: what is computed, in words.
        usual: the name of the variant one would write first.
        variants: name -> (step forward, step with gradients), each a function of the state to the
            next one; their costs differ in the form alone.
        state: arrays.
    """

    setting: str
    usual: str
    variants: dict[str, tuple[Callable, Callable]]
    state: Any


def layer(setting: str, usual: str, variants: dict[str, Callable], *arrays: jax.Array) -> Form:
    """A form that is a function of arrays to an array; its loss is half the sum of squares.

    Raises:
        AssertionError: where two variants that should not differ do; a name that ends in * may.
    """
    outputs = {name: np.asarray(jax.jit(f)(*arrays)) for name, f in variants.items()}
    for name, y in outputs.items():
        if not name.endswith("*"):
            scale = np.abs(outputs["aejax"]).max()
            np.testing.assert_allclose(y / scale, outputs["aejax"] / scale, atol=1e-5)
    return Form(setting, usual, {name: _steps(f) for name, f in variants.items()}, arrays)


def _steps(function: Callable) -> tuple[Callable, Callable]:
    def forward(arrays):
        # The result must matter, or XLA would leave it out; the last array is the smallest.
        *others, last = arrays
        return (*others, last + 1e-9 * jnp.mean(function(*arrays)).astype(last.dtype))

    def gradients(arrays):
        def loss(*arrays):
            return 0.5 * jnp.sum(jnp.square(function(*arrays)))

        gradient = jax.grad(loss, tuple(range(len(arrays))))(*arrays)
        return jax.tree.map(lambda a, g: a - 1e-9 * g, arrays, gradient)

    return forward, gradients


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(0.1 * np.random.RandomState(seed).randn(*shape), jnp.float32)


# Likelihood.


def likelihood() -> Form:
    x = jnp.asarray(np.random.RandomState(0).rand(256, 784) ** 4, jnp.float32)
    parameters = [(normal(1, 784, 32), jnp.zeros(32)), (normal(2, 32, 784), jnp.zeros(784))]
    optimizer = optax.adam(1e-3)

    def steps(cross_entropy: Callable):
        def loss(parameters):
            (w, b), (v, c) = parameters
            logits = jax.nn.relu(x @ w + b) @ v + c
            return jnp.mean(jnp.sum(cross_entropy(logits, x), axis=-1))

        def forward(state):
            parameters, moments = state
            (w, b), rest = parameters
            return [(w, b + 1e-9 * loss(parameters)), rest], moments

        def train(state):
            parameters, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(parameters), moments)
            return optax.apply_updates(parameters, updates), moments

        return forward, train

    variants = {
        "optax": optax.sigmoid_binary_cross_entropy,
        "softplus": lambda z, x: jax.nn.softplus(z) - x * z,
        "max_log1p": lambda z, x: jnp.maximum(z, 0) - x * z + jnp.log1p(jnp.exp(-jnp.abs(z))),
        "aejax": lambda z, x: -bernoulli.log_prob(z, x),
    }
    return Form(
        "Adam step of a dense autoencoder 784-32-784, batch 256, Bernoulli likelihood",
        "optax",
        {name: steps(f) for name, f in variants.items()},
        (parameters, optimizer.init(parameters)),
    )


# Convolutions: each variant is a function of image, kernel, stride and padding.


def xla(x, kernel, stride, pads):
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=LAYOUT)


def xla_in_layout(x, kernel, stride, pads):
    """XLA's convolution, with its gradients in the layout that XLA has fast code for."""

    @jax.custom_vjp
    def run(x, kernel):
        return xla(x, kernel, stride, pads)

    def backward(saved, dy):
        x, kernel = saved
        sides = list(zip(kernel.shape[:2], pads, x.shape[1:3], dy.shape[1:3], strict=True))
        far = [(k - 1 - low, n + low - 1 - stride * (m - 1)) for k, (low, _), n, m in sides]
        near = [(low, stride * (m - 1) + k - n - low) for k, (low, _), n, m in sides]
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        to_x = lax.conv_general_dilated(
            dy, turned, (1, 1), far, lhs_dilation=(stride, stride), dimension_numbers=LAYOUT
        )
        to_kernel = lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            dy.transpose(1, 2, 0, 3),
            (1, 1),
            near,
            rhs_dilation=(stride, stride),
            dimension_numbers=LAYOUT,
        )
        return to_x, to_kernel.transpose(1, 2, 0, 3)

    run.defvjp(lambda x, kernel: (run(x, kernel), (x, kernel)), backward)
    return run(x, kernel)


def _slices(x, kernel, stride, pads):
    rows, columns = kernel.shape[:2]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    down, right = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    return [
        x[:, u : u + down : stride, v : v + right : stride]
        for u in range(rows)
        for v in range(columns)
    ]


def slices_first(x, kernel, stride, pads):
    patches = jnp.concatenate(_slices(x, kernel, stride, pads), axis=-1)
    return product(patches, kernel.reshape(-1, kernel.shape[-1]))


def slices_of_four_axes(x, kernel, stride, pads):
    patches = jnp.concatenate(_slices(x, kernel, stride, pads), axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def slices_in_front(x, kernel, stride, pads):
    patches = jnp.stack(_slices(x, kernel, stride, pads))
    return jnp.einsum("knhwc,kco->nhwo", patches, kernel.reshape(-1, *kernel.shape[2:]))


def slices_summed(x, kernel, stride, pads):
    kernels = kernel.reshape(-1, *kernel.shape[2:])
    slices = _slices(x, kernel, stride, pads)
    return sum(product(part, k) for part, k in zip(slices, kernels, strict=True))


def space_to_depth_first(x, kernel, stride, pads):
    """Blocks of 2x2 pixels as one, then a kernel of stride 1 over blocks; for stride 2."""
    assert stride == 2
    (top, _), (left, _) = pads
    assert not top and not left and kernel.shape[:2] == (3, 3)
    batch, height, width, n = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, n).swapaxes(2, 3)
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel.reshape(2, 2, 2, 2, *kernel.shape[2:]).swapaxes(1, 2)
    return slices_first(
        x.reshape(batch, height // 2, width // 2, 4 * n),
        kernel.reshape(2, 2, 4 * n, -1),
        1,
        [(0, 1), (0, 1)],
    )


def product_first(x, kernel, stride, pads):
    """The whole kernel first, then its k² outputs added up shifted; for stride 1."""
    assert stride == 1
    (top, bottom), (left, right) = pads
    rows, columns, inputs, outputs = kernel.shape
    height, width = x.shape[1] + top + bottom - rows + 1, x.shape[2] + left + right - columns + 1
    parts = product(x, kernel.transpose(2, 0, 1, 3).reshape(inputs, -1))
    parts = jnp.pad(parts, ((0, 0), *pads, (0, 0)))
    return sum(
        parts[:, u : u + height, v : v + width, i * outputs : (i + 1) * outputs]
        for i, (u, v) in enumerate(np.ndindex(rows, columns))
    )


def convolution(size: int, stride: int, image: int, inputs: int, outputs: int) -> Form:
    x, kernel = normal(0, 64, image, image, inputs), normal(1, size, size, inputs, outputs)
    pads = lax.padtype_to_pads((image, image), (size, size), (stride, stride), "SAME")
    others = [xla, xla_in_layout, slices_first, slices_of_four_axes, slices_in_front]
    others += [slices_summed, space_to_depth_first if stride == 2 else product_first]
    variants = {f.__name__: lambda x, kernel, f=f: f(x, kernel, stride, pads) for f in others} | {
        "aejax": lambda x, kernel: convolve(x, kernel, stride)
    }
    setting = f"{size}x{size}, stride {stride}, {inputs} to {outputs} channels at {image}, batch 64"
    return layer(setting, "xla", variants, x, kernel)


def doubling(size: int, image: int, inputs: int, outputs: int) -> Form:
    x, kernel = normal(0, 64, image, image, inputs), normal(1, size, size, inputs, 4 * outputs)

    def transposed(x, kernel):
        """The same function: convolve_up's documentation says which kernel this is."""
        kernel = kernel.reshape(size, size, inputs, 2, 2, outputs)[:, :, :, ::-1, ::-1]
        kernel = kernel.transpose(0, 3, 1, 4, 2, 5)
        return lax.conv_transpose(x, kernel.reshape(2 * size, 2 * size, inputs, -1), (2, 2), "SAME")

    def transposed_3x3(x, kernel):
        return lax.conv_transpose(x, _three(kernel), (2, 2), "SAME")

    def repeat_and_3x3(x, kernel):
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return xla(x, _three(kernel), 1, [(1, 1), (1, 1)])

    def _three(kernel):
        kernel = kernel[..., :outputs]
        return jnp.pad(kernel, ((0, 3 - size), (0, 3 - size), (0, 0), (0, 0)))

    def then_depth_to_space(form):
        def run(x, kernel):
            y = depth_to_space(form(x, kernel, 1, [(size // 2, size // 2)] * 2), 2)
            return y if size % 2 else y[:, 1:-1, 1:-1]

        return run

    variants = {
        "transposed": transposed,
        "transposed_3x3*": transposed_3x3,
        "repeat_and_3x3*": repeat_and_3x3,
    }
    for form in (xla, xla_in_layout, slices_first, slices_of_four_axes, product_first):
        variants[f"{form.__name__}_depth_to_space"] = then_depth_to_space(form)
    variants["aejax"] = convolve_up
    setting = f"{image} to {2 * image}, {inputs} to {outputs} channels, batch 64, kernel of {size}"
    return layer(f"{setting} (transposed: {2 * size})", "transposed", variants, x, kernel)


def network() -> Form:
    """A whole convolutional autoencoder, so that what a form does to its neighbours counts."""
    x = normal(0, 128, 28, 28, 1)
    kernels = (normal(1, 3, 3, 1, 32), normal(2, 3, 3, 32, 64))
    kernels += (normal(3, 2, 2, 64, 128), normal(4, 2, 2, 32, 4))

    def run(down, up):
        def reconstruct(*kernels):
            a, b, c, d = kernels
            h = jax.nn.relu(down(jax.nn.relu(down(x, a)), b))
            return up(jax.nn.relu(up(h, c)), d).reshape(len(x), -1) - x.reshape(len(x), -1)

        return reconstruct

    def down(form):
        return lambda x, k: form(x, k, 2, [(0, 1), (0, 1)])

    def up(form):
        def run(x, k):
            return depth_to_space(form(x, k, 1, [(1, 1), (1, 1)]), 2)[:, 1:-1, 1:-1]

        return run

    forms = (xla, xla_in_layout, slices_first, slices_of_four_axes)
    variants = {form.__name__: run(down(form), up(form)) for form in forms}
    variants["aejax"] = run(lambda x, k: convolve(x, k, 2), convolve_up)
    setting = "autoencoder of 28x28: 3x3 stride 2 to 32 and 64 channels, doubled twice, batch 128"
    return layer(setting, "xla", variants, *kernels)


# Pooling and products.


def pooling(channels: int) -> Form:
    def reduce_window(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def one_reshape(x):
        batch, height, width, n = x.shape
        return jnp.max(x.reshape(batch, height // 2, 2, width // 2, 2, n), axis=(2, 4))

    def strided_slices(x):
        return jnp.max(jnp.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]), axis=0)

    variants = {f.__name__: f for f in (reduce_window, one_reshape, strided_slices)}
    setting = f"maximum of 2x2, 28x28 of {channels} channels, batch 64"
    x = normal(0, 64, 28, 28, channels)
    return layer(setting, "reduce_window", variants | {"aejax": max_pool}, x)


def products() -> Form:
    variants = {"three_axes": jnp.matmul, "aejax": product}
    x, matrix = normal(0, 32, 128, 64), normal(1, 64, 256)
    return layer("[32, 128, 64] times [64, 256]", "three_axes", variants, x, matrix)


FORMS: dict[str, Callable[[], Form]] = {
    "bernoulli": likelihood,
    "stride_2": lambda: convolution(3, 2, 28, 16, 32),
    "stride_1": lambda: convolution(3, 1, 14, 32, 32),
    "stride_1_to_1_channel": lambda: convolution(3, 1, 28, 16, 1),
    "doubling": lambda: doubling(2, 14, 32, 16),
    "doubling_3": lambda: doubling(3, 14, 32, 16),
    "doubling_to_1_channel": lambda: doubling(2, 14, 32, 1),
    "network": network,
    "max_pool": lambda: pooling(16),
    "max_pool_3_channels": lambda: pooling(3),
    "product": products,
}

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times every variant is run.", lower_bound=1)
_FORMS = flags.DEFINE_list("forms", list(FORMS), f"Which of {', '.join(FORMS)}.")


def measure(form: Form, rounds: int) -> dict[str, Any]:
    """Best and median milliseconds a step of every variant, and the usual one against aejax's."""
    runs = {}
    for name, (forward, gradients) in form.variants.items():
        runs[name, "forward"] = _Run(_loop(forward), form.state)
        runs[name, "gradients"] = _Run(_loop(gradients), form.state)
        runs[name, "gradients_outside_a_loop"] = _Run(_calls(gradients), form.state)
    for _ in range(rounds):
        for run in runs.values():
            run()
    times: dict[str, dict[str, Any]] = {name: {} for name in form.variants}
    for (name, what), run in runs.items():
        times[name][what] = [_rounded(min(run.times)), _rounded(statistics.median(run.times))]
    ratio = {
        what: round(min(runs[form.usual, what].times) / min(runs["aejax", what].times), 2)
        for what in ("forward", "gradients", "gradients_outside_a_loop")
    }
    return {"setting": form.setting, "usual": form.usual, "ratio": ratio, "best_median_ms": times}


def _rounded(milliseconds: float) -> float:
    return float(f"{milliseconds:.3g}")


def _loop(step: Callable) -> Callable:
    return jax.jit(lambda n, state: lax.fori_loop(0, n, lambda _, state: step(state), state))


def _calls(step: Callable) -> Callable:
    step = jax.jit(step)

    def run(n, state):
        for _ in range(n):
            state = step(state)
        return state

    return run


class _Run:
    """One variant: compiled, with a number of steps that takes long enough to be timed."""

    def __init__(self, function: Callable, state: Any):
        self.function, self.state, self.steps, self.times = function, state, 1, []
        self()
        self()
        self.steps = max(1, min(STEPS, round(SECONDS * 1e3 / self.times[-1])))
        self.times = []

    def __call__(self) -> None:
        start = time.perf_counter()
        jax.block_until_ready(self.function(self.steps, self.state))
        self.times.append((time.perf_counter() - start) * 1e3 / self.steps)


def main(argv: list[str]) -> None:
    """Measures, and prints one line."""
    unknown = set(_FORMS.value) - set(FORMS)
    if len(argv) > 1 or unknown:
        raise app.UsageError(f"{[*argv[1:], *unknown]}: --forms takes {', '.join(FORMS)}")
    result = {
        "benchmark": "forms",
        **machine(),
        "rounds": _ROUNDS.value,
        "forms": {name: measure(FORMS[name](), _ROUNDS.value) for name in _FORMS.value},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
