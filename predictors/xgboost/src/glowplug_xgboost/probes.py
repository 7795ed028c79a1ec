"""Rows that show whether two forms of one forest are the same function. Pure; the same rows for the same forest."""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug_xgboost.forest import Forest

# XGBoost and onnxruntime add the same float32 numbers, so their sums differ by rounding at most, if at all.
TOLERANCE = 1e-5
SPECIAL = np.array([np.nan, np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0, 1e-42, 0.5], dtype=np.float32)
SPECIAL_SHARE = 0.1


def probe_rows(forest: Forest, count: int) -> Any:
    """float32 [2 * count, width]: plain rows first, then as many in which a tenth is missing, infinite or huge.

    Every number is a threshold of a split by its feature, the float just above or just below one, or near to one:
    where the two directions part, and where rows of a model's own distribution are.
    """
    shape = (2 * count, forest.width)
    rows = _uniform(shape, 0).astype(np.float32)
    feature, value = _split_values(forest)
    order = np.argsort(feature, kind="stable")
    counts = np.bincount(feature, minlength=forest.width)[: forest.width]
    starts = np.cumsum(counts) - counts
    known = np.flatnonzero(counts)
    picked = starts[known] + (_uniform(shape, 1)[:, known] * counts[known]).astype(np.int64)
    rows[:, known] = _around(value[order][picked])
    is_special = _uniform((count, forest.width), 2) < SPECIAL_SHARE
    which = _uniform((int(is_special.sum()),), 3) * len(SPECIAL)
    rows[count:][is_special] = SPECIAL[which.astype(np.int64)]
    return rows


def _uniform(shape: tuple[int, ...], seed: int) -> Any:
    """float64 in [0, 1) by SplitMix64 (Steele, Lea, Flood 2014); importing numpy.random takes 10 ms of a start."""
    count = int(np.prod(shape))
    state = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 40)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return ((state >> np.uint64(11)).astype(np.float64) / 2.0**53).reshape(shape)


def _split_values(forest: Forest) -> tuple[Any, Any]:
    """The feature and the threshold of every split, and of every member of a categorical one."""
    is_threshold = ~forest.is_leaf
    is_threshold[list(forest.categories)] = False
    features, values = [forest.feature[is_threshold]], [forest.value[is_threshold]]
    for node, members in forest.categories.items():
        features.append(np.full(len(members), forest.feature[node]))
        values.append(members)
    return np.concatenate(features), np.concatenate(values)


def _around(values: Any) -> Any:
    """Each as it is, the next float up or down, or up to a half away."""
    with np.errstate(over="ignore"):
        nearby = (
            values,
            np.nextafter(values, np.float32(np.inf)),
            np.nextafter(values, np.float32(-np.inf)),
            values + (_uniform(values.shape, 4) - 0.5).astype(np.float32),
        )
    return np.choose((_uniform(values.shape, 5) * len(nearby)).astype(np.int64), nearby)


def difference(expected: Any, found: Any) -> str:
    """How `found` differs from what is expected by more than the tolerance; empty where it does not.

    The tolerance is absolute up to 1 (a probability) and relative above (an amount: float32 has seven digits, and
    1e-5 of a price in millions is below the last).
    """
    if expected.shape != found.shape:
        return f"it predicts a shape of {list(found.shape)}, the booster {list(expected.shape)}"
    with np.errstate(invalid="ignore", over="ignore"):
        is_near = np.abs(found - expected) <= TOLERANCE * np.maximum(1, np.abs(expected))
    is_same = is_near | (found == expected) | (np.isnan(found) & np.isnan(expected))
    if is_same.all():
        return ""
    place = np.argwhere(~is_same)[0]
    return (
        f"it differs from the booster in {int((~is_same).sum())} of {is_same.size} numbers: "
        f"{found[tuple(place)]!r}, expected {expected[tuple(place)]!r} (row {place[0]})"
    )
