"""From the bytes of a JPEG or PNG file, which may be hostile, to pixels.

What a file claims is looked at before anything is decoded: dimensions, animation, the number of segments. Pillow's own
plugins are called directly, so that no other of its forty formats is ever tried.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from glowplug_image.claims import jpeg_problem, png_problem
from glowplug_image.payload import JPEG

# Exif's orientations are 1 to 8: https://www.cipa.jp/std/documents/download_e.html?DC-008-Translation-2023-E
ORIENTATION = 0x0112
# Decoding at a fraction leaves at least this many times the pixels, each way, that are wanted. At 2 photos differ from
# the full decoding by at most 0.5 of 255 on average and 12 in a pixel, drawings of thin lines by up to 2 and 15.
DRAFT_MARGIN = 2
WHITE = (255, 255, 255)


class BadImage(Exception):
    """Why an image is refused; the words follow "image 3 "."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels as they are stored, mode L or RGB, and how they are to be turned.

    `extent` is the part of `image` that the picture covers, in its pixels: a fraction of the original's dimensions,
    which need not be whole.
    """

    image: Image.Image
    extent: tuple[float, float]
    orientation: int


def decode(data: bytes, *, max_pixels: int, shorter_side: int, is_exact: bool = False) -> Picture:
    """The picture in a file. Raises BadImage.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, unless `is_exact`, if its shorter side then still is at
    least twice `shorter_side`.
    """
    is_jpeg = data.startswith(JPEG)
    name = "JPEG" if is_jpeg else "PNG"
    problem = jpeg_problem(data) if is_jpeg else png_problem(data)
    if problem:
        raise BadImage(problem)
    with _tried(name, lambda: (JpegImageFile if is_jpeg else PngImageFile)(io.BytesIO(data))) as image:
        size = image.size
        if not 1 <= size[0] * size[1] <= max_pixels:
            raise BadImage(f"has {size[0]} x {size[1]} pixels, at most {max_pixels} are allowed")
        if is_jpeg and not is_exact:
            _draft(image, shorter_side * DRAFT_MARGIN)
        scale = _scale(size, image.size)
        flat = _tried(name, lambda: _flat(image))
        return Picture(flat, (size[0] / scale, size[1] / scale), _orientation(image))


def _tried(name: str, step: Callable[[], Image.Image]) -> Image.Image:
    try:
        return step()
    # Pillow documents no set of errors, and fuzzing finds ever new ones (struct.error, KeyError, zlib.error, ...).
    # All that is computed here is the file, so it is the file's fault.
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadImage(f"is a broken {name}: {text[:120]}") from error


def _draft(image: Image.Image, at_least: int) -> None:
    """Makes libjpeg leave out what would be averaged away, where the shorter side stays `at_least` as long."""
    fraction = at_least / min(image.size)
    if fraction <= 0.5:
        image.draft(None, (max(1, int(image.width * fraction)), max(1, int(image.height * fraction))))


def _scale(before: tuple[int, int], after: tuple[int, int]) -> int:
    """1, 2, 4 or 8: libjpeg rounds the dimensions up."""
    return next(
        scale
        for scale in (1, 2, 4, 8)
        if all(-(-b // scale) == a for b, a in zip(before, after, strict=True))
    )


def _orientation(image: Image.Image) -> int:
    """Exif's; 1 (as stored) where there is none, or none that can be read: viewers show such files too."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # as above
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _flat(image: Image.Image) -> Image.Image:
    """Any mode as L or RGB of 8 bits a channel: transparency on white, 16 bits by their upper 8."""
    image.load()
    mode = image.mode
    if mode.startswith("I"):
        # Pillow's own conversion cuts off at 255 instead.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if mode in ("LA", "PA", "RGBA") or (_has_transparent_color(image) and mode in ("1", "L", "P", "RGB")):
        return _on_white(image.convert("RGBA"))
    return image if mode in ("L", "RGB") else image.convert("L" if mode == "1" else "RGB")


def _has_transparent_color(image: Image.Image) -> bool:
    """PNG's tRNS: a color, or for palettes an index or an alpha for each. That of a 16-bit image is of 16 bits, which
    the pixels no longer are."""
    found = image.info.get("transparency")
    values = found if isinstance(found, tuple | bytes) else (found,)
    return found is not None and all(value <= 255 for value in values)


def _on_white(image: Image.Image) -> Image.Image:
    background = Image.new("RGB", image.size, WHITE)
    background.paste(image, mask=image.getchannel("A"))
    return background
