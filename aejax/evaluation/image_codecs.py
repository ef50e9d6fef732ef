"""Images by JPEG, WebP and AVIF (Pillow), and the quality of decoded images."""

import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from aejax import cluster
from aejax.evaluation.encoded import evenly
from aejax.evaluation.similarity import ssim, window

# {codec: (qualities, options of Pillow)}. AVIF's tiles, and so its bytes, depend on its threads.
CODECS = {
    "jpeg": ((2, 5, 10, 20, 35, 50, 75), {"optimize": True}),
    "webp": ((0, 5, 15, 30, 50, 75), {}),
    "avif": ((1, 10, 25, 40, 55, 75), {"speed": 8, "max_threads": 2}),
}
SSIM_ROWS = 1000
_LEAST_WINDOW = 3
_MOST_THREADS = 4

# bits a pixel, PSNR in dB, SSIM
Point = tuple[float, float, float]


def quality(images: np.ndarray, made: np.ndarray) -> tuple[float, float]:
    """PSNR over all rows, and mean SSIM (NaN for images too small for it), of uint8 images."""
    difference = images.astype(np.int32) - made
    squares = int(np.square(difference, out=difference).sum(dtype=np.int64))
    psnr = 10 * math.log10(255**2 * images.size / squares) if squares else math.inf
    if window(*images.shape[1:3]) < _LEAST_WINDOW:
        return psnr, math.nan
    some = evenly(len(images), SSIM_ROWS)
    x, y = (each[some].astype(np.float64) / 255 for each in (images, made))
    return psnr, float(ssim(x, y, 1.0).mean())


def curves(images: np.ndarray) -> dict[str, list[Point]]:
    """Each codec's points over all images as one mosaic, in the order of its qualities.

    Args:
        images: uint8 [rows, height, width, 1 or 3].
    """
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    lines = math.ceil(count / columns)
    filled = np.zeros((lines * columns, height, width, channels), np.uint8)
    filled[:count] = images
    mosaic = filled.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    mosaic = mosaic.reshape(lines * height, columns * width, channels)

    def point(setting: tuple[str, int]) -> Point:
        name, level = setting
        size, made = _decoded(mosaic, name, level)
        made = made.reshape(lines, height, columns, width, channels).swapaxes(1, 2)
        made = made.reshape(-1, height, width, channels)[:count]
        return 8 * size / (count * height * width), *quality(images, made)

    settings = [(name, level) for name, (levels, _) in CODECS.items() for level in levels]
    # Encoders release the GIL, and most of them use one core.
    with ThreadPoolExecutor(min(_MOST_THREADS, cluster.cores())) as pool:
        points = dict(zip(settings, pool.map(point, settings), strict=True))
    return {name: [points[name, level] for level in CODECS[name][0]] for name in CODECS}


def _decoded(mosaic: np.ndarray, name: str, level: int) -> tuple[int, np.ndarray]:
    """The size in bytes of a picture coded by a codec, and the decoded picture."""
    from PIL import Image

    grey = mosaic.shape[-1] == 1
    file = io.BytesIO()
    picture = Image.fromarray(mosaic[..., 0] if grey else mosaic)
    picture.save(file, name.upper(), quality=level, **CODECS[name][1])
    with Image.open(file) as opened:
        made = np.asarray(opened.convert("L" if grey else "RGB"))
    return file.getbuffer().nbytes, made.reshape(mosaic.shape)
