"""An endless stream of images: each use of an image deforms it by smooth random fields.

infiMNIST-style (Loosli, Canu and Bottou 2007, "Training invariant support vector machines using
selective sampling"), not bit-identical: infiMNIST's stored fields and tangents are not used.

    x' = clip(x + F1 dx + F2 dy), then moved by one of nine shifts

where dx and dy are central differences of the image smoothed by [1, 2, 1] / 4 along both axes, F1
and F2 are fields of displacements in pixels, and the shift is by one pixel to one of the eight
neighbours, or none. This is a first-order approximation of a resampling along the fields, valid for
displacements of about a pixel.

A field is white noise smoothed by a Gaussian of 4 pixels. The noise continues beyond the edges, so
that displacements are as large there: S [n, n + margins] smooths along an axis of n pixels. A few
singular vectors of S = U diag(s) V' hold nearly all of its energy. With B = U diag(s) of these
alone, F = B_y N B_x' is such a field, where N is a small matrix of standard normal numbers.

An image's random numbers are a function of its key, and the key is a function of the run's seed,
the epoch and the image's index (`stream_keys`).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

# Standard deviation of the Gaussian, in pixels.
_SIGMA = 4.0
# The share of a field's variance along an axis that the low-rank approximation may lose.
_LEFT_OUT = 1e-4


def stream_keys(key: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """fold_in(fold_in(fold_in(key, 2^32 - 1), epoch), row of the split), for each row.

    A row's draws differ between epochs, and do not depend on batch size, devices or feed: example
    number epoch * rows + row of the stream is a function of the seed.

    Args:
        key: of the run's seed.
        epoch: uint32, of any shape.
        index: rows' indices in the training split, of the same shape.
    """
    # No step has this number, so that these keys differ from those of every step.
    base = jax.random.fold_in(key, jnp.uint32(2**32 - 1))

    def fold(epoch: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(base, epoch), index)

    # vmap over each axis, without a reshape: one of them may be sharded over devices.
    for _ in range(index.ndim):
        fold = jax.vmap(fold)
    return fold(epoch, index)


def deform(images: jax.Array, keys: jax.Array, rms: float, maximum: float | None) -> jax.Array:
    """Deforms each image by two fields of its own, and shifts it.

    Args:
        images: [rows, height, width, ...] of any type; the channels of an image move together.
        keys: one a row [rows], from which all random numbers of a row follow.
        rms: root mean square of the displacement along each axis, in pixels.
        maximum: values are clipped to 0..maximum; None: to the range of each image.

    Returns:
        float32, the same shape; 0 where a shift moves pixels in from outside.
    """
    rows, height, width = images.shape[:3]
    channels = math.prod(images.shape[3:])
    # Width and channels in one axis: XLA on a CPU does not vectorise over an axis of one channel.
    x = images.reshape(rows, height, width * channels).astype(jnp.float32)
    across, down = rms * fields(keys, height, width, channels)
    smooth = _mixed(_mixed(x, 1, 1, (1, 2, 1)), 2, channels, (1, 2, 1))
    dx = _mixed(smooth, 2, channels, (-1, 0, 1)) / 32
    dy = _mixed(smooth, 1, 1, (-1, 0, 1)) / 32
    ends = (0.0, maximum)
    if maximum is None:
        ends = jnp.min(x, axis=(1, 2), keepdims=True), jnp.max(x, axis=(1, 2), keepdims=True)
    x = jnp.clip(x + across * dx + down * dy, *ends)
    around = [(0, 0), (1, 1), (channels, channels)]
    x = jax.vmap(_shifted, (0, 0, None))(jnp.pad(x, around), keys, channels)
    return x.reshape(images.shape)


def fields(keys: jax.Array, height: int, width: int, channels: int = 1) -> jax.Array:
    """Two fields a row, of mean variance 1: float32 [2, rows, height, width * channels]."""
    along_y, along_x = basis(height), basis(width).repeat(channels, axis=0)
    shape = (2, along_y.shape[1], along_x.shape[1])
    normals = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), shape))(keys)
    normals = jnp.moveaxis(normals, 1, 0)
    # One product for each row: the last bits of a single product would depend on the number of
    # rows. In full precision: no TensorFloat-32 on a GPU.
    batched = normals.shape[:2]
    left = jnp.broadcast_to(along_y, (*batched, *along_y.shape))
    right = jnp.broadcast_to(along_x.T, (*batched, *along_x.T.shape))
    product = functools.partial(jnp.matmul, precision="highest")
    return product(product(left, normals), right)


@functools.cache
def basis(size: int) -> np.ndarray:
    """B: a smooth field along `size` pixels, of mean variance 1, is B times standard normals.

    Returns:
        float32 [size, normals].
    """
    margin = math.ceil(4 * _SIGMA)
    distance = np.arange(size)[:, None] - np.arange(-margin, size + margin)
    u, s, _ = np.linalg.svd(np.exp(-np.square(distance / _SIGMA) / 2))
    energy = np.cumsum(np.square(s))
    kept = 1 + int(np.searchsorted(energy, (1 - _LEFT_OUT) * energy[-1]))
    # Signs of singular vectors differ between libraries; no vector's first element is 0.
    u, s = u[:, :kept] * np.sign(u[:1, :kept]), s[:kept]
    return (u * s * np.sqrt(size / energy[kept - 1])).astype(np.float32)


def _mixed(x: jax.Array, axis: int, step: int, weights: tuple[int, int, int]) -> jax.Array:
    """A three-point filter along an axis; beyond the edges the edge's value is repeated."""
    size = x.shape[axis]
    first = jax.lax.slice_in_dim(x, 0, step, axis=axis)
    last = jax.lax.slice_in_dim(x, size - step, size, axis=axis)
    wide = jnp.concatenate([first, x, last], axis)
    parts = (
        weight * jax.lax.slice_in_dim(wide, i * step, i * step + size, axis=axis)
        for i, weight in enumerate(weights)
        if weight
    )
    return functools.reduce(jnp.add, parts)


def _shifted(wide: jax.Array, key: jax.Array, channels: int) -> jax.Array:
    """One of the nine shifts of an image that is padded with one pixel of zeros."""
    shift = jax.random.randint(jax.random.fold_in(key, 1), (), 0, 9)
    height, width = wide.shape[0] - 2, wide.shape[1] - 2 * channels
    start = (2 - shift // 3, (2 - shift % 3) * channels)
    return jax.lax.dynamic_slice(wide, start, (height, width))
