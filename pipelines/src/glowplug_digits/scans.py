"""The 1797 scanned digits of scikit-learn (Alpaydin and Kaynak 1998), as the image transformer would send them.

Each is 8 x 8 pixels of 17 grays. They lie as they were collected, one writer after another, 13 of them, and no moment
is known: so a writer is taken for a day. Whole days are what is held out and what the gate draws anew, so both are
about writers that a model has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from glowplug.errors import ConfigError, FeatureError
from glowplug_pipelines.rows import Float32s, Float64s, Int64s, milliseconds

CLASSES = 10
SIZE = 8
SHAPE = (3, SIZE, SIZE)
WRITERS = 13
FIRST = datetime(1998, 7, 1, tzinfo=timezone.utc)
NAMES = tuple(
    f"{colour} {row},{column}"
    for colour in ("red", "green", "blue")
    for row in range(SIZE)
    for column in range(SIZE)
)
_DAY_MS = 86_400_000
_WHITEST = 16


@dataclass(frozen=True)
class Scans:
    """`pixels` uint8 [n, 8, 8], white is 255; `labels` [n] 0 to 9; `event_ms` [n] in time's order."""

    pixels: npt.NDArray[np.uint8]
    labels: Float64s
    event_ms: Int64s

    @property
    def features(self) -> Float32s:
        """[n, 192]: what `transformers/image` sends with --mean=0,0,0 --std=1,1,1, in the tensor's order."""
        gray = self.pixels.reshape(len(self.pixels), -1).astype(np.float32) / np.float32(255)
        return np.tile(gray, (1, SHAPE[0]))


def read_scans() -> Scans:
    """All of them. Raises `ConfigError` without scikit-learn, `FeatureError` where its data set is another one."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ConfigError(
            "the digits are in the package scikit-learn, which is not installed",
            hint="pip install 'glowplug[pipelines,serving,torch]'",
        ) from error
    found = load_digits()
    images, labels = np.asarray(found.images), np.asarray(found.target)
    if (
        images.shape[1:] != (SIZE, SIZE)
        or images.min() < 0
        or images.max() > _WHITEST
        or len(set(labels)) != CLASSES
    ):
        raise FeatureError(
            f"scikit-learn's digits have the shape {images.shape}, values {images.min():g} to {images.max():g}, "
            f"{len(set(labels))} classes; must be [n, 8, 8], 0 to 16, 10"
        )
    place: Int64s = np.arange(len(images), dtype=np.int64)
    return Scans(
        pixels=np.rint(images * (255 / _WHITEST)).astype(np.uint8),
        labels=labels.astype(np.float64),
        event_ms=milliseconds(FIRST) + place * WRITERS * _DAY_MS // len(images),
    )
