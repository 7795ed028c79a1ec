"""What the gate decides on: losses of challenger and reference on the same held-out rows, and what serving costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glowplug_pipelines.rows import Float64s, Int64s, Texts

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Cost:
    """Of one model: the median latency of a single row in milliseconds, and its directory's bytes."""

    latency_ms: float
    size_bytes: int


@dataclass(frozen=True)
class Evidence:
    """n held-out rows with labels, none of which the challenger was trained on.

    `predictions` and `labels` are [n] numbers whose means a calibrated model has alike: for classes (`of_classes`) the
    probability of the likeliest and whether it came, so that the reference has labels of its own. `reference` says who
    it is: champion 3, or naive. `reference_cost` is None for the naive baseline, which costs nothing. `unjudged` says
    why there can be no comparison ("" where there can).
    """

    labels: Float64s
    predictions: Float64s
    losses: Float64s
    reference_predictions: Float64s
    reference_labels: Float64s
    reference_losses: Float64s
    event_ms: Int64s
    slices: Mapping[str, Texts]
    cost: Cost
    reference: str
    reference_cost: Cost | None
    unit: str
    unjudged: str = ""
    of_classes: bool = False

    @property
    def label_unit(self) -> str:
        """Of predictions and labels: of classes they are shares."""
        return "of 1" if self.of_classes else self.unit

    @property
    def days(self) -> Int64s:
        """[n] number of the UTC day."""
        return np.asarray(self.event_ms // DAY_MS, dtype=np.int64)
