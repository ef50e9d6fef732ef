"""One picture's file: its header, and its pixels in the wanted form."""

import contextlib
import dataclasses
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from aejax.errors import InputError

# {mode: (channels, type)} of decoded pixels.
MODES = {"rgb": (3, "uint8"), "grey": (1, "uint8"), "grey16": (1, "uint16")}
FITS = ("crop", "pad", "stretch")
# Transparent pixels get a white background. Padding around a picture is black.
BACKGROUND = 255

_GREY = ("1", "L", "LA", "La")
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_NUMBERS = ("I", "F")  # 32 bits, of no known range
_SIDEWAYS = (5, 6, 7, 8)  # EXIF's orientations that exchange width and height
_ORIENTATION = 274


class UnreadableError(InputError):
    """A file is damaged, truncated or not a picture."""


@dataclasses.dataclass(frozen=True)
class Header:
    """A picture turned upright by its EXIF orientation; a key of `MODES`."""

    width: int
    height: int
    mode: str


@dataclasses.dataclass(frozen=True)
class Form:
    """The form in which pictures are decoded.

    Attributes:
        mode: a key of `MODES`.
        size: (width, height), or None for its own.
        fit: how it comes to that size: crop (fills it, and what is over on two sides is cut off),
            pad (lies in it whole, between black edges) or stretch.
    """

    mode: str
    size: tuple[int, int] | None = None
    fit: str = "crop"


def header(path: str, decode: bool = False) -> Header:
    """Reads a picture's header, and checks at the file's end that it is not truncated.

    Args:
        path: the file.
        decode: decode it as well, which finds every damage.

    Raises:
        UnreadableError: damaged, cut off, or no picture.
        InputError: numbers of 32 bits.
    """
    with _opened(path) as image:
        width, height = image.size
        # For a TIFF Pillow gives the size after rotation.
        if image.format != "TIFF" and _orientation(image) in _SIDEWAYS:
            width, height = height, width
        mode = image.mode
        if decode or not _ends(path, image):
            image.draft(None, (1, 1))  # of a JPEG all is read, but an eighth of it is computed
            image.load()
    if mode in _NUMBERS:
        raise InputError(
            f"{path} has numbers of 32 bits (mode {mode}); accepted: pictures of 8 bits a channel,"
            " or greyscale of 16"
        )
    kind = "grey16" if mode in _GREY_16 else "grey" if mode in _GREY else "rgb"
    return Header(width, height, kind)


def pixels(path: str, form: Form) -> np.ndarray:
    """The pixels of a picture, [height, width, channels] in the type of the form's mode.

    It is rotated by its EXIF orientation. Alpha channels are dropped; translucent pixels are
    blended with white. 16 bits become 8 by value / 257, and 8 become 16 by value * 257.

    Raises:
        UnreadableError: damaged, cut off, or no picture.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        if form.size is not None:
            side = 2 * max(form.size)
            image.draft(None, (side, side))  # a JPEG can be decoded at a smaller scale
        image.load()  # Pillow rotates a TIFF by itself here, and removes its orientation
        image = ImageOps.exif_transpose(image)
        if image.mode in _GREY_16:
            x = np.asarray(image).astype(np.uint16)
            if form.size is not None:
                # floating point: Pillow has no antialiasing of 16 bits
                image = _sized(Image.fromarray(x.astype(np.float32)), form.size, form.fit)
                x = np.clip(np.rint(np.asarray(image)), 0, 65535).astype(np.uint16)
            x = x if form.mode == "grey16" else np.rint(x / 257).astype(np.uint8)
            x = x[..., None]
            return np.repeat(x, 3, axis=2) if form.mode == "rgb" else x
        image = _opaque(image).convert("RGB" if form.mode == "rgb" else "L")
        if form.size is not None:
            image = _sized(image, form.size, form.fit)
        x = np.asarray(image, np.uint8).reshape(image.height, image.width, MODES[form.mode][0])
        return x.astype(np.uint16) * 257 if form.mode == "grey16" else x


def _opaque(image: Any) -> Any:
    """The picture without alpha: RGB or greyscale, translucent pixels blended with white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    grey = image.mode in _GREY
    image = image.convert("LA" if grey else "RGBA")
    alpha = image.getchannel("A")
    plain = image.convert("L" if grey else "RGB")  # drops alpha, whatever it is
    if alpha.getextrema() == (255, 255):
        return plain
    behind = Image.new(plain.mode, plain.size, BACKGROUND if grey else (BACKGROUND,) * 3)
    behind.paste(plain, mask=alpha)
    return behind


def _sized(image: Any, size: tuple[int, int], fit: str) -> Any:
    from PIL import Image, ImageOps

    if image.size == size:
        return image
    method = Image.Resampling.BICUBIC
    if fit == "crop":
        return ImageOps.fit(image, size, method)
    if fit == "pad":
        return ImageOps.pad(image, size, method, color=0)
    return image.resize(size, method)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        # As a file object: with a path Pillow memory-maps a TIFF, and scrambles rotated ones.
        with open(path, "rb") as file, Image.open(file) as image:
            yield image
    except UnidentifiedImageError:
        raise UnreadableError(f"picture {path} cannot be read: it is no picture") from None
    except Exception as error:  # Pillow's formats raise errors of many kinds on damaged files
        reason = " ".join(str(error).split())
        raise UnreadableError(
            f"picture {path} cannot be read: {type(error).__name__}: {reason}"
        ) from None


def _orientation(image: Any) -> int:
    # If a PNG's header has no EXIF, Pillow would decode the whole picture to search for it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return image.getexif().get(_ORIENTATION, 1)


def _ends(path: str, image: Any) -> bool:
    """Whether the file ends where its format says; False where this cannot be told."""
    size = os.path.getsize(path)
    if image.format == "TIFF":
        tags = image.tag_v2
        ends = [
            start + length
            for starts, lengths in ((273, 279), (324, 325))
            for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)
        ]
        return bool(ends) and max(ends) <= size
    with open(path, "rb") as file:
        start = file.read(12)
        file.seek(max(0, size - 12))
        end = file.read()
    if image.format == "PNG":
        return end[4:8] == b"IEND"
    if image.format == "JPEG":
        return end.endswith(b"\xff\xd9")
    if image.format in ("WEBP", "BMP"):
        at, more = (4, 8) if image.format == "WEBP" else (2, 0)
        (length,) = struct.unpack_from("<I", start, at)
        return 0 < length + more <= size and length > 0
    return False
