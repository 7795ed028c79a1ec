"""Thresholds such as `p99<200ms`: parsed, then held against the figures. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glowplug.errors import ConfigError

_LATENCY = re.compile(r"p(?P<percent>\d{1,2}(?:\.\d+)?)<(?P<limit>\d+(?:\.\d+)?)(?P<unit>ms|s)")
_SHARE = re.compile(r"(?:(?P<errors>errors)|over(?P<over>\d+(?:\.\d+)?)ms)<(?P<limit>\d+(?:\.\d+)?)%")
EXAMPLES = "p99<200ms, errors<0.1%, over200ms<1%"


@dataclass(frozen=True)
class Threshold:
    """`kind` is `latency` (of percentile `at`, limit in ms), `errors`, or `over` (`at` ms); shares are percent."""

    text: str
    kind: str
    at: float
    limit: float


@dataclass(frozen=True)
class Verdict:
    """A threshold and what was measured; `value` is None where nothing was answered."""

    threshold: Threshold
    value: float | None

    @property
    def is_met(self) -> bool:
        return self.value is not None and self.value < self.threshold.limit

    @property
    def spoken(self) -> str:
        """`p99<200ms: measured 312 ms`."""
        unit = "ms" if self.threshold.kind == "latency" else "%"
        measured = "nothing was answered" if self.value is None else f"measured {self.value:.4g} {unit}"
        return f"{self.threshold.text}: {measured}"


def parse(texts: Sequence[str]) -> list[Threshold]:
    """Raises ConfigError with all that are not understood."""
    found, wrong = [], []
    for text in texts:
        compact = text.replace(" ", "").replace("<=", "<")
        if latency := _LATENCY.fullmatch(compact):
            factor = 1000 if latency["unit"] == "s" else 1
            found.append(
                Threshold(text, "latency", float(latency["percent"]), float(latency["limit"]) * factor)
            )
        elif share := _SHARE.fullmatch(compact):
            kind = "errors" if share["errors"] else "over"
            found.append(Threshold(text, kind, float(share["over"] or 0), float(share["limit"])))
        else:
            wrong.append(text)
    if wrong:
        raise ConfigError(f"--threshold {', '.join(wrong)}: not understood", hint=f"write it as {EXAMPLES}")
    return found


def judge(thresholds: Sequence[Threshold], latency_ms: np.ndarray, is_ok: np.ndarray) -> list[Verdict]:
    """Of requests: their latencies [n] float64 and whether each was answered rightly [n] bool."""
    return [Verdict(each, _measured(each, latency_ms, is_ok)) for each in thresholds]


def over_percent(limit_ms: float, latency_ms: np.ndarray, is_ok: np.ndarray) -> float:
    """The share of requests that took longer than `limit_ms` or were not answered rightly at all."""
    return float(100 * np.mean((latency_ms > limit_ms) | ~is_ok)) if len(is_ok) else 0.0


def _measured(threshold: Threshold, latency_ms: np.ndarray, is_ok: np.ndarray) -> float | None:
    if not len(is_ok):
        return None
    if threshold.kind == "errors":
        return float(100 * np.mean(~is_ok))
    if threshold.kind == "over":
        return over_percent(threshold.at, latency_ms, is_ok)
    answered = latency_ms[is_ok]
    return float(np.percentile(answered, threshold.at)) if len(answered) else None
