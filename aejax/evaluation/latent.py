"""Task: what codes look like. All codes as an .npz, their spread, and pictures of the plane."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from aejax.data.sources.base import Source, Spec
from aejax.evaluation import plots, principal
from aejax.evaluation.principal import Components
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder
from aejax.evaluation.rows import stream
from aejax.runs.folder import Run
from aejax.runs.loading import Model

CODES = "codes.npz"
# A unit whose values differ by less than this part of its largest is constant: rounding differs.
_CONSTANT = 1e-6


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    need_autoencoder(run, "--tasks=latent")


def task(model: Model, source: Source) -> Result:
    """Encodes every row and describes the codes, in float64.

    The file `codes.npz` has z [rows, latent], index [rows] (a row's number in its split) and,
    where the source has labels, label [rows].

    Raises:
        InputError: a model without encode.
    """
    check(model.run, source.spec)
    z, label = _codes(model, source)
    flat = z.reshape(len(z), -1).astype(np.float64)
    arrays = {"z": z, "index": np.arange(len(z))}
    if label is not None:
        arrays["label"] = label
    numbers, figures, notes = describe(flat), [], []
    classes = source.spec.classes
    size = flat.shape[1]
    if size == 1:
        png = plots.histogram_png(flat[:, 0], label, "code", classes)
        few = label is not None and len(np.unique(label)) <= plots.MOST_COLOURS
        caption = f"How many rows have which code, one number{_by(label if few else None)}."
        figures.append(Figure("latent", png, caption))
        notes.append("No PCA of the codes: they have one number.")
    if size == 2:
        png = plots.scatter_png(flat, label, ("code 1", "code 2"), classes)
        figures.append(Figure("latent", png, f"The codes, one point a row{_by(label)}."))
    if size >= 2:
        components = principal.fit([flat], 2)
        numbers |= _explained(components)
        figures.append(_plane(components, flat, label, numbers, classes))
    if label is None:
        notes.append("Nothing is coloured by class: the source has no labels.")
    return Result(numbers, figures, {CODES: arrays}, notes)


def _codes(model: Model, source: Source) -> tuple[np.ndarray, np.ndarray | None]:
    preparation = model.preparation

    def encode(module: Any, raw: jax.Array, mask: jax.Array | None) -> jax.Array:
        return module.encode(preparation(raw), mask)

    batches = [(batch.values, batch.rows.label) for batch in stream(model, source, encode)]
    # Of a masked model a code is tokens: as one vector, [rows, tokens * width].
    z = np.concatenate([codes.reshape(len(codes), -1) for codes, _ in batches])
    labels = [label for _, label in batches if label is not None]
    return z, np.concatenate(labels) if labels else None


def describe(z: np.ndarray) -> dict[str, Number]:
    """How codes [rows, units] are spread, and how many of their units say nothing."""
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


def _by(label: np.ndarray | None) -> str:
    return "" if label is None else ", coloured by class"
