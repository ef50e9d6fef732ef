"""Images in rows and columns as a PNG, with words above each or a name left of each row."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from aejax import pictures
from aejax.evaluation.plots import image_png

_PIXELS = 960  # width of all tiles, about
_GAP = 6
_SIZES = (20, 18, 16, 14, 12, 10)  # of letters, in pixels


def tiles_png(images: np.ndarray, above: Sequence[str] = (), left: Sequence[str] = ()) -> bytes:
    """Images on white, each pixel enlarged so that all columns are about 960 wide.

    Args:
        images: [rows, columns, height, width, channels] in [0, 1].
        above: words above each image, row by row; images without words are left out. () for none.
        left: a name for each row; () for none.
    """
    from PIL import Image, ImageDraw

    rows, columns, height, width, channels = images.shape
    scale = max(1, round(_PIXELS / (columns * width)))
    height, width = height * scale, width * scale
    fonts = {size: _font(size) for size in _SIZES}
    head = _SIZES[0] + _GAP if above else 0
    edge = _GAP + max((round(fonts[_SIZES[0]].getlength(name)) + _GAP for name in left), default=0)
    down, across = height + head + _GAP, width + _GAP
    whole = np.full((rows * down + _GAP, edge + columns * across, channels), 255, np.uint8)
    places = [(row, column) for row in range(rows) for column in range(columns)]
    for row, column in places[: len(above) or None]:
        top, start = _GAP + row * down + head, edge + column * across
        one = pictures.enlarged(pictures.to_bytes(images[row, column]), scale)
        whole[top : top + height, start : start + width] = one
    picture = Image.fromarray(whole[..., 0] if channels == 1 else whole)
    draw, black = ImageDraw.Draw(picture), 0 if channels == 1 else (0, 0, 0)
    for (row, column), words in zip(places, above, strict=False):
        words, size = fitted(words, width, fonts)
        middle = (edge + column * across + width / 2, _GAP + row * down + head / 2 - 1)
        draw.text(middle, words, black, fonts[size], anchor="mm")
    for row, name in enumerate(left):
        middle = (edge - _GAP, _GAP + row * down + head + height / 2)
        draw.text(middle, name, black, fonts[_SIZES[0]], anchor="rm")
    return image_png(np.asarray(picture).reshape(whole.shape))


def fitted(words: str, width: float, fonts: dict[int, Any]) -> tuple[str, int]:
    """Words as they fit into a width, and the size of their letters; too long ones are cut."""
    for size, font in fonts.items():
        if font.getlength(words) <= width:
            return words, size
    size, font = list(fonts.items())[-1]
    while words and font.getlength(f"{words}…") > width:
        words = words[:-1]
    return f"{words}…", size


def _font(size: int) -> Any:
    """Matplotlib's own font: it has arrows, and the letters of most alphabets."""
    import matplotlib
    from PIL import ImageFont

    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size)
