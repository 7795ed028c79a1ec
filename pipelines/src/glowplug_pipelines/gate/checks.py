"""One decision each: better than the reference, no slice worse, calibrated, fast and small enough.

A check passes or fails only on proof, or where it has a budget; "can't know" is inconclusive and says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from glowplug_pipelines.gate.bootstrap import Interval, Resampling, simultaneous_lows
from glowplug_pipelines.gate.evidence import Evidence
from glowplug_pipelines.settings import GateSettings

_MEGABYTE = 1e6


class Result(str, Enum):
    """Of a check, and of the gate."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Check:
    """`numbers` are what the reason is made of; JSON's types only."""

    name: str
    result: Result
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SliceDifference:
    """How much more the challenger loses on a slice: challenger - reference, as a percentage of the reference's."""

    name: str
    value: str
    rows: int
    percent: Interval


def better(evidence: Evidence, resampling: Resampling, settings: GateSettings) -> Check:
    """Is the mean loss lower, by the least improvement that counts?

    Passes where the whole interval of the improvement lies above it, fails where the whole interval does not.
    """
    if resampling.days < settings.min_days:
        reason = f"{resampling.days} held-out days, must be {settings.min_days} or more"
        return Check("better", Result.INCONCLUSIVE, reason, {"days": resampling.days})
    gained = resampling.interval(evidence.reference_losses - evidence.losses, settings.alpha)
    reference = float(evidence.reference_losses.mean())
    least = settings.min_improvement_percent / 100 * reference
    if gained.low > least:
        result, verb = Result.PASS, "loses less than"
    elif gained.high <= least:
        result, verb = Result.FAIL, "loses no less than"
    else:
        result, verb = Result.INCONCLUSIVE, "cannot be told apart from"
    unit = evidence.unit
    reason = (
        f"{verb} {evidence.reference}: {evidence.losses.mean():.3f} against {reference:.3f} {unit}, "
        f"improvement {gained.mean:+.3f} [{gained.low:+.3f}, {gained.high:+.3f}] over {gained.days} days"
    )
    if least:
        reason += f", must be above {least:.3f}"
    numbers = {
        "challenger": float(evidence.losses.mean()),
        "reference": reference,
        "improvement": gained.to_json(),
        "least": least,
        "rows": len(evidence.losses),
    }
    return Check("better", result, reason, numbers)


def slice_differences(
    evidence: Evidence, resampling: Resampling, settings: GateSettings
) -> list[SliceDifference]:
    """Every slice with rows and days enough, the worst first; the lower bounds hold together."""
    found, parts = [], []
    for name, column in evidence.slices.items():
        values, counts = np.unique(column, return_counts=True)
        for value in values[counts >= settings.slice_min_rows]:
            mask = column == value
            reference = float(evidence.reference_losses[mask].mean())
            if reference <= 0 or len(np.unique(resampling.day_of_row[mask])) < 2:
                continue
            found.append((name, str(value), int(mask.sum())))
            parts.append((100 * (evidence.losses - evidence.reference_losses) / reference, mask))
    bounds = simultaneous_lows(resampling, parts, settings.alpha)
    differences = [
        SliceDifference(name, value, rows, bound)
        for (name, value, rows), bound in zip(found, bounds, strict=True)
    ]
    return sorted(differences, key=lambda each: -each.percent.mean)


def slices(differences: list[SliceDifference], settings: GateSettings) -> Check:
    """Fails where a slice is proven to lose more than the tolerance, with all slices looked at together."""
    limit = settings.slice_tolerance_percent
    worse = [each for each in differences if each.percent.low > limit]
    numbers: dict[str, Any] = {"looked_at": len(differences), "tolerance_percent": limit}
    numbers["regressed"] = [_slice_json(each) for each in worse]
    numbers["suspected"] = [
        _slice_json(each) for each in differences if each.percent.mean > limit and each not in worse
    ]
    if worse:
        named = "; ".join(
            f"{each.name} {each.value}: {each.percent.mean:+.1f} % (at least {each.percent.low:+.1f} %, "
            f"{each.rows} rows)"
            for each in worse
        )
        return Check("slices", Result.FAIL, f"loses over {limit:g} % more on {named}", numbers)
    suspected = len(numbers["suspected"])
    reason = f"no slice of {len(differences)} is proven to lose over {limit:g} % more"
    if suspected:
        reason += f"; {suspected} may, without proof"
    return Check("slices", Result.PASS, reason, numbers)


def calibration(evidence: Evidence, resampling: Resampling, settings: GateSettings) -> Check:
    """Fails where the mean residual is proven beyond `max_bias` and beyond the reference's own."""
    residuals = evidence.labels - evidence.predictions
    reference = float((evidence.reference_labels - evidence.reference_predictions).mean())
    numbers: dict[str, Any] = {
        "bias": float(residuals.mean()),
        "reference_bias": reference,
        "residual_quantiles": {
            str(level): float(np.quantile(residuals, level)) for level in (0.05, 0.25, 0.5, 0.75, 0.95)
        },
    }
    if settings.max_bias == 0:
        return Check(
            "calibration",
            Result.PASS,
            f"bias {residuals.mean():+.3f} {evidence.label_unit}, no limit set",
            numbers,
        )
    if resampling.days < settings.min_days:
        reason = f"{resampling.days} held-out days, must be {settings.min_days} or more"
        return Check("calibration", Result.INCONCLUSIVE, reason, numbers)
    bias = resampling.interval(residuals, settings.alpha)
    allowed = max(settings.max_bias, abs(reference))
    numbers |= {"interval": bias.to_json(), "allowed": allowed}
    reason = (
        f"bias {bias.mean:+.3f} [{bias.low:+.3f}, {bias.high:+.3f}] {evidence.label_unit}, "
        f"allowed {allowed:.3f} either way (the reference's: {reference:+.3f})"
    )
    is_proven = bias.low > allowed or bias.high < -allowed
    return Check("calibration", Result.FAIL if is_proven else Result.PASS, reason, numbers)


def latency(evidence: Evidence, settings: GateSettings) -> Check:
    """Median of one row against the budget, and against the reference's taken by turns with it."""
    took = evidence.cost.latency_ms
    beside = evidence.reference_cost.latency_ms if evidence.reference_cost else None
    numbers = {"latency_ms": took, "reference_latency_ms": beside}
    if 0 < settings.max_latency_ms < took:
        reason = f"{took:.3f} ms for one row, must be up to {settings.max_latency_ms:g}"
        return Check("latency", Result.FAIL, reason, numbers)
    if beside and 0 < settings.max_latency_ratio < took / beside:
        reason = (
            f"{took:.3f} ms for one row, {took / beside:.1f} times the reference's, "
            f"must be up to {settings.max_latency_ratio:g} times"
        )
        return Check("latency", Result.FAIL, reason, numbers)
    shown = f", the reference's {beside:.3f}" if beside else ""
    return Check("latency", Result.PASS, f"{took:.3f} ms for one row{shown}", numbers)


def size(evidence: Evidence, settings: GateSettings) -> Check:
    """The model directory's bytes against the budget."""
    megabytes = evidence.cost.size_bytes / _MEGABYTE
    numbers = {"size_mb": megabytes, "max_size_mb": settings.max_size_mb}
    if 0 < settings.max_size_mb < megabytes:
        return Check(
            "size", Result.FAIL, f"{megabytes:.2f} MB, must be up to {settings.max_size_mb:g}", numbers
        )
    return Check("size", Result.PASS, f"{megabytes:.2f} MB", numbers)


def _slice_json(each: SliceDifference) -> dict[str, Any]:
    return {"slice": each.name, "value": each.value, "rows": each.rows, "percent": each.percent.to_json()}
