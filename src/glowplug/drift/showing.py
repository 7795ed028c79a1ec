"""A profile in words, for a person who wants to know what the detector will make of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from glowplug.drift import measures
from glowplug.drift.config import DriftConfig
from glowplug.drift.nulls import Null, calibrate
from glowplug.drift.profile import Profile

_DAY_S = 86400.0


def lines(profile: Profile, config: DriftConfig) -> Iterator[str]:
    """`significant`: the PSI and KS that a single test at the level calls significant, for a window of that length."""
    span = f"{profile.started:%Y-%m-%d} to {profile.ended:%Y-%m-%d}"
    blocks = f"{len(profile.blocks)} blocks of {profile.block_s / _DAY_S:.2g} days"
    yield f"{profile.rows} rows, {span}, {blocks}, {len(profile.names)} features, digest {profile.digest}"
    if profile.errors is None:
        yield "no labels: errors cannot be judged"
    else:
        joined = int(profile.errors.rows.sum())
        yield f"mean absolute error {profile.errors.level:.4g}, of {joined} labels"
    nulls = calibrate(profile, seconds=config.window_s, rows=config.window_rows)
    yield f"{'feature':<36} {'smallest':>10} {'median':>10} {'largest':>10} {'missing':>8} {'weight':>7}  significant"
    totals = profile.blocks.sum(axis=0)
    missing = measures.missing(totals)
    for place, name in enumerate((*profile.names, "prediction")):
        edges = profile.table.grids[place].edges
        shown = [math.nan] * 3
        if len(edges):
            # The first edge is the number below the smallest value.
            cumulated = np.cumsum(totals[place][: len(edges)])
            middle = int(np.searchsorted(cumulated, cumulated[-1] / 2))
            shown = [float(edges[min(1, len(edges) - 1)]), float(edges[middle]), float(edges[-1])]
        weight = f"{profile.shares[place]:7.3f}" if place < len(profile.names) else " " * 7
        yield (
            f"{name:<36} {shown[0]:>10.4g} {shown[1]:>10.4g} {shown[2]:>10.4g} {100 * missing[place]:>7.2g}%"
            f" {weight}  PSI {limit(nulls.psi, place, config.level):.3g}, KS {limit(nulls.ks, place, config.level):.3g}"
        )


def limit(null: Null, place: int, level: float) -> float:
    """What has to be measured for a p-value of `level`; found by halving."""
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        if null.p_value(np.array([middle] * (place + 1)), place) > level:
            low = middle
        else:
            high = middle
    return high
