"""Images by JPEG, WebP and AVIF (Pillow), and how far decoded images are from what went in."""

import io
import math

import numpy as np

from aejax.evaluation.similarity import ssim, window

# {codec: qualities, options of Pillow}
CODECS = {
    "jpeg": ((2, 5, 10, 20, 35, 50, 75), {"optimize": True}),
    "webp": ((0, 5, 15, 30, 50, 75), {}),
    "avif": ((1, 10, 25, 40, 55, 75), {"speed": 8}),
}
SSIM_ROWS = 1000
_LEAST_WINDOW = 3

# bits a pixel, PSNR in dB, SSIM
Point = tuple[float, float, float]


def quality(images: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """PSNR of all rows, and mean SSIM (NaN of images too small for it); both uint8."""
    x, y = (each.astype(np.float64) / 255 for each in (images, made))
    mse = np.square(x - y).mean()
    psnr = 10 * math.log10(1 / mse) if mse > 0 else math.inf
    if window(*images.shape[1:3]) < _LEAST_WINDOW:
        return psnr, math.nan
    some = np.linspace(0, len(x) - 1, min(len(x), SSIM_ROWS)).round().astype(np.int64)
    return psnr, float(ssim(x[some], y[some], 1.0).mean())


def curve(name: str, images: np.ndarray) -> list[Point]:
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
    points, (qualities, options) = [], CODECS[name]
    for setting in qualities:
        file = io.BytesIO()
        picture.save(file, name.upper(), quality=setting, **options)
        with Image.open(file) as opened:
            made = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
        made = made.reshape(lines, height, columns, width, channels).swapaxes(1, 2)
        made = made.reshape(-1, height, width, channels)[:count]
        rate = 8 * file.getbuffer().nbytes / (count * height * width)
        points.append((rate, *quality(images, made)))
    return points
