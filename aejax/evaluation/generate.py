"""Task: rows that the decoder makes of drawn codes, and of codes between those of two rows.

A variational code's prior is a standard normal, so that codes are drawn from it. Other codes have
none: a plain one is drawn from a normal distribution with the mean and covariance of the codes of
the evaluated rows; a k-sparse one, most of whose numbers are exactly 0, from nothing.
"""

from typing import Any

import jax
import numpy as np

from aejax import pictures
from aejax.data.sources.base import Source, Spec
from aejax.evaluation import plots
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder, need_whole
from aejax.evaluation.rows import stream
from aejax.models.bottlenecks import Plain, Variational
from aejax.runs.folder import Run
from aejax.runs.loading import Model

_SIDE, _PAIRS, _STEPS = 10, 8, 10
_PIXELS = 960
# Below this sine of their angle, codes lie in one direction: the circle between them is a line.
_PARALLEL = 1e-4


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    need_autoencoder(run, "--tasks=generate")
    need_whole(spec, "--tasks=generate")


def task(model: Model, source: Source) -> Result:
    """Draws 100 codes by the run's seed and walks between the codes of 8 pairs of rows.

    Raises:
        InputError: a model without encode and decode, or rows with padding.
    """
    check(model.run, source.spec)
    z, x = _codes(model, source)
    bottleneck = model.run.config.model.bottleneck
    random = np.random.RandomState(model.run.config.seed)
    drawn, whence = draw(z, bottleneck, _SIDE * _SIDE, random)
    numbers, figures, notes = {}, [], []
    image = pictures.is_image(source.spec.shape)
    peak = 1.0 if model.preparation.settings.scale else source.spec.maximum or float(x.max()) or 1.0
    if drawn is None:
        notes.append(f"No samples: {whence}")
    else:
        decoded = model.decode(drawn.reshape(-1, *model.code_shape))
        numbers = _distances(decoded.reshape(len(decoded), -1), x)
        notes.append(f"Codes are drawn from {whence}.")
        if image:
            grid = decoded.reshape(_SIDE, _SIDE, *source.spec.shape) / peak
            caption = f"What the decoder makes of codes drawn from {whence}."
            figures.append(Figure("samples", _png(grid), caption))
    pairs = min(_PAIRS, len(z) // 2)
    if image and pairs:
        path = spherical if isinstance(bottleneck, Variational) else linear
        steps = np.linspace(0, 1, _STEPS)
        between = path(z[0 : 2 * pairs : 2], z[1 : 2 * pairs : 2], steps)
        decoded = model.decode(between.reshape(-1, *model.code_shape))
        grid = decoded.reshape(pairs, _STEPS, *source.spec.shape) / peak
        ways = {linear: "straight lines", spherical: "arcs of a circle (spherical interpolation)"}
        caption = (
            f"The first {2 * pairs} rows in pairs, reconstructed at the left and right ends, and"
            f" {_STEPS - 2} codes between theirs, evenly along {ways[path]}."
        )
        figures.append(Figure("interpolation", _png(grid), caption))
    if not image:
        notes.append(f"No pictures: rows of shape {source.spec.shape} are not images.")
    return Result(numbers, figures, notes=notes)


def _codes(model: Model, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Codes [rows, numbers] in float64, and rows in units after inverse [rows, elements]."""
    preparation = model.preparation

    def encode(module: Any, raw: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        x = preparation(raw)
        return module.encode(x, mask).reshape(len(x), -1), preparation.inverse(x).reshape(
            len(x), -1
        )

    values = [batch.values for batch in stream(model, source, encode)]
    z, x = (np.concatenate(parts) for parts in zip(*values, strict=True))
    return z.astype(np.float64), x


def draw(
    z: np.ndarray, bottleneck: Any, count: int, random: np.random.RandomState
) -> tuple[np.ndarray | None, str]:
    """Codes [count, numbers] and what they are drawn from; or None, and why there are none.

    Args:
        z: codes of rows [rows, numbers].
        bottleneck: the model's.
        count: how many to draw.
        random: draws.
    """
    noise = random.standard_normal((count, z.shape[1]))
    if isinstance(bottleneck, Variational):
        return noise, "the prior, a standard normal"
    if not isinstance(bottleneck, Plain):
        return None, "this code has no prior, and a normal distribution does not resemble it."
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(z, rowvar=False, bias=True)))
    drawn = z.mean(axis=0) + (noise * np.sqrt(np.maximum(values, 0))) @ axes.T
    whence = f"a normal distribution with the mean and covariance of the codes of {len(z)} rows"
    return drawn, f"{whence} (a plain code has no prior)"


def linear(first: np.ndarray, last: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(1 - t) first + t last: two [pairs, numbers], steps [n] -> [pairs, n, numbers]."""
    t = steps[:, None]
    return (1 - t) * first[:, None] + t * last[:, None]


def spherical(first: np.ndarray, last: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Shoemake's (1985) arc, as White (2016, "Sampling Generative Networks") uses it.

        sin((1 - t) angle) / sin(angle) first + sin(t angle) / sin(angle) last

    Codes between keep about the length that codes of a normal prior have; on straight lines they
    are shorter than any that the decoder was trained on.

    Args:
        first, last: [pairs, numbers].
        steps: t [n].

    Returns:
        [pairs, n, numbers].
    """
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(last, axis=1)
    products = np.sum(first * last, axis=1)
    cosine = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 1)
    angle = np.arccos(np.clip(cosine, -1, 1))[:, None, None]
    t, sine = steps[:, None], np.sin(angle)
    safe = np.where(sine > _PARALLEL, sine, 1)
    arc = (np.sin((1 - t) * angle) * first[:, None] + np.sin(t * angle) * last[:, None]) / safe
    return np.where(sine > _PARALLEL, arc, linear(first, last, steps))


def _distances(decoded: np.ndarray, x: np.ndarray) -> dict[str, Number]:
    """How far what was made lies from the nearest row, and rows from each other."""
    count = min(len(decoded), len(x) - 1)
    out = {
        "to_rows": Number(
            float(_nearest(decoded, x, False).mean()),
            "",
            "root mean squared difference of a sample and the nearest evaluated row",
            main=True,
        )
    }
    if count > 0:
        out["row_to_rows"] = Number(
            float(_nearest(x[:count], x, True).mean()),
            "",
            f"the same of each of the first {count} rows and the nearest other one",
        )
    return out


def _nearest(rows: np.ndarray, others: np.ndarray, same: bool) -> np.ndarray:
    """Root mean squared difference of each row and the nearest other; `same`: not to itself."""
    rows, others = rows.astype(np.float64), others.astype(np.float64)
    squares = np.square(rows).sum(1)[:, None] + np.square(others).sum(1) - 2 * rows @ others.T
    if same:
        squares[np.arange(len(rows)), np.arange(len(rows))] = np.inf
    return np.sqrt(np.maximum(squares.min(axis=1), 0) / rows.shape[1])


def _png(images: np.ndarray) -> bytes:
    """[rows, columns, height, width, channels] in [0, 1] -> a picture of the grid."""
    grid = pictures.grid(images)
    return plots.image_png(pictures.enlarged(grid, max(1, round(_PIXELS / grid.shape[1]))))
