"""Structural similarity of images."""

import numpy as np

FULL_WINDOW = 11
_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03


def window(height: int, width: int) -> int:
    """The window's side: 11 pixels, or the largest odd number that fits a smaller image."""
    side = min(FULL_WINDOW, height, width)
    return side - 1 + side % 2


def ssim(originals: np.ndarray, others: np.ndarray, peak: float) -> np.ndarray:
    """Structural similarity of each pair of images, in float64; 1 for equal ones.

    SSIM = (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2)), with means,
    variances and covariance under a Gaussian window, C1 = (0.01 peak)^2 and C2 = (0.03 peak)^2;
    averaged over all positions of the window inside the image, and over channels (Wang,
    Bovik, Sheikh and Simoncelli 2004, "Image quality assessment", equation 13).

    Args:
        originals: [rows, height, width, channels].
        others: the same shape.
        peak: the range of a pixel's values (maximum - minimum).

    Returns:
        float64 [rows].
    """
    x, y = (np.moveaxis(np.asarray(a, np.float64), -1, 1) for a in (originals, others))
    side = window(*x.shape[2:])
    rows, columns = _band(side, x.shape[2]), _band(side, x.shape[3]).T

    def local(values: np.ndarray) -> np.ndarray:
        return rows @ values @ columns

    mean_x, mean_y = local(x), local(y)
    variance_x = local(x * x) - mean_x**2
    variance_y = local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return np.mean(luminance * structure, axis=(1, 2, 3))


def _band(side: int, length: int) -> np.ndarray:
    """The window's weighted means along one axis as a matrix [positions, length]."""
    weights = np.exp(-0.5 * (np.arange(side) - side // 2) ** 2 / _SIGMA**2)
    band = np.zeros((length - side + 1, length))
    for place in range(len(band)):
        band[place, place : place + side] = weights / weights.sum()
    return band
