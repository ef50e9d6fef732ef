"""Grids of images, as arrays."""

import numpy as np


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape are images: [height, width, 1 or 3]."""
    return len(shape) == 3 and shape[-1] in (1, 3)


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Values in [0, 1], clipped, -> uint8."""
    return (np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8)


def pairs(originals: np.ndarray, reconstructions: np.ndarray, gap: int = 1) -> np.ndarray:
    """Originals above their reconstructions.

    Args:
        originals: [n, height, width, channels] in [0, 1].
        reconstructions: the same shape.
        gap: pixels of grey between images.

    Returns:
        uint8 [2 (height + gap) + gap, n (width + gap) + gap, channels].
    """
    return grid(np.stack([originals, reconstructions]), gap)


def grid(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images in rows and columns.

    Args:
        images: [rows, columns, height, width, channels] in [0, 1].
        gap: pixels of grey between images.

    Returns:
        uint8 [rows (height + gap) + gap, columns (width + gap) + gap, channels].
    """
    rows, columns, height, width, channels = images.shape
    step = (height + gap, width + gap)
    image = np.full((rows * step[0] + gap, columns * step[1] + gap, channels), 96, np.uint8)
    for row, line in enumerate(images):
        for column, one in enumerate(to_bytes(line)):
            top, left = gap + row * step[0], gap + column * step[1]
            image[top : top + height, left : left + width] = one
    return image


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel as a square of factor x factor pixels."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
