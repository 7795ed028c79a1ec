"""What becomes of an image, and how much of one is let in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glowplug.errors import ConfigError
from glowplug.serving import threads

LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class ImageConfig:
    """The steps that torchvision's models were trained with, and limits. Raises ConfigError where they contradict.

    The shorter side becomes `resize` pixels, the middle `size` x `size` of that is taken, and a value v of 0 to 255
    becomes (v / 255 - mean) / std of its channel (R, G, B).
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    layout: str = "nchw"
    # An image takes up to 10 bytes a pixel while it is decoded.
    max_pixels: int = 32 * 2**20
    max_images: int = 64
    # False: JPEGs of at least four times `resize` are decoded at a half, a quarter or an eighth of their size.
    is_exact: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise ConfigError(f"--size={self.size}, expected 1 to --resize, which is {self.resize}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ConfigError("--mean and --std are three numbers each, for red, green and blue")
        if min(self.std) <= 0:
            raise ConfigError(f"--std={','.join(map(str, self.std))}, expected numbers above 0")
        if self.layout not in LAYOUTS:
            raise ConfigError(f"--layout={self.layout}, expected one of {', '.join(LAYOUTS)}")
        if self.max_pixels < 1 or self.max_images < 1:
            raise ConfigError("--max_pixels and --max_images are 1 or more")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image in the tensor."""
        return (3, self.size, self.size) if self.layout == "nchw" else (self.size, self.size, 3)


def numbers(text: str) -> tuple[float, ...]:
    """`0.5,0.5,0.5` of a command line. Raises ValueError."""
    return tuple(float(item) for item in text.split(","))


def thread_count(flag: int | None, env: Mapping[str, str]) -> int:
    """Images at a time: the flag, else as many as may compute. Raises ConfigError."""
    return threads.thread_count(flag, env, threads.available_cpus())
