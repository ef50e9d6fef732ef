"""Task: reconstruction errors: cross-entropy, squared error, PSNR, SSIM, and pictures."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from aejax import pictures
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError
from aejax.evaluation import plots, principal, symbols
from aejax.evaluation.principal import Components
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder
from aejax.evaluation.rows import EvaluatedRows, batch_rows, real_elements, stream
from aejax.evaluation.similarity import FULL_WINDOW, ssim, window
from aejax.models.likelihood import Bernoulli
from aejax.runs.folder import Run
from aejax.runs.loading import Model

# For models without logits, means are clipped to this distance from 0 and 1, as in Keras.
_CLIP, _SMALL = 1e-7, "1e-7"
# The smallest window of SSIM.
_LEAST_WINDOW = 3
_PICTURES, _PICTURES_WIDTH = 10, 1600


@dataclasses.dataclass(frozen=True)
class Scales:
    """The units and measures for a model and its rows.

    Attributes:
        shape: of one row.
        peak: the range of an element's values (maximum - minimum).
        scaled: whether the data were scaled to [0, 1].
        table: whether elements are columns of a table, measured in the model's units.
        logits: whether the cross-entropy comes from a Bernoulli decoder's logits.
        window: the side of SSIM's window, or 0 where there is no SSIM.
    """

    shape: tuple[int, ...]
    peak: float
    scaled: bool
    table: bool
    logits: bool
    window: int

    @property
    def entropies(self) -> bool:
        """Whether values can be read as probabilities, for a cross-entropy."""
        return self.scaled or self.logits

    @property
    def image(self) -> bool:
        return pictures.is_image(self.shape)

    @property
    def element(self) -> str:
        """The name of an element: means are over all values of a pixel, three in colour images."""
        return "pixel" if self.image and self.shape[-1] == 1 else "value"

    @property
    def row(self) -> str:
        return "image" if self.image else "row"


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    need_autoencoder(run, "--tasks=reconstruction")


def task(model: Model, source: Source) -> Result:
    """Measures the errors of deterministic reconstructions.

    Sums over rows and elements are taken in float64, in units of `preparation.measured` ([0, 1]
    where the data were scaled). Symbols are compared as `symbols.result` does.

    Raises:
        InputError: a model without encode and decode.
    """
    check(model.run, source.spec)
    if symbols.are_symbols(model):
        return symbols.result(model, source)
    scales = _scales(model, source)
    baseline, why_not = _baseline(model, source)
    sums: dict[str, float] = {}
    first: EvaluatedRows | None = None
    for batch in stream(model, source, _compared(model, scales.logits)):
        first = first or batch
        real = real_elements(batch.rows)
        for name, values in measures(batch.values, scales, baseline, real).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum(dtype=np.float64))
    assert first is not None
    elements, outside = sums.pop("elements"), round(sums.pop("outside", 0.0))
    means = {name: value / elements for name, value in sums.items()}
    means |= {name: sums[name] / len(source) for name in ("ssim",) if name in sums}
    return Result(
        _numbers(means, scales, baseline, elements / len(source)),
        [_figure(first, scales)] if scales.image else [],
        notes=[*_notes(scales, source, outside), *why_not],
    )


def _compared(model: Model, logits: bool) -> Callable[..., dict[str, jax.Array]]:
    """(module, raw, mask) -> {"x", "mean"} as `measured`, {"bce"}, each [rows, elements]."""
    preparation = model.preparation

    def compare(module: Any, raw: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
        x = preparation(raw)
        z, out = module.encode(x, mask), {}
        if logits:
            # From the logits, by the model's likelihood: a saturated sigmoid loses precision.
            likelihood, parameters = module.settings.likelihood, module.decoder(z, None, mask)
            mean = likelihood.mean(parameters)
            # Flat rows: XLA on a CPU does not vectorise over a last axis of one channel.
            flat = parameters.reshape(len(x), -1, parameters.shape[-1])
            out["bce"] = -likelihood.log_prob(flat, x.reshape(len(x), -1))
        else:
            mean = module.decode(z, mask)
        for name, values in (("x", x), ("mean", mean)):
            out[name] = preparation.measured(values).reshape(len(x), -1)
        return out

    return compare


def _scales(model: Model, source: Source) -> Scales:
    spec, scaled = source.spec, model.preparation.settings.scale
    likelihood = model.run.config.model.likelihood
    side = window(*spec.shape[:2]) if pictures.is_image(spec.shape) else 0
    return Scales(
        shape=spec.shape,
        peak=1.0 if scaled else spec.maximum or _range(source),
        scaled=scaled,
        table=bool(spec.columns),
        logits=isinstance(likelihood, Bernoulli),
        window=side if side >= _LEAST_WINDOW else 0,
    )


def _range(source: Source) -> float:
    """Maximum - minimum of all rows; 1 if all values are equal."""
    low, high, size = math.inf, -math.inf, batch_rows(source)
    for start in range(0, len(source), size):
        x = source[slice(start, start + size)].real_values
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    return high - low or 1.0


def _baseline(model: Model, source: Source) -> tuple[Components | None, list[str]]:
    """PCA of the training split with as many components as the code has numbers, and notes."""
    run, preparation = model.run, model.preparation
    elements = math.prod(run.spec.shape)
    row = jax.ShapeDtypeStruct((1, *run.spec.shape), run.spec.dtype)
    code = math.prod(jax.eval_shape(lambda raw: model.module.encode(preparation(raw)), row).shape)
    if code >= elements:
        return None, [
            f"No PCA beside it: a code of {code} numbers is no smaller than a row of {elements}."
        ]
    if run.spec.padded:
        return None, ["No PCA beside it: rows have a length each."]
    if run.spec.missing or source.spec.missing:
        return None, ["No PCA beside it: values are missing."]
    if elements > principal.MAX_ELEMENTS:
        return None, [
            f"No PCA beside it: rows have {elements} elements, more than {principal.MAX_ELEMENTS}."
        ]
    try:
        found = principal.of_training_split(run, code)
    except InputError as error:
        return None, [f"No PCA beside it: the training split cannot be read ({error})."]
    part = f"{found.rows} rows, evenly taken," if found.rows < run.rows else f"{found.rows} rows"
    return found, [f"PCA is fitted to {part} of the training split."]


def measures(
    values: dict[str, np.ndarray],
    scales: Scales,
    baseline: Components | None,
    real: np.ndarray,
) -> dict[str, np.ndarray]:
    """{name: [rows]}: sums over each row's real elements in float64; SSIM, and elements, of rows.

    Args:
        values: x and mean, and bce where there are logits, each [rows, elements].
        scales: of the rows.
        baseline: principal components to compare with.
        real: 1.0 for what is no padding [rows, elements].
    """
    x, mean = (values[name].astype(np.float64) for name in ("x", "mean"))
    each = {"elements": real, "mse": np.square(x - mean)}
    if baseline is not None:
        nearest = baseline.reconstruct(x)
        each["pca_mse"] = np.square(x - nearest)
    if scales.entropies:
        inside = np.clip(x, 0, 1)
        each["outside"] = x != inside
        each["bce_floor"] = _entropy(inside)
        each["bce"] = values["bce"] if scales.logits else _cross_entropy(inside, mean)
        if baseline is not None:
            each["pca_bce"] = _cross_entropy(inside, nearest)
    out = {name: (value * real).sum(axis=1) for name, value in each.items()}
    if scales.window:
        images = (len(x), *scales.shape)
        out["ssim"] = ssim(x.reshape(images), mean.reshape(images), scales.peak)
    return out


def _cross_entropy(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    mean = np.clip(mean, _CLIP, 1 - _CLIP)
    return -(x * np.log(mean) + (1 - x) * np.log1p(-mean))


def _entropy(x: np.ndarray) -> np.ndarray:
    from scipy.special import entr

    return entr(x) + entr(1 - x)


def _numbers(
    means: dict[str, float], scales: Scales, baseline: Components | None, elements: float
) -> dict[str, Number]:
    """Args: means over elements (SSIM: over rows); elements of a row, in the mean."""
    each, whole = scales.element, scales.row
    squared = "" if scales.scaled else "squared data units "
    if scales.table and not scales.scaled:
        squared = "squared units of the prepared columns "
    how = "the decoder's logits" if scales.logits else f"means kept {_SMALL} from 0 and 1"
    mse = means["mse"]
    out = {}
    if "bce" in means:
        nats = f"nats per {each}"
        out["bce"] = Number(means["bce"], nats, f"binary cross-entropy, from {how}", main=True)
        out["bce_floor"] = Number(
            means["bce_floor"], nats, f"entropy of the {each}s themselves: bce is never less"
        )
    out["mse"] = Number(mse, f"{squared}per {each}", "squared error", main=True)
    out["squared_error"] = Number(
        mse * elements,
        f"{squared}per {whole}",
        f"squared error, summed over {elements:.5g} {each}s",
    )
    if not scales.table:
        psnr = 10 * math.log10(scales.peak**2 / mse) if mse > 0 else None
        meaning = f"peak signal to noise, from the mse of all rows; peak {scales.peak:g}"
        out["psnr"] = Number(psnr, "dB", meaning, True)
    if "ssim" in means:
        side = scales.window
        out["ssim"] = Number(
            means["ssim"], "", f"structural similarity (window {side} x {side}); 1 is equal", True
        )
        out["ssim_window"] = Number(side, "pixels", "side of SSIM's Gaussian window")
    if baseline is not None:
        count = len(baseline.variance)
        by = f"by PCA with as many components as the code has numbers, {count}"
        out["pca_mse"] = Number(means["pca_mse"], f"{squared}per {each}", f"squared error {by}")
        if "pca_bce" in means:
            out["pca_bce"] = Number(
                means["pca_bce"],
                f"nats per {each}",
                f"cross-entropy {by}; values kept {_SMALL} from 0 and 1",
            )
        out["pca_components"] = Number(count, "", "components of that PCA")
    return out


def _notes(scales: Scales, source: Source, outside: int) -> list[str]:
    """Notes on what was left out and why, and on how to read the rest."""
    notes = []
    if not scales.entropies:
        notes.append(
            "No cross-entropy: the data were not scaled to [0, 1], so values are no probabilities."
        )
    if outside:
        notes.append(
            f"{outside} values lie outside the training split's range [0, 1];"
            " cross-entropies are taken of the nearest value inside"
            f"{', but for bce' if scales.logits else ''}."
        )
    if not scales.scaled and source.spec.maximum is None and not scales.table:
        notes.append("PSNR and SSIM take the range of the evaluated rows for the peak.")
    if not scales.image:
        notes.append(f"No SSIM and no pictures: rows of shape {scales.shape} are not images.")
    elif not scales.window:
        notes.append(
            f"No SSIM: images of shape {scales.shape} are smaller than the least window, "
            f"{_LEAST_WINDOW} x {_LEAST_WINDOW} pixels."
        )
    elif scales.window < FULL_WINDOW:
        notes.append(
            f"SSIM's window is {scales.window} x {scales.window} pixels, the largest odd one that"
            f" fits these images, not {FULL_WINDOW} x {FULL_WINDOW}."
        )
    return notes


def _figure(first: EvaluatedRows, scales: Scales) -> Figure:
    """The first images of the split above their reconstructions."""
    height, width, _ = scales.shape
    count = min(len(first.rows.x), max(1, min(_PICTURES, _PICTURES_WIDTH // width)))
    x, mean = (
        first.values[name][:count].reshape(count, *scales.shape) / scales.peak
        for name in ("x", "mean")
    )
    grid = pictures.pairs(x, mean)
    factor = max(1, round(960 / grid.shape[1]))
    return Figure(
        "reconstruction",
        plots.image_png(pictures.enlarged(grid, factor)),
        f"The first {count} images (above) and what the model makes of their codes (below),"
        f" {width} x {height} pixels each.",
    )
