"""Tiles: images keep their pixels, words stand above them and names left of them."""

import io

import numpy as np
from PIL import Image, ImageDraw

from aejax.evaluation import tiles
from aejax.evaluation.tiles import _SIZES, _font, fitted, tiles_png


def written(monkeypatch) -> list[tuple[tuple[float, float], str]]:
    """Places and words of all texts that are drawn from now on."""
    found, draw = [], ImageDraw.ImageDraw.text

    def text(self, place, words, *rest, **options):
        found.append((place, words))
        return draw(self, place, words, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return found


def test_words_stand_above_their_own_images(monkeypatch):
    found = written(monkeypatch)
    images = np.linspace(0, 0.9, 4 * 8 * 8).reshape(2, 2, 8, 8, 1)
    png = tiles_png(images, above=("2→1", "a→b", "3→5"))
    picture = np.asarray(Image.open(io.BytesIO(png)))
    scale = 60
    assert [words for _, words in found] == ["2→1", "a→b", "3→5"]
    for (x, y), _ in found:
        below = picture[round(y + 13 + scale / 2), round(x - 4 * scale + scale / 2)]
        index = ((round(y) > 400) * 2 + (round(x) > 480)) * 64
        assert below == round(255 * images.ravel()[index])
        assert (picture[round(y) - 8 : round(y) + 8, round(x) - 30 : round(x) + 30] < 99).any()
    assert (picture[-scale:, -scale:] == 255).all()  # the image without words is left out


def test_names_stand_left_of_their_rows_in_colour_too(monkeypatch):
    found = written(monkeypatch)
    images = np.zeros((2, 3, 8, 8, 3))
    images[1, ..., 0] = 1.0
    png = tiles_png(images, left=("clean", "salt_and_pepper 0.5"))
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert [words for _, words in found] == ["clean", "salt_and_pepper 0.5"]
    for ((x, y), _), colour in zip(found, ((0, 0, 0), (255, 0, 0)), strict=True):
        assert tuple(picture[round(y), round(x) + tiles._GAP]) == colour
        assert (picture[round(y) - 10 : round(y) + 10, : round(x)] < 99).any()
        assert (picture[:, :2] == 255).all()  # nothing is cut at the edge


def test_long_words_become_smaller_and_then_shorter():
    fonts = {size: _font(size) for size in _SIZES}
    assert fitted("2→1", 100, fonts) == ("2→1", 20)
    words, size = fitted("automobile→truck", 130, fonts)
    assert words == "automobile→truck" and 10 < size < 20
    words, size = fitted("a very long name of a class→another", 100, fonts)
    assert words.endswith("…") and size == 10 and fonts[10].getlength(words) <= 100
