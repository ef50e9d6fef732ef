"""Convolutions of images (height, width, channels), as is fastest on the backend.

On a GPU or TPU this is XLA's own convolution. On a CPU, XLA has fast code for one layout only
(images [batch, height, width, channels], kernels [height, width, in, out]), and converts to it only
outside of loops (jax-ml/jax#12868). The gradient of a convolution has another layout, so that it is
20 to 60 times slower inside `lax.fori_loop` or `lax.scan`. On a CPU a convolution is therefore
written as shifted slices and one matrix product. All its derivatives, in forward and reverse mode
and of any order, are slices and products as well.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from aejax.nn.activation import initializer
from aejax.nn.depth_to_space import depth_to_space
from aejax.nn.product import product

Form = Literal["cpu", "accelerator"]
Padding = Literal["SAME", "VALID"]
_Pads = Sequence[tuple[int, int]]


def chosen(form: Form | None = None) -> Form:
    """The given form, or by default the one for this process's backend."""
    if form is None:
        return "cpu" if jax.default_backend() == "cpu" else "accelerator"
    if form not in ("cpu", "accelerator"):
        raise ValueError(f"form={form}: must be cpu or accelerator")
    return form


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: Padding = "SAME",
    form: Form | None = None,
) -> jax.Array:
    """y[i, j] = sum over u, v of x[stride i + u - top, stride j + v - left] kernel[u, v].

    Args:
        x: [..., height, width, channels in].
        kernel: [rows, columns, channels in, channels out].
        stride: of both axes.
        padding: "SAME" pads with zeros, so that ceil(height / stride) rows result (an odd row of
            zeros goes below, as in XLA); "VALID" does not pad.
        form: which implementation; None for the backend's own.

    Returns:
        [..., height out, width out, channels out].

    Raises:
        ValueError: for shapes that do not fit, or an unknown padding or form.
    """
    x, kernel = _checked(x, kernel, kernel.shape[-1])
    form = chosen(form)
    if stride < 1:
        raise ValueError(f"stride={stride}: must be at least 1")
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"padding={padding}: must be SAME or VALID")
    size = kernel.shape[:2]
    if padding == "VALID" and (size[0] > x.shape[-3] or size[1] > x.shape[-2]):
        raise ValueError(f"padding=VALID: a kernel of {size} is larger than {x.shape[-3:-1]}")
    if size == (1, 1):
        return product(x[..., ::stride, ::stride, :], kernel[0, 0])
    pads = lax.padtype_to_pads(x.shape[-3:-1], size, (stride, stride), padding)
    return _images(form, x, kernel, stride, pads)


def convolve_up(
    x: jax.Array, kernel: jax.Array, factor: int = 2, form: Form | None = None
) -> jax.Array:
    """Enlarges an image: a convolution to factor² times the channels, then depth to space.

    Each pixel becomes a block of factor x factor pixels, each with a kernel of its own (the
    sub-pixel convolution, Shi et al. 2016): kernel[u, v, c, (a factor + b) channels + o] is the
    weight from channel c of x[i + u - top, j + v - left] to channel o of pixel (a, b) of the block.
    With an odd kernel size blocks are centred on the input's pixels, with an even one between them.

    It equals a transposed convolution: with size k, `lax.conv_transpose(x, t, (factor, factor),
    "SAME")` for the t [factor k, factor k, channels in, channels out] with
    t[factor (u + 1) - 1 - a, factor (v + 1) - 1 - b, c, o] = the element above. So size 2 is the
    usual 4x4 kernel of stride 2, where each pixel gets equally many contributions (no
    checkerboard). On a CPU size 2 takes about 0.6 of the time of size 3.

    Args:
        x: [..., height, width, channels in].
        kernel: [k, k, channels in, factor² · channels out].
        factor: how much larger each side becomes; must be even where k is even.
        form: which implementation; None for the backend's own.

    Returns:
        [..., factor · height, factor · width, channels out].

    Raises:
        ValueError: for shapes that do not fit, or an unknown form.
    """
    if factor < 1:
        raise ValueError(f"factor={factor}: must be at least 1")
    channels, rest = divmod(kernel.shape[-1], factor * factor)
    if rest:
        raise ValueError(
            f"factor={factor}: the kernel's {kernel.shape[-1]} outputs are no multiple of "
            f"{factor * factor}"
        )
    x, kernel = _checked(x, kernel, channels)
    form = chosen(form)
    size = kernel.shape[0]
    if size != kernel.shape[1]:
        raise ValueError(f"kernel {kernel.shape[:2]}: must be square")
    if size % 2 == 0 and factor % 2:
        raise ValueError(f"factor={factor}: must be even for a kernel of even size {size}")
    pads = ((size // 2, size // 2), (size // 2, size // 2))
    blocks = _images(form, x, kernel, 1, pads)
    y = depth_to_space(blocks, factor)
    cut = 0 if size % 2 else factor // 2
    return y[..., cut : y.shape[-3] - cut, cut : y.shape[-2] - cut, :]


class Convolution(nnx.Module):
    """x [..., height, width, n] -> [..., height out, width out, m]: `convolve` and a bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        stride: int = 1,
        padding: Padding = "SAME",
        bias: bool = True,
        initial: nnx.Initializer = initializer("linear"),  # noqa: B008 - a function
        *,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding: Padding = padding
        self.kernel = nnx.Param(initial(rngs.params(), (size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return _biased(convolve(x, self.kernel[...], self.stride, self.padding), self.bias)


class ConvolutionUp(nnx.Module):
    """x [..., height, width, n] -> [..., f · height, f · width, m]: `convolve_up` and a bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 2,
        factor: int = 2,
        bias: bool = True,
        initial: nnx.Initializer = initializer("linear"),  # noqa: B008 - a function
        *,
        rngs: nnx.Rngs,
    ):
        self.factor = factor
        shape = (size, size, inputs, factor * factor * outputs)
        self.kernel = nnx.Param(initial(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return _biased(convolve_up(x, self.kernel[...], self.factor), self.bias)


def _biased(x: jax.Array, bias: nnx.Param | None) -> jax.Array:
    return x if bias is None else x + bias[...]


def _checked(x: jax.Array, kernel: jax.Array, outputs: int) -> tuple[jax.Array, jax.Array]:
    """Both arrays in their common type, with their shapes checked."""
    if x.ndim < 3 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2] or not outputs:
        raise ValueError(
            f"image {x.shape} and kernel {kernel.shape}: must be [..., height, width, n] and "
            "[rows, columns, n, m]"
        )
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return x.astype(dtype), kernel.astype(dtype)


def _images(form: Form, x: jax.Array, kernel: jax.Array, stride: int, pads: _Pads) -> jax.Array:
    """Applies the form, which takes one batch axis, to images with any number of leading axes."""
    run = _xla if form == "accelerator" else _products
    y = run(x.reshape(-1, *x.shape[-3:]), kernel, stride, pads)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _xla(x: jax.Array, kernel: jax.Array, stride: int, pads: _Pads) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=layout)


def _products(x: jax.Array, kernel: jax.Array, stride: int, pads: _Pads) -> jax.Array:
    # Slices first moves k² inputs a pixel. Product first moves k² outputs at every pixel, also at
    # those that a stride skips. With half as many outputs as inputs product first takes 0.5 to 0.9
    # of the time of slices first, with a tenth as many a quarter, with as many 1.2 to 3.5 times.
    inputs, outputs = kernel.shape[2:]
    first = stride == 1 and 2 * outputs <= inputs
    return (_product_first if first else _slices_first)(x, kernel, stride, pads)


def _slices_first(x: jax.Array, kernel: jax.Array, stride: int, pads: _Pads) -> jax.Array:
    """Shifted slices side by side, [batch, height, width, k² inputs], times the kernel."""
    # Tried, with their times relative to this form: a sum of k² products of slices (1.0 to 1.2,
    # forward 2), slices along a new leading axis (1.4 to 2.3), rows and columns one after the other
    # (1.2), blocks of stride x stride pixels as channels (2.6, because of zeros in the kernel). For
    # stride 1 and as many outputs as inputs, XLA's convolution with gradients converted to its
    # layout by hand takes 0.6 to 1.0, but has no forward-mode derivative.
    rows, columns, inputs, outputs = kernel.shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    batch, height, width, _ = x.shape
    down, right = height - rows + 1, width - columns + 1
    slices = [
        lax.slice(x, (0, u, v, 0), (batch, u + down, v + right, inputs), (1, stride, stride, 1))
        for u in range(rows)
        for v in range(columns)
    ]
    return product(jnp.concatenate(slices, axis=-1), kernel.reshape(-1, outputs))


def _product_first(x: jax.Array, kernel: jax.Array, stride: int, pads: _Pads) -> jax.Array:
    """One product with the whole kernel, [batch, height, width, k² outputs], then shifted sums."""
    assert stride == 1
    rows, columns, inputs, outputs = kernel.shape
    (top, bottom), (left, right) = pads
    down, across = top + bottom + 1 - rows, left + right + 1 - columns
    products = product(x, kernel.transpose(2, 0, 1, 3).reshape(inputs, -1))
    # lax.split, not slices: its gradient is one concatenation.
    parts = lax.split(products, [outputs] * (rows * columns), axis=3)
    zero = jnp.zeros((), x.dtype)

    def shifted(u: int, v: int) -> jax.Array:
        shift = ((0, 0, 0), (top - u, down - top + u, 0), (left - v, across - left + v, 0))
        return lax.pad(parts[u * columns + v], zero, (*shift, (0, 0, 0)))

    return functools.reduce(jnp.add, (shifted(u, v) for u in range(rows) for v in range(columns)))
