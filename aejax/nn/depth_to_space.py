"""Depth to space: channels become pixels, which enlarges an image without dilated convolution."""

import jax


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """Moves channels to pixels: y[f i + a, f j + b, o] = x[i, j, (a f + b) channels + o].

    The last step of the sub-pixel convolution (Shi et al. 2016, "Real-Time Single Image and Video
    Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", section 3.2).

    Args:
        x: [..., height, width, factor² · channels].
        factor: how much larger each side becomes.

    Returns:
        [..., factor · height, factor · width, channels].

    Raises:
        ValueError: the channels are not a multiple of factor².
    """
    *leading, height, width, depth = x.shape
    channels, rest = divmod(depth, factor * factor)
    if rest or not channels:
        raise ValueError(f"factor={factor}: {depth} channels are no multiple of {factor * factor}")
    # The pixels along a row and their channels stay one axis, which XLA copies contiguously.
    blocks = x.reshape(*leading, height, width, factor, factor * channels)
    return blocks.swapaxes(-3, -2).reshape(*leading, factor * height, factor * width, channels)
