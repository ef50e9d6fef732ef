"""Images as codes beside JPEG, WebP and AVIF: bits a pixel against PSNR and SSIM.

The codecs get all rows as one mosaic, so that their headers count once. BD-rate (Bjontegaard 2001)
is the mean difference in rate at equal PSNR over the curves' common range, by monotone cubic
interpolation of log rate.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from aejax import pictures
from aejax.data.sources.base import Source, Spec
from aejax.data.sources.splits import take
from aejax.errors import InputError
from aejax.evaluation import image_codecs, plots
from aejax.evaluation.container import CodeWriter
from aejax.evaluation.encoded import evenly
from aejax.evaluation.image_codecs import Point
from aejax.evaluation.result import Figure, Number, Result
from aejax.runs.folder import Run
from aejax.runs.loading import Model

BITS = (1, 2, 3, 4, 5, 6, 8)
_MOST_ROWS, _MOST_NUMBERS = 10_000, 2**26


def check(run: Run, spec: Spec) -> None:
    """Raises InputError where rows are not bytes, scaled to [0, 1]."""
    prepare = run.config.data.prepare
    if not pictures.is_image(spec.shape) or spec.maximum is None:
        raise InputError(
            f"--tasks=compress: rows of shape {spec.shape}, {spec.dtype}, are neither images of"
            " whole numbers [height, width, 1 or 3] nor waveforms (sound:FOLDER?samples=256)"
        )
    if not prepare.scale or prepare.binarise != "none":
        raise InputError(
            "--tasks=compress: config.data.prepare must have scale=True and binarise=none"
        )


def measure(model: Model, source: Source, coder: CodeWriter, bits: int | None) -> Result:
    """Compresses images with several step sizes, and with codecs of Pillow.

    Args:
        model: `rows.rescaled` to the source.
        source: images; of more than 10,000 that many, evenly taken.
        coder: of the model's codes.
        bits: a step of its own, or None.
    """
    elements = math.prod(source.spec.shape)
    most = min(_MOST_ROWS, max(1, _MOST_NUMBERS // elements))
    source = take(source, evenly(len(source), most))
    count = len(source)
    raw = source[slice(0, count)].x
    images = pictures.to_bytes(raw / np.float32(source.spec.maximum))
    z = model.encode(raw).reshape(count, -1)
    numbers: dict[str, Number] = {}
    curves: dict[str, list[Point]] = {"autoencoder": []}
    steps = (*BITS, bits) if bits and bits not in BITS else BITS
    for each in sorted(steps):
        found, point = _coded(model, coder, z, images, each)
        curves["autoencoder"].append(point)
        numbers |= found
    curves |= image_codecs.curves(images)
    for name, (settings, _) in image_codecs.CODECS.items():
        value = bd_rate(curves[name], curves["autoencoder"])
        numbers[f"bd_rate_{name}"] = Number(
            value, "%", f"mean difference in rate to {name.upper()} at equal PSNR", True
        )
        for quality, (rate, psnr, similar) in zip(settings, curves[name], strict=True):
            key = f"{name}{quality}"
            numbers[f"{key}_bpp"] = Number(rate, "bits per pixel", f"{name.upper()}, one mosaic")
            numbers[f"{key}_psnr"] = Number(psnr, "dB", f"of {key}")
            numbers[f"{key}_ssim"] = Number(similar, "", f"of {key}")
    notes = [
        f"{count} rows in one file, headers included; the model and its table are not counted."
        f" SSIM is of at most {image_codecs.SSIM_ROWS} of them, evenly taken.",
        "A BD-rate is null where two curves have no PSNR in common.",
    ]
    return Result(numbers, _figures(curves), notes=notes)


def decoded(model: Model, codes: np.ndarray) -> np.ndarray:
    """Codes [rows, numbers] -> images, uint8 [rows, height, width, channels]."""
    return pictures.to_bytes(model.decode(codes.reshape(-1, *model.code_shape)))


def _coded(
    model: Model, coder: CodeWriter, z: np.ndarray, images: np.ndarray, bits: int
) -> tuple[dict[str, Number], Point]:
    """Codes images with one step: bytes and decoded images."""
    coded = coder.code(z, coder.step(bits))
    pixels = len(images) * images.shape[1] * images.shape[2]
    quality = image_codecs.quality(images, decoded(model, coded.back))
    rate = 8 * coded.size / pixels
    bare = (coded.symbols - coded.symbols.min(axis=0)).astype(np.uint16).T
    floor = 8 * len(zlib.compress(bare.tobytes(), 9)) / pixels
    name = f"bits{bits}"
    return {
        f"{name}_bpp": Number(rate, "bits per pixel", f"codes in steps of range / 2^{bits}"),
        f"{name}_bpp_estimated": Number(
            coded.estimate / pixels, "bits per pixel", "by the entropy model"
        ),
        f"{name}_bpp_zlib": Number(floor, "bits per pixel", "the same symbols by zlib"),
        f"{name}_psnr": Number(quality[0], "dB", f"of {name}"),
        f"{name}_ssim": Number(quality[1], "", f"of {name}"),
    }, (rate, *quality)


def bd_rate(anchor: list[Point], curve: list[Point]) -> float | None:
    """Mean difference in rate at equal PSNR, in percent of the anchor's; None without common range.

    Below 0 the curve needs fewer bits.
    """
    from scipy.interpolate import PchipInterpolator

    fits: list[tuple[Any, float, float]] = []
    for points in (anchor, curve):
        best: list[Point] = []
        for point in sorted(points):  # skips points with more bits and no better PSNR
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
