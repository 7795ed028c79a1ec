"""The figures of a load test, from its records and the samples of its replicas. Pure."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glowplug_loadtest.plan import Plan
from glowplug_loadtest.records import UNSENT, Record, Records, columns
from glowplug_loadtest.replicas import Sample
from glowplug_loadtest.thresholds import Threshold, Verdict, judge, over_percent

PERCENTILES = (50.0, 95.0, 99.0)
_BINS = 200
_LEAST_IN_BIN = 5
_WIDTHS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)
_OVER_MS = (50.0, 100.0, 200.0, 500.0, 1000.0)
# More than that between being due and being sent is the generator's fault, and no small one.
LATE_MS = 20.0


@dataclass(frozen=True)
class Series:
    """By time: bins of `width_s` seconds that begin at `t` [n]. Percentiles are by due time, NaN where none is.

    `due_rps`, `answered_rps`, `failed_rps` [n]; `waiting` [n]: the most that were due and neither answered nor failed.
    """

    width_s: float
    t: np.ndarray
    percentiles_ms: dict[float, np.ndarray]
    due_rps: np.ndarray
    answered_rps: np.ndarray
    failed_rps: dict[str, np.ndarray]
    waiting: np.ndarray


@dataclass(frozen=True)
class Figures:
    """What the report shows. `total` is without the warm-up, `series` with it."""

    plan: Plan
    name: str
    total: dict[str, Any]
    verdicts: list[Verdict]
    series: Series
    samples: list[Sample]
    is_interrupted: bool = False

    @property
    def missed(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if not verdict.is_met]


def figures_of(
    plan: Plan,
    name: str,
    records: Sequence[Record],
    samples: Sequence[Sample],
    thresholds: Sequence[Threshold],
    *,
    is_interrupted: bool = False,
) -> Figures:
    """All of them; thresholds are held against the requests after the warm-up."""
    found = columns(records)
    kept = found.since(plan.warm_up_s)
    verdicts = judge(thresholds, kept.latency_ms, kept.is_ok)
    total = {**_total(kept), "replicas": _replicas(samples, plan)}
    return Figures(plan, name, total, verdicts, series_of(found, plan), list(samples), is_interrupted)


def series_of(found: Records, plan: Plan) -> Series:
    """The course of it all, as long as the profile or until the last answer."""
    end = max([plan.profile.duration_s, *found.done_s.tolist()])
    # Wide enough for a few requests each: percentiles of one or two are noise.
    least = max(end / _BINS, end * _LEAST_IN_BIN / max(len(found.error), 1))
    width = next((each for each in _WIDTHS_S if each >= least), _WIDTHS_S[-1])
    edges = np.arange(math.ceil(end / width) + 1) * width
    is_ok = found.is_ok
    due, _ = np.histogram(found.due_s, edges)
    answered, _ = np.histogram(found.done_s[is_ok], edges)
    failed = {}
    for error, _count in Counter(error for error in found.error if error).most_common():
        mask = np.array([each == error for each in found.error])
        failed[error] = np.histogram(found.done_s[mask], edges)[0] / width
    return Series(
        width, edges[:-1], _percentiles(found, edges), due / width, answered / width, failed,
        _waiting(found, edges),
    )  # fmt: skip


def _waiting(found: Records, edges: np.ndarray) -> np.ndarray:
    """The most at a time in each bin."""
    times = np.concatenate([found.due_s, found.done_s])
    order = np.argsort(times, kind="stable")
    change = np.concatenate([np.ones(len(found.due_s)), -np.ones(len(found.done_s))])
    # level[k]: how many wait after k events
    level = np.concatenate([[0.0], np.cumsum(change[order])])
    times = times[order]
    most: np.ndarray = level[np.searchsorted(times, edges[:-1])]
    place = np.clip(np.digitize(times, edges) - 1, 0, len(most) - 1)
    np.maximum.at(most, place, level[1:])
    return most


def as_json(figures: Figures) -> dict[str, Any]:
    """All figures as JSON: NaN is null."""
    plan, series = figures.plan, figures.series
    return {
        "inferenceService": figures.name,
        "profile": plan.profile.name,
        "segments": [vars(each) for each in plan.profile.segments],
        "url": plan.url,
        "host": plan.host,
        "protocol": plan.protocol,
        "arrivals": plan.arrivals,
        "seed": plan.seed,
        "warm_up_s": plan.warm_up_s,
        "is_interrupted": figures.is_interrupted,
        **figures.total,
        "thresholds": [
            {"threshold": each.threshold.text, "measured": each.value, "met": each.is_met}
            for each in figures.verdicts
        ],
        "series": {
            "width_s": series.width_s,
            "t": _listed(series.t),
            **{f"p{percent:g}_ms": _listed(values) for percent, values in series.percentiles_ms.items()},
            "due_rps": _listed(series.due_rps),
            "answered_rps": _listed(series.answered_rps),
            "waiting": _listed(series.waiting),
            "failed_rps": {error: _listed(values) for error, values in series.failed_rps.items()},
        },
        "replicas_seen": [vars(sample) for sample in figures.samples],
    }


def _total(found: Records) -> dict[str, Any]:
    is_ok, latency = found.is_ok, found.latency_ms
    answered = latency[is_ok]
    sent = found.lag_ms[~np.isnan(found.lag_ms)]
    count = len(is_ok)
    return {
        "requests": count,
        "answered": int(is_ok.sum()),
        "failed": int(count - is_ok.sum()),
        "failed_percent": _percent(~is_ok),
        "unsent": sum(error == UNSENT for error in found.error),
        "errors": dict(Counter(error for error in found.error if error).most_common()),
        "latency_ms": _spread(answered),
        "over_percent": {f"{limit:g}": over_percent(limit, latency, is_ok) for limit in _OVER_MS},
        "sender": {
            "lag_p99_ms": float(np.percentile(sent, 99)) if len(sent) else None,
            "late_percent": _percent(sent > LATE_MS),
        },
    }


def _spread(values: np.ndarray) -> dict[str, float | None]:
    names = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
    return {
        name: float(np.percentile(values, percent)) if len(values) else None
        for name, percent in names.items()
    }


def _replicas(samples: Sequence[Sample], plan: Plan) -> dict[str, Any] | None:
    during = [each for each in samples if 0 <= each.t <= plan.profile.duration_s]
    if not during:
        return None
    held = [each.held for each in during if each.held is not None]
    return {
        "ready_least": min(each.ready for each in during),
        "ready_most": max(each.ready for each in during),
        "desired_most": max(each.desired for each in during),
        "replica_seconds": sum(
            first.ready * (then.t - first.t) for first, then in itertools.pairwise(during)
        ),
        "held_most": max(held) if held else None,
    }


def _percentiles(found: Records, edges: np.ndarray) -> dict[float, np.ndarray]:
    is_ok = found.is_ok
    latency, place = found.latency_ms[is_ok], np.digitize(found.due_s[is_ok], edges) - 1
    series = {percent: np.full(len(edges) - 1, np.nan) for percent in PERCENTILES}
    for number in np.unique(place):
        in_bin = latency[place == number]
        for percent, values in series.items():
            values[number] = np.percentile(in_bin, percent)
    return series


def _percent(mask: np.ndarray) -> float:
    return float(100 * np.mean(mask)) if len(mask) else 0.0


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), 4) for value in values]
