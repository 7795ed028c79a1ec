"""Pixels to the numbers that a model takes; pure.

Turning, scaling and cropping happen in one step on the pixels that the crop needs. The result is that of doing them one
after the other, as torchvision does, within 1 of 255; an image 1 pixel wide and a million high costs nothing extra.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from glowplug_image.decode import Picture
from glowplug_image.settings import ImageConfig

# For each of Exif's orientations: how to turn what is stored, and whether turning swaps the axes, and mirrors the
# stored x and y.
_TURN = Image.Transpose
TURNS: dict[int, tuple[Image.Transpose | None, bool, bool, bool]] = {
    1: (None, False, False, False),
    2: (_TURN.FLIP_LEFT_RIGHT, False, True, False),
    3: (_TURN.ROTATE_180, False, True, True),
    4: (_TURN.FLIP_TOP_BOTTOM, False, False, True),
    5: (_TURN.TRANSPOSE, True, False, False),
    6: (_TURN.ROTATE_270, True, False, True),
    7: (_TURN.TRANSVERSE, True, True, True),
    8: (_TURN.ROTATE_90, True, True, False),
}


def crop(picture: Picture, config: ImageConfig) -> Image.Image:
    """The middle of a picture, `size` x `size`, RGB, upright."""
    turn, is_swapped, mirrors_x, mirrors_y = TURNS[picture.orientation]
    width, height = picture.extent
    # In pixels of the scaled and upright picture: its dimensions, and where the crop begins.
    shown = (height, width) if is_swapped else (width, height)
    scaled = _scaled(shown, config.resize)
    starts = [round((side - config.size) / 2) for side in scaled]
    if is_swapped:
        scaled, starts = scaled[::-1], starts[::-1]
    box = []
    for side, extent, start, is_mirrored in zip(
        scaled, picture.extent, starts, (mirrors_x, mirrors_y), strict=True
    ):
        begin = side - config.size - start if is_mirrored else start
        box.append((begin * extent / side, min((begin + config.size) * extent / side, extent)))
    (left, right), (top, bottom) = box
    taken = picture.image.resize(
        (config.size, config.size), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
    )
    turned = taken if turn is None else taken.transpose(turn)
    return turned if turned.mode == "RGB" else turned.convert("RGB")


def _scaled(shown: tuple[float, float], resize: int) -> list[int]:
    """The shorter side becomes `resize`, the longer one is rounded down, as torchvision does."""
    shorter = min(shown)
    return [resize if side == shorter else int(resize * side / shorter) for side in shown]


def normalize(image: Image.Image, config: ImageConfig, out: Any) -> None:
    """Writes (v / 255 - mean) / std of an RGB image to `out`, float32 of `config.shape`."""
    pixels = np.asarray(image)
    std = np.array(config.std, dtype=np.float32)
    scale = np.float32(1 / 255) / std
    shift = np.array(config.mean, dtype=np.float32) / std
    if config.layout == "nchw":
        pixels, scale, shift = pixels.transpose(2, 0, 1), scale[:, None, None], shift[:, None, None]
    np.multiply(pixels, scale, out=out)
    np.subtract(out, shift, out=out)
