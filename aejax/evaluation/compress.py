"""Task: codes as bytes beside JPEG, WebP and AVIF: bits a pixel against PSNR and SSIM.

Codes are quantised, entropy-coded and decoded again from the very bytes; what is written is
counted, headers included. The codecs get all rows as one mosaic, so that their headers count once.
BD-rate (Bjontegaard 2001) is the mean difference in rate at equal PSNR, over the range that both
curves have, by monotone cubic interpolation of log rate.
"""

import io
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from aejax import pictures
from aejax.data.sources.base import Source, Spec
from aejax.data.sources.splits import take
from aejax.errors import InputError
from aejax.evaluation import plots
from aejax.evaluation.container import MOST_BITS, EntropyModel, codes_digest, pack, step_of, unpack
from aejax.evaluation.detector import digest
from aejax.evaluation.result import Figure, Number, Result, need_autoencoder, need_whole
from aejax.evaluation.similarity import ssim, window
from aejax.runs.folder import Run
from aejax.runs.loading import Model

ARRAYS = "compress.npz"
BITS = (1, 2, 3, 4, 5, 6, 8)
_MOST_CODES, _MOST_ROWS, _MOST_NUMBERS = 10_000, 10_000, 2**26
_CODECS = {
    "jpeg": ((2, 5, 10, 20, 35, 50, 75), {"optimize": True}),
    "webp": ((0, 5, 15, 30, 50, 75), {}),
    "avif": ((1, 10, 25, 40, 55, 75), {"speed": 8}),
}
_LEAST_WINDOW = 3
_SSIM_ROWS = 1000

# bits a pixel, PSNR in dB, SSIM
Point = tuple[float, float, float]


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where the task cannot be done."""
    need_autoencoder(run, "--tasks=compress")
    need_whole(spec, "--tasks=compress")
    prepare = run.config.data.prepare
    if not pictures.is_image(spec.shape) or spec.maximum is None:
        raise InputError(
            f"--tasks=compress: rows of shape {spec.shape}, {spec.dtype}, are no images of whole"
            " numbers [height, width, 1 or 3]"
        )
    if not prepare.scale or prepare.binarise != "none":
        raise InputError(
            "--tasks=compress: config.data.prepare must have scale=True and binarise=none"
        )


def task(model: Model, source: Source, learned: Source, bits: int | None = None) -> Result:
    """Compresses rows with several step sizes, and with codecs of Pillow.

    Args:
        model: `rows.rescaled` to the source.
        source: images; of more than 10,000 that many, evenly taken.
        learned: rows of the run's training split, whose codes the entropy model counts.
        bits: a step of its own: the range of training codes over 2^bits, 1 to 12.

    Raises:
        InputError: rows that are no images, or `bits` that cannot be.
    """
    check(model.run, source.spec)
    check_bits(bits)
    codes = training_codes(model, learned)
    elements = math.prod(source.spec.shape)
    count = min(len(source), _MOST_ROWS, max(1, _MOST_NUMBERS // elements))
    source = take(source, np.linspace(0, len(source) - 1, count).round().astype(np.int64))
    raw = source[slice(0, count)].x
    images = pictures.to_bytes(raw / np.float32(source.spec.maximum))
    z = model.encode(raw).reshape(count, -1)
    numbers: dict[str, Number] = {}
    curves: dict[str, list[Point]] = {"autoencoder": []}
    steps = (*BITS, bits) if bits and bits not in BITS else BITS
    for each in sorted(steps):
        made, point = _coded(model, codes, z, images, each)
        curves["autoencoder"].append(point)
        numbers |= made
    for name in _CODECS:
        curves[name] = _codec(name, images)
    for name in ("jpeg", "webp", "avif"):
        value = bd_rate(curves[name], curves["autoencoder"])
        numbers[f"bd_rate_{name}"] = Number(
            value, "%", f"mean difference in rate to {name.upper()} at equal PSNR", True
        )
        settings = zip(_CODECS[name][0], curves[name], strict=True)
        for quality, (rate, psnr, similar) in settings:
            key = f"{name}{quality}"
            numbers[f"{key}_bpp"] = Number(rate, "bits per pixel", f"{name.upper()}, one mosaic")
            numbers[f"{key}_psnr"] = Number(psnr, "dB", f"of {key}")
            numbers[f"{key}_ssim"] = Number(similar, "", f"of {key}")
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model.module))))
    numbers["model_bytes"] = Number(int(size), "bytes", "parameters of encoder and decoder")
    numbers["table_bytes"] = Number(codes.nbytes, "bytes", "training codes of the entropy model")
    notes = [
        f"{count} rows in one file, headers included; the model and its table are not counted."
        f" SSIM is of at most {_SSIM_ROWS} of them, evenly taken.",
        "Every file was decoded again, to exactly the codes that went in.",
        "A BD-rate is null where two curves have no PSNR in common.",
    ]
    return Result(numbers, _figures(curves), {ARRAYS: {"codes": codes}}, notes)


def check_bits(bits: int | None) -> None:
    """Raises InputError where a step cannot be."""
    if bits is not None and not 1 <= bits <= MOST_BITS:
        raise InputError(f"--bits={bits}: must be from 1 to {MOST_BITS}")


def training_codes(model: Model, train: Source) -> np.ndarray:
    """Codes of training rows, evenly taken, float32 [rows, numbers]."""
    count = min(len(train), _MOST_CODES)
    rows = take(train, np.linspace(0, len(train) - 1, count).round().astype(np.int64))
    pieces = [model.encode(rows[slice(i, i + 1000)].x) for i in range(0, count, 1000)]
    return np.concatenate(pieces).reshape(count, -1)


def decoded_images(model: Model, codes: np.ndarray) -> np.ndarray:
    """Codes [rows, numbers] -> images, uint8 [rows, height, width, channels]."""
    return pictures.to_bytes(model.decode(codes.reshape(-1, *model.code_shape)))


def _coded(
    model: Model, codes: np.ndarray, z: np.ndarray, images: np.ndarray, bits: int
) -> tuple[dict[str, Number], Point]:
    """One step: bytes, and what comes back from them."""
    entropy = EntropyModel.fit(codes, step_of(codes, bits))
    symbols = entropy.quantise(z)
    digests = digest(model), codes_digest(codes)
    data = pack(entropy, symbols, digests)
    back = unpack("the bytes just written", data, codes, digests)
    if not np.array_equal(back, entropy.dequantise(symbols)):
        raise AssertionError("entropy coding gave other codes back")
    pixels = len(images) * images.shape[1] * images.shape[2]
    quality = _quality(images, decoded_images(model, back))
    rate = 8 * len(data) / pixels
    floor = 8 * len(zlib.compress(symbols.astype(np.uint16).T.tobytes(), 9)) / pixels
    name = f"bits{bits}"
    estimate = entropy.estimate(symbols) / pixels
    return {
        f"{name}_bpp": Number(rate, "bits per pixel", f"codes in steps of range / 2^{bits}"),
        f"{name}_bpp_estimated": Number(estimate, "bits per pixel", "by the entropy model"),
        f"{name}_bpp_zlib": Number(floor, "bits per pixel", "the same symbols by zlib"),
        f"{name}_psnr": Number(quality[0], "dB", f"of {name}"),
        f"{name}_ssim": Number(quality[1], "", f"of {name}"),
    }, (rate, *quality)


def _quality(images: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """PSNR of all rows, and mean SSIM (NaN of images too small for it); both uint8."""
    x, y = (each.astype(np.float64) / 255 for each in (images, made))
    mse = np.square(x - y).mean()
    psnr = 10 * math.log10(1 / mse) if mse > 0 else math.inf
    if window(*images.shape[1:3]) < _LEAST_WINDOW:
        return psnr, math.nan
    some = np.linspace(0, len(x) - 1, min(len(x), _SSIM_ROWS)).round().astype(np.int64)
    return psnr, float(ssim(x[some], y[some], 1.0).mean())


def _codec(name: str, images: np.ndarray) -> list[Point]:
    """A codec's curve over all images as one mosaic."""
    from PIL import Image

    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    lines = math.ceil(count / columns)
    filled = np.zeros((lines * columns, height, width, channels), np.uint8)
    filled[:count] = images
    mosaic = filled.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    mosaic = mosaic.reshape(lines * height, columns * width, channels)
    picture = Image.fromarray(mosaic[..., 0] if channels == 1 else mosaic)
    points, (qualities, options) = [], _CODECS[name]
    for quality in qualities:
        file = io.BytesIO()
        picture.save(file, name.upper(), quality=quality, **options)
        with Image.open(file) as opened:
            made = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
        made = made.reshape(lines, height, columns, width, channels).swapaxes(1, 2)
        made = made.reshape(-1, height, width, channels)[:count]
        rate = 8 * file.getbuffer().nbytes / (count * height * width)
        points.append((rate, *_quality(images, made)))
    return points


def bd_rate(anchor: list[Point], curve: list[Point]) -> float | None:
    """Mean difference in rate at equal PSNR, in percent of the anchor's; None of no common range.

    Below 0 the curve needs fewer bits.
    """
    from scipy.interpolate import PchipInterpolator

    fits: list[tuple[Any, float, float]] = []
    for points in (anchor, curve):
        best: list[Point] = []
        for point in sorted(points):  # a point with more bits and no better PSNR is left out
            if math.isfinite(point[1]) and (not best or point[1] > best[-1][1]):
                best.append(point)
        if len(best) < 2:
            return None
        psnr = np.array([point[1] for point in best])
        fit: Callable = PchipInterpolator(psnr, np.log([point[0] for point in best]))
        fits.append((fit, psnr[0], psnr[-1]))
    low, high = max(fits[0][1], fits[1][1]), min(fits[0][2], fits[1][2])
    if low >= high:
        return None
    difference = (fits[1][0].integrate(low, high) - fits[0][0].integrate(low, high)) / (high - low)
    return float(100 * math.expm1(difference))


def _figures(curves: dict[str, list[Point]]) -> list[Figure]:
    out = []
    for place, (name, axis) in enumerate((("psnr", "PSNR, dB"), ("ssim", "SSIM")), start=1):
        series = {
            key: (np.array([p[0] for p in points]), np.array([p[place] for p in points]))
            for key, points in curves.items()
        }
        if all(np.isfinite(y).all() for _, y in series.values()):
            png = plots.lines_png(series, ("bits per pixel", axis))
            caption = f"{axis.partition(',')[0]} against bits a pixel; up and left is better."
            out.append(Figure(f"compress_{name}", png, caption))
    return out
