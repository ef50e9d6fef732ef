"""Pictures of traversals of single numbers of a code, and of the plane of a code of two numbers."""

import numpy as np

from aejax.data.sources.base import Source
from aejax.evaluation import plots
from aejax.evaluation.encoded import Encoded, peak_of
from aejax.evaluation.latent import activity
from aejax.evaluation.result import Figure
from aejax.runs.loading import Model

_MOST, _STEPS, _SIDE = 10, 11, 20
_DEVIATIONS = 3.0
_SHARES = (0.01, 0.99)
# A number of a variational code is active if its KL is above this, in nats.
_LEAST_NATS = 0.01


def traversal(model: Model, source: Source, rows: Encoded) -> list[Figure]:
    """Traversals: the first row's code with one of its most active numbers varied at a time.

    For codes with a posterior these have the largest KL to the prior, and go from -3 to 3 standard
    deviations of the prior. For other codes they have the largest variance, and go over the range
    of 98 % of the rows.

    Args:
        model: `rows.rescaled` to the source.
        source: images.
        rows: all of them, encoded.

    Returns:
        A picture with a row of images for each number; none if no number is active.
    """
    values, what = activity(model, source, rows.z)
    variational = model.run.config.model.has_posterior
    order = np.argsort(-values, kind="stable")[:_MOST]
    order = order[values[order] > (_LEAST_NATS if variational else 0)]
    if not len(order):
        return []
    low, high = (end[order] for end in _ends(rows.z, variational))
    moved = np.tile(rows.z[0], (len(order), _STEPS, 1))
    moved[np.arange(len(order)), :, order] = np.linspace(low, high, _STEPS, axis=1)
    png = plots.grid_png(_decoded(model, source, rows, moved))
    ranges = ", ".join(
        f"{number + 1} ({start:.3g} to {stop:.3g})"
        for number, start, stop in zip(order, low, high, strict=True)
    )
    over = "3 deviations of the prior to either side" if variational else "1 to 99 % of the rows"
    caption = (
        f"The first row's code with one number moved and all others kept, from left to right over"
        f" {over}. Numbers of the code, from above by their {what}: {ranges}."
    )
    return [Figure("traversal", png, caption)]


def manifold(model: Model, source: Source, rows: Encoded) -> Figure:
    """Images of codes on a 20 x 20 grid, for codes of exactly two numbers.

    For codes with a posterior coordinates are evenly spaced quantiles of the standard normal
    (Kingma and Welling 2014, figure 4). For others the grid is even over the range of 98 % of the
    rows.

    Args:
        model: `rows.rescaled` to the source.
        source: images.
        rows: all of them, encoded.
    """
    from scipy.stats import norm

    if model.run.config.model.has_posterior:
        shares = (np.arange(_SIDE) + 0.5) / _SIDE
        across = up = norm.ppf(shares)
        over = f"quantiles {shares[0]:g} to {shares[-1]:g} of the prior"
    else:
        low, high = _ends(rows.z, False)
        across, up = np.linspace(low, high, _SIDE, axis=1)
        over = "evenly over 1 to 99 % of the rows"
    z = np.stack(np.meshgrid(across, up[::-1]), axis=-1)
    png = plots.grid_png(_decoded(model, source, rows, z))
    caption = (
        f"What the decoder makes of {_SIDE} x {_SIDE} codes, {over}: number 1 from"
        f" {across[0]:.3g} (left) to {across[-1]:.3g} (right), number 2 from {up[0]:.3g} (below)"
        f" to {up[-1]:.3g} (above)."
    )
    return Figure("manifold", png, caption)


def _ends(z: np.ndarray, variational: bool) -> tuple[np.ndarray, np.ndarray]:
    """The ends of each number's traversal, [numbers] each."""
    if variational:
        ends = np.full(z.shape[1], _DEVIATIONS)
        return -ends, ends
    low, high = np.quantile(z, _SHARES, axis=0)
    return low, high


def _decoded(model: Model, source: Source, rows: Encoded, z: np.ndarray) -> np.ndarray:
    """Codes [rows, columns, numbers] -> images in [0, 1], [rows, columns, *shape]."""
    images = model.decode(z.reshape(-1, *model.code_shape))
    images = images.reshape(*z.shape[:2], *source.spec.shape)
    return images / peak_of(model, source, rows.x)
