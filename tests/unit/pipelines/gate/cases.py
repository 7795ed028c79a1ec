"""Evidence made up: losses with a day effect that challenger and reference share, and a true difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug_pipelines.gate.evidence import DAY_MS, Cost, Evidence


def evidence(
    difference: float, days: int = 14, seed: int = 1, rows_per_day: int = 120, **changes: Any
) -> Evidence:
    """The challenger loses `difference` more a row, on average; days differ by far more than models do."""
    chance = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), rows_per_day)
    scale = 10 + 3 * chance.standard_normal(days)[day]
    reference = np.abs(scale + 4 * chance.standard_normal(len(day)))
    challenger = (
        reference
        + difference
        + 1.5 * chance.standard_normal(len(day))
        + 0.3 * chance.standard_normal(days)[day]
    )
    labels = np.zeros(len(day))
    values: dict[str, Any] = {
        "labels": labels,
        "predictions": labels - chance.choice([-1, 1], len(day)) * challenger,
        "losses": challenger,
        "reference_predictions": labels - chance.choice([-1, 1], len(day)) * reference,
        "reference_labels": labels,
        "reference_losses": reference,
        "event_ms": day.astype(np.int64) * DAY_MS + 5,
        "slices": {"colour": np.array(["blue", "green", "red", "white"])[chance.integers(0, 4, len(day))]},
        "cost": Cost(0.5, 1_000_000),
        "reference": "champion 1",
        "reference_cost": Cost(0.5, 1_000_000),
        "unit": "min",
    }
    return Evidence(**{**values, **changes})
