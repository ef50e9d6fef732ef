"""Task: how well does a model remove noise, compared with filters and the best linear map?

Noise is added to images in [0, 1] without clipping. The noisy images are the input of the model, of
scikit-image's median, Gaussian and non-local-means filters (Buades, Coll and Morel 2005), and of a
linear map that is fitted to training images with the same noise. All outputs are clipped to [0, 1].
Each filter has the best of some strengths for each kind and level of noise.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from aejax import pictures
from aejax.data.sources import open_source
from aejax.data.sources.base import Source, Spec
from aejax.errors import InputError
from aejax.evaluation import plots, tiles
from aejax.evaluation.encoded import evenly
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder, need_whole
from aejax.evaluation.similarity import ssim
from aejax.runs.folder import Run
from aejax.runs.loading import Model

# {kind: its levels}: deviation of normal noise, share of elements set to 0 or 1, or to 0.
LEVELS = {
    "gaussian": (0.1, 0.2, 0.3, 0.5),
    "salt_and_pepper": (0.1, 0.3, 0.5),
    "masking": (0.25, 0.5),
}
# Side of the median's window, Gaussian's deviation in pixels, strength h of non-local means.
STRENGTHS = {
    "median": (3, 5, 7),
    "gaussian_filter": (0.5, 0.7, 1.0, 1.2, 1.5),
    "nlm": (0.2, 0.3, 0.4, 0.5, 1.0),
}
LINEAR = "linear_map"
_ROWS, _TRAINING_ROWS = 200, 50
# The linear map is fitted to so many training rows, at least twice as many as elements.
_LINEAR_ROWS = 10_000
_RIDGE = 1e-2  # for pixels that never vary
_SHOWN = 8
_SIDE = 7  # smallest side of an image for scikit-image's windows


@dataclasses.dataclass(frozen=True)
class NoiseLevel:
    """One kind and level of noise.

    Attributes:
        kind: in `LEVELS`.
        level: of its noise.
    """

    kind: str
    level: float

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.level:g}"


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    asker = "--tasks=denoise"
    need_autoencoder(run, asker)
    need_whole(spec, asker)
    if not pictures.is_image(spec.shape) or min(spec.shape[:2]) < _SIDE:
        raise InputError(
            f"{asker}: rows of shape {spec.shape} are not images of at least {_SIDE} x {_SIDE}"
            " pixels with 1 or 3 channels"
        )
    prepare = run.config.data.prepare
    if not prepare.scale:
        raise InputError(
            f"{asker}: config.data.prepare.scale=False; must be True: levels of noise"
            " are for images in [0, 1]"
        )
    if prepare.binarise == "threshold":
        raise InputError(
            f"{asker}: config.data.prepare.binarise=threshold; must be none or sampled: the"
            " threshold would remove noise before the model sees it"
        )


def task(model: Model, source: Source) -> Result:
    """Measures PSNR and SSIM of noisy, reconstructed and filtered images.

    At most 200 evaluated rows are taken, evenly; 50 training rows choose the filters' strengths.
    A row's noise depends only on the run's seed, the kind and level of noise and the row's index.

    Raises:
        InputError: a model without encode and decode, or rows that are not images in [0, 1].
    """
    check(model.run, source.spec)
    seed, notes = model.run.config.seed, []
    index = evenly(len(source), _ROWS)
    clean = _images(model, source, index)
    train, why = _training(model)
    some = index[:_TRAINING_ROWS] if train is None else evenly(len(train), _TRAINING_ROWS)
    fitting = _images(model, train or source, some)
    linear = None if train is None else LinearMap.of(model, train)
    if linear is None:
        notes.append("No linear map: there are less than two training rows for each element.")
    notes += why
    reconstruct = _reconstruct(model)
    numbers: dict[str, Number] = {}
    curves: dict[str, dict[NoiseLevel, float]] = {}
    shown: list[tuple[str, np.ndarray]] = []
    for kind, levels in LEVELS.items():
        for noise in (NoiseLevel(kind, level) for level in levels):
            noisy = add_noise(clean, noise, seed, index)
            outs = {"noisy": noisy, "model": reconstruct(noisy)}
            trial = add_noise(fitting, noise, seed + 1, some)
            for name, strengths in STRENGTHS.items():
                best = max(strengths, key=lambda s: psnr(fitting, apply(name, s, trial)))
                outs[name] = apply(name, best, noisy)
            if linear is not None:
                outs[LINEAR] = linear(noise, seed + 1, noisy)
            found = {name: psnr(clean, out) for name, out in outs.items()}
            for name, value in found.items():
                curves.setdefault(name, {})[noise] = value
            numbers |= _numbers(noise, clean, outs, found)
            numbers |= _gain(noise, found)
            if noise.level == levels[-1]:
                best = max(STRENGTHS, key=found.__getitem__)
                strips = {"clean": clean, f"{kind} {noise.level:g}": outs["noisy"]}
                strips |= {"model": outs["model"], best: outs[best]}
                shown += [(name, images[:_SHOWN]) for name, images in strips.items()]
    notes.append(
        f"{len(clean)} rows, evenly taken, are measured; of its strengths each filter has the one"
        f" with the best PSNR on {len(fitting)} {'training' if not why else 'of these'} rows, for"
        " each kind and level of noise. PSNR is from the mean squared error of all rows; noisy"
        " values are not clipped."
    )
    return Result(numbers, [*_curves(curves), _figure(shown)], notes=notes)


def _images(model: Model, source: Source, index: np.ndarray) -> np.ndarray:
    """Rows by number in [0, 1], float32 [rows, height, width, channels]."""
    settings = dataclasses.replace(model.preparation.settings, centre="none", binarise="none")
    plain = dataclasses.replace(model.preparation, settings=settings, spec=source.spec)
    return np.asarray(plain(jax.numpy.asarray(source[index].x)))


def _training(model: Model) -> tuple[Source | None, list[str]]:
    """The run's training split, or None and why there is none."""
    location, data = model.run.location(), model.run.config.data
    try:
        return open_source(location.source, data.train, location.folder, keep=data.keep_labels), []
    except InputError as error:
        return None, [
            f"The training split cannot be read ({error}); evaluated rows choose strengths."
        ]


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """Least squares from noisy training images to clean ones.

    Attributes:
        clean: training images, float32 [rows, height, width, channels].
        index: their indices, which seed each image's noise.
    """

    clean: np.ndarray
    index: np.ndarray

    @classmethod
    def of(cls, model: Model, train: Source) -> "LinearMap | None":
        """The map for a training split; None if it has less than two rows for each element."""
        index = evenly(len(train), _LINEAR_ROWS)
        if len(index) < 2 * math.prod(train.spec.shape):
            return None
        return cls(_images(model, train, index), index)

    def __call__(self, noise: NoiseLevel, seed: int, images: np.ndarray) -> np.ndarray:
        """Fits the map for one noise, and applies it to noisy images."""
        from sklearn.linear_model import Ridge

        noisy = add_noise(self.clean, noise, seed, self.index)
        rows = (each.reshape(len(noisy), -1).astype(np.float64) for each in (noisy, self.clean))
        fitted = Ridge(_RIDGE, solver="cholesky", copy_X=False).fit(*rows)
        mapped = fitted.predict(images.reshape(len(images), -1))
        return np.clip(mapped, 0, 1).reshape(images.shape).astype(np.float32)


def _reconstruct(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """Images in [0, 1] and beyond -> their reconstructions, both [rows, *shape]."""
    graph, state = nnx.split(model.module)
    preparation = model.preparation
    settings = preparation.settings

    def call(state: Any, images: jax.Array) -> jax.Array:
        flat = images.reshape(len(images), -1)
        if settings.centre != "none":
            flat = flat - np.asarray(preparation.statistics["mean"], np.float32)
        if settings.centre == "standardise":
            flat = flat / np.asarray(preparation.statistics["deviation"], np.float32)
        module = nnx.merge(graph, state)
        return preparation.inverse(module.decode(module.encode(flat.reshape(images.shape), None)))

    jitted = model.jit(call)

    def run(images: np.ndarray) -> np.ndarray:
        with jax.default_matmul_precision("highest"):
            return np.clip(model.batched_apply(lambda rows: jitted(state, rows), images), 0, 1)

    return run


def add_noise(images: np.ndarray, noise: NoiseLevel, seed: int, index: np.ndarray) -> np.ndarray:
    """Noisy images, float32 [rows, height, width, channels].

    Args:
        images: in [0, 1].
        noise: its kind and level.
        seed: of all draws.
        index: the rows' indices, which seed each image's noise.
    """
    kind, out = list(LEVELS).index(noise.kind), np.array(images, np.float32)
    for image, number in zip(out, index, strict=True):
        random = np.random.default_rng([seed, kind, round(1000 * noise.level), int(number)])
        if noise.kind == "gaussian":
            image += np.float32(noise.level) * random.standard_normal(image.shape, np.float32)
            continue
        chosen, white = random.random(image.shape) < noise.level, random.random(image.shape) < 0.5
        image[chosen] = white[chosen] if noise.kind == "salt_and_pepper" else 0.0
    return out


def apply(name: str, strength: float, images: np.ndarray) -> np.ndarray:
    """A filter of scikit-image on each image, float32 [rows, height, width, channels] in [0, 1].

    Args:
        name: in `STRENGTHS`.
        strength: as in `STRENGTHS`.
        images: to filter.
    """
    from skimage import filters, restoration

    def one(image: np.ndarray) -> np.ndarray:
        if name == "median":
            footprint = np.ones((int(strength), int(strength), 1), bool)
            return filters.median(image, footprint, mode="nearest")
        if name == "gaussian_filter":
            return filters.gaussian(image, strength, channel_axis=-1, preserve_range=True)
        return restoration.denoise_nl_means(
            image, patch_size=5, patch_distance=6, h=strength, fast_mode=True, channel_axis=-1
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        filtered = np.stack([one(image) for image in images])
    # Some filters drop a single channel's axis.
    return np.clip(filtered.reshape(images.shape), 0, 1).astype(np.float32)


def psnr(clean: np.ndarray, other: np.ndarray) -> float:
    """10 log10(1 / mean squared error of all rows), in dB; infinite for equal images."""
    error = float(np.mean(np.square(clean.astype(np.float64) - other)))
    return -10 * math.log10(error) if error > 0 else math.inf


def _numbers(
    noise: NoiseLevel, clean: np.ndarray, outs: dict[str, np.ndarray], found: dict[str, float]
) -> dict[str, Number]:
    names = {
        "noisy": "of the noisy images",
        "model": "of the model's reconstructions",
        LINEAR: "of a linear map that is fitted to this noise",
    }
    out = {}
    for name, images in outs.items():
        what = names.get(name, f"of the filter {name}")
        where = f"{noise.kind} {noise.level:g}"
        main = name == "model" and noise == NoiseLevel("gaussian", 0.5)
        out[f"{noise.name}_{name}_psnr"] = Number(found[name], "dB", f"PSNR {what}, {where}", main)
        similar = float(ssim(clean, images, 1.0).mean())
        out[f"{noise.name}_{name}_ssim"] = Number(similar, "", f"SSIM {what}, {where}")
    return out


def _gain(noise: NoiseLevel, found: dict[str, float]) -> dict[str, Number]:
    """How far the model is above the best filter."""
    best = max(STRENGTHS, key=found.__getitem__)
    meaning = f"PSNR of the model above the best filter's, {best}; {noise.kind} {noise.level:g}"
    main = noise == NoiseLevel("gaussian", 0.5)
    return {f"{noise.name}_gain": Number(found["model"] - found[best], "dB", meaning, main)}


def _curves(curves: dict[str, dict[NoiseLevel, float]]) -> list[Figure]:
    out = []
    for kind, levels in LEVELS.items():
        series = {
            name: (
                np.array(levels),
                np.array([values[NoiseLevel(kind, level)] for level in levels]),
            )
            for name, values in curves.items()
        }
        png = plots.lines_png(series, (f"level of {kind} noise", "PSNR (dB)"))
        caption = f"PSNR against the level of {kind} noise: noisy images, the model and filters."
        out.append(Figure(f"denoise_{kind}", png, caption))
    return out


def _figure(shown: list[tuple[str, np.ndarray]]) -> Figure:
    """Strips of images, each with its name."""
    png = tiles.tiles_png(
        np.stack([images for _, images in shown]), left=[name for name, _ in shown]
    )
    kinds = ", ".join(f"{kind} {levels[-1]:g}" for kind, levels in LEVELS.items())
    return Figure(
        "denoise",
        png,
        f"Four rows for each of {kinds}: clean images, noisy ones, what the model makes of them,"
        " and the filter with the best PSNR.",
    )
