"""SSIM against its definition, summed place by place."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from aejax.evaluation.similarity import ssim, window


def by_definition(x: np.ndarray, y: np.ndarray, side: int, peak: float) -> float:
    """Wang et al. 2004, equation 13, one channel, with an explicit two-dimensional window."""
    near = np.arange(side) - (side - 1) / 2
    weight = np.exp(-(near[:, None] ** 2 + near**2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for i in range(x.shape[0] - side + 1):
        for j in range(x.shape[1] - side + 1):
            a, b = x[i : i + side, j : j + side], y[i : i + side, j : j + side]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
            c = (weight * (a - ma) * (b - mb)).sum()
            c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
            values.append(
                (2 * ma * mb + c1) * (2 * c + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("shape", "side", "peak"), [((8, 8, 1), 7, 1.0), ((13, 17, 3), 11, 255.0), ((12, 5, 1), 5, 2.0)]
)
def test_it_is_the_definition(shape, side, peak):
    random = np.random.RandomState(0)
    x = random.rand(4, *shape) * peak
    y = np.clip(x + 0.3 * peak * random.randn(4, *shape), 0, peak)
    assert window(*shape[:2]) == side
    wanted = [
        np.mean([by_definition(a[..., c], b[..., c], side, peak) for c in range(shape[2])])
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(ssim(x, y, peak), wanted, rtol=1e-12)


def test_it_agrees_with_filtered_moments():
    random = np.random.RandomState(0)
    x, y = random.rand(2, 28, 28)

    def local(values):
        return gaussian_filter(values, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    mx, my = local(x), local(y)
    vx, vy, c = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    map_ = (2 * mx * my + 1e-4) * (2 * c + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    found = ssim(x[None, ..., None], y[None, ..., None], 1.0)
    np.testing.assert_allclose(found, [map_.mean()], rtol=1e-12)


def test_equal_images_have_1_and_a_photographic_negative_less_than_0():
    x = np.random.RandomState(0).rand(2, 11, 11, 3)
    np.testing.assert_allclose(ssim(x, x, 1.0), 1)
    assert (ssim(x, 1 - x, 1.0) < 0).all()


@pytest.mark.parametrize(
    ("size", "side"),
    [((28, 28), 11), ((11, 40), 11), ((10, 40), 9), ((8, 8), 7), ((3, 9), 3), ((2, 2), 1)],
)
def test_the_window_is_11_or_the_largest_odd_one_that_fits(size, side):
    assert window(*size) == side
