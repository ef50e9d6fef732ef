"""An endless stream of images: each use of one deforms it by smooth random fields.

infiMNIST-style (Loosli, Canu and Bottou 2007, "Training invariant support vector machines using
selective sampling"), not bit-identical: infiMNIST's stored fields and tangents are not used.

    x' = clip(x + F1 dx + F2 dy), then moved by one of nine shifts

where dx and dy are the central differences of the image smoothed by [1, 2, 1] / 4 along both axes,
F1 and F2 fields of displacements in pixels, and the shifts those to the eight neighbours by one
pixel, and none. This is a displacement along the fields to first order, not a resampling: it holds
while displacements are about a pixel.

A field is white noise smoothed by a Gaussian of 4 pixels. The noise goes on beyond the edges, so
that displacements are as large there: S [n, n + margins] smooths along an axis of n pixels. A few
vectors of S = U diag(s) V' hold nearly all of its energy; with B = U diag(s) of these alone,
F = B_y N B_x' is such a field, where N is a few standard normals.

What is drawn for an image is a function of its key, and its key of the run's seed, the epoch and
the image's number (`stream_keys`).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

# Of the Gaussian, in pixels.
_SIGMA = 4.0
# The share of a field's variance that is left out along an axis.
_LEFT_OUT = 1e-4


def stream_keys(key: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """fold_in(fold_in(fold_in(key, 2^32 - 1), epoch), row of the split), for each row.

    What is drawn with them for a row of the split differs between epochs, and depends on neither
    batch size, devices nor feed: example epoch * rows + row of the stream follows from the seed.

    Args:
        key: of the run's seed.
        epoch: uint32, of any shape.
        index: rows' numbers in the training split, of the same shape.
    """
    # No step has this number, so that these are the keys of no step's rows.
    base = jax.random.fold_in(key, jnp.uint32(2**32 - 1))

    def fold(epoch: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(base, epoch), index)

    # Over each axis in turn: one of them may be dealt out over devices.
    for _ in range(index.ndim):
        fold = jax.vmap(fold)
    return fold(epoch, index)


def deform(images: jax.Array, keys: jax.Array, rms: float, maximum: float | None) -> jax.Array:
    """Images, each deformed by two fields and moved by a shift of its own.

    Args:
        images: [rows, height, width, ...] of any type; the channels of an image move together.
        keys: one a row [rows]; what becomes of a row is a function of its key.
        rms: root mean square of the displacement along each axis, in pixels.
        maximum: values are clipped to 0 and this; None: to the image's own least and largest.

    Returns:
        float32, the same shape; 0 where a shift leaves nothing.
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
    # A product for each row, of one shape whatever the number of rows: one product for all has
    # other last bits for other numbers. In full precision: no TensorFloat-32 on a GPU.
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
    # The vectors' signs differ between libraries; the first element of none is 0.
    u, s = u[:, :kept] * np.sign(u[:1, :kept]), s[:kept]
    return (u * s * np.sqrt(size / energy[kept - 1])).astype(np.float32)


def _mixed(x: jax.Array, axis: int, step: int, weights: tuple[int, int, int]) -> jax.Array:
    """Weights of the element before, of itself and of the one after; the edges go on outside."""
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
    """One of the nine cuts from an image with an edge of one pixel of zeros."""
    shift = jax.random.randint(jax.random.fold_in(key, 1), (), 0, 9)
    height, width = wide.shape[0] - 2, wide.shape[1] - 2 * channels
    start = (2 - shift // 3, (2 - shift % 3) * channels)
    return jax.lax.dynamic_slice(wide, start, (height, width))
