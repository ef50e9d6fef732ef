"""Task: all codes as an .npz file, with their variance, neighbours and two-dimensional maps."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.data.sources.base import Source, Spec, file_rows
from aejax.errors import InputError
from aejax.evaluation import plots, principal
from aejax.evaluation.encoded import evenly
from aejax.evaluation.principal import Components
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder
from aejax.evaluation.rows import stream
from aejax.runs.folder import Run
from aejax.runs.loading import Model

CODES = "codes.npz"
MAPS = ("pca", "tsne")
NEIGHBOURS = 5
_MOST_MAPPED, _PERPLEXITY = 2000, 30.0
# Neighbours are computed for at most so many rows, evenly spaced: time grows with their square.
_MOST_NEIGHBOURS = 10_000
# A unit counts as constant if its range, relative to its largest value, is below this (rounding).
_CONSTANT = 1e-6


def check(run: Run, spec: Spec, maps: str = "pca") -> None:
    """Raises InputError if the task cannot be done, or for an unknown map."""
    need_autoencoder(run, "--tasks=latent")
    if unknown := [name for name in maps.split(",") if name not in MAPS]:
        raise InputError(
            f"--maps={maps}: there is no map {unknown[0]!r}; accepted: {', '.join(MAPS)}"
        )


def task(model: Model, source: Source, maps: str = "pca") -> Result:
    """Encodes every row and describes the codes, in float64.

    The file `codes.npz` has z [rows, latent], index [rows] (a row's number in its split) and, where
    there are any, label [rows] and file_row [rows] (a row's number in the file, from 0).

    Args:
        model: `rows.rescaled` to the source.
        source: rows to encode.
        maps: maps of codes with two numbers or more, separated by commas: pca; tsne (van der Maaten
            and Hinton 2008), of at most 2,000 rows.

    Raises:
        InputError: a model without encode, or an unknown map.
    """
    check(model.run, source.spec, maps)
    wanted = maps.split(",")
    z, label = _codes(model, source)
    flat = z.reshape(len(z), -1).astype(np.float64)
    arrays = {"z": z, "index": np.arange(len(z))}
    if label is not None:
        arrays["label"] = label
    if (rows := file_rows(source)) is not None:
        arrays["file_row"] = rows
    numbers, figures, notes = describe(flat), [], []
    classes = source.spec.classes
    size = flat.shape[1]
    if size == 1:
        png = plots.histogram_png(flat[:, 0], label, "code", classes)
        few = label is not None and len(np.unique(label)) <= plots.MOST_COLOURS
        what = "Which share of each class's rows has" if few else "How many rows have"
        caption = f"{what} which code, one number{_by(label if few else None)}."
        figures.append(Figure("latent", png, caption))
        notes.append("No PCA of the codes: they have one number.")
    if size == 2:
        png = plots.scatter_png(flat, label, ("code 1", "code 2"), classes)
        figures.append(Figure("latent", png, f"The codes, one point a row{_by(label)}."))
    if size >= 2:
        components = principal.fit([flat], 2)
        numbers |= _explained(components)
        if "pca" in wanted:
            figures.append(_plane(components, flat, label, numbers, classes))
        if "tsne" in wanted:
            figures.append(_tsne(flat, label, model.run.config.seed, classes))
        figures.append(_activity(model, source, flat))
    if label is not None and len(flat) > NEIGHBOURS:
        numbers |= _neighbours(flat, label)
    if label is None:
        notes.append("Nothing is coloured by class: the source has no labels.")
    return Result(numbers, figures, {CODES: arrays}, notes)


def _codes(model: Model, source: Source) -> tuple[np.ndarray, np.ndarray | None]:
    preparation = model.preparation

    def encode(module: Any, raw: jax.Array, mask: jax.Array | None) -> jax.Array:
        return module.encode(preparation(raw), mask)

    batches = [(batch.values, batch.rows.label) for batch in stream(model, source, encode)]
    # Codes with a shape, such as a masked model's tokens, become vectors.
    z = np.concatenate([codes.reshape(len(codes), -1) for codes, _ in batches])
    labels = [label for _, label in batches if label is not None]
    return z, np.concatenate(labels) if labels else None


def describe(z: np.ndarray) -> dict[str, Number]:
    """Statistics of codes [rows, units], such as variance and the number of constant units."""
    low, high = z.min(axis=0), z.max(axis=0)
    constant = high - low <= _CONSTANT * np.maximum(np.abs(low), np.abs(high))
    variance = z.var(axis=0)
    return {
        "latent_dim": Number(z.shape[1], "", "numbers in a code"),
        "dead_units": Number(
            int(constant.sum()), "units", "the same on every row, zero or not", main=True
        ),
        "nonzero": Number(float(np.mean(z != 0)), "", "share of a code's numbers that are not 0"),
        "mean": Number(float(z.mean()), "", "mean over rows and units"),
        "variance": Number(
            float(variance.mean()), "", "variance over rows, mean over units", main=True
        ),
        "variance_least": Number(float(variance.min()), "", "of the unit that varies least"),
        "variance_largest": Number(float(variance.max()), "", "of the unit that varies most"),
    }


def _explained(components: Components) -> dict[str, Number]:
    shares = components.variance / components.total if components.total > 0 else (None, None)
    return {
        f"pca_{i}": Number(
            None if share is None else float(share),
            "",
            f"share of the codes' variance along principal component {i}",
        )
        for i, share in enumerate(shares, start=1)
    }


def _plane(
    components: Components,
    z: np.ndarray,
    label: np.ndarray | None,
    numbers: dict[str, Number],
    classes: Sequence[str],
) -> Figure:
    def percent(value: float | int | None) -> str:
        return "no variance" if value is None else f"{100 * value:.1f} % of the variance"

    first, second = (numbers[name].value for name in ("pca_1", "pca_2"))
    axes = (f"component 1 ({percent(first)})", f"component 2 ({percent(second)})")
    together = None if first is None or second is None else first + second
    caption = (
        f"The codes on their two leading principal components, which keep {percent(together)};"
        f" one point a row{_by(label)}."
    )
    png = plots.scatter_png(components.project(z), label, axes, classes)
    return Figure("latent_pca", png, caption)


def _tsne(z: np.ndarray, label: np.ndarray | None, seed: int, classes: Sequence[str]) -> Figure:
    from sklearn.manifold import TSNE

    some = evenly(len(z), _MOST_MAPPED)
    settings = {"init": "pca", "random_state": seed}
    tsne = TSNE(perplexity=min(_PERPLEXITY, (len(some) - 1) / 3), **settings)
    points = tsne.fit_transform(z[some].astype(np.float32))
    label = None if label is None else label[some]
    png = plots.scatter_png(points, label, ("t-SNE 1", "t-SNE 2"), classes)
    caption = (
        f"t-SNE of {len(some)} codes, perplexity {tsne.perplexity:g}, one point a row{_by(label)}."
        " Near rows stay near; sizes of groups and distances between them mean nothing."
    )
    return Figure("latent_tsne", png, caption)


def _neighbours(z: np.ndarray, label: np.ndarray) -> dict[str, Number]:
    """Accuracy of nearest-neighbour classification (majority of the neighbours; lowest on ties)."""
    from scipy.stats import mode
    from sklearn.neighbors import NearestNeighbors

    some = evenly(len(z), _MOST_NEIGHBOURS)
    z, label = z[some], label[some]
    # Called without rows, kneighbors excludes each row from its own neighbours.
    found = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(z).kneighbors(return_distance=False)
    accuracy = float(np.mean(mode(label[found], axis=1).mode == label))
    meaning = (
        f"share of {len(z)} rows whose class is the most frequent one of the {NEIGHBOURS} nearest"
        " other codes"
    )
    return {"knn_accuracy": Number(accuracy, "", meaning, main=True)}


def _activity(model: Model, source: Source, z: np.ndarray) -> Figure:
    """A bar chart of the activity of each number of the code, in descending order."""
    values, what = activity(model, source, z)
    png = plots.bars_png(np.sort(values)[::-1], ("numbers of the code, in order", what))
    return Figure("latent_activity", png, f"Each number of a code: its {what}, largest first.")


def activity(model: Model, source: Source, z: np.ndarray) -> tuple[np.ndarray, str]:
    """The activity of each number of the code [numbers], and the name of the measure.

    Args:
        model: `rows.rescaled` to the source.
        source: rows.
        z: their codes [rows, numbers].
    """
    if model.run.config.model.has_posterior:
        return _divergences(model, source), "KL to the prior (nats, mean over rows)"
    return z.var(axis=0), "variance over rows"


def _divergences(model: Model, source: Source) -> np.ndarray:
    """KL of each number of a code with a posterior, in nats, mean over rows [numbers]."""

    def measure(module: Any, raw: jax.Array, mask: jax.Array | None) -> jax.Array:
        features = module.encoder(model.preparation(raw), None, mask).astype(jnp.float32)
        kl = module.bottleneck.posterior(features).divergence()
        return kl.reshape(len(kl), -1)

    batches = [batch.values for batch in stream(model, source, measure)]
    return np.concatenate(batches).mean(axis=0, dtype=np.float64)


def _by(label: np.ndarray | None) -> str:
    return "" if label is None else ", coloured by class"
