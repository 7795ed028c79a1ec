"""The detector's numbers as Prometheus reads them (text format 0.0.4).

The labelled ones are counters that the rollout's judge can compare revisions by: predictions whose label is known, the
sum of their absolute errors, and of the squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from glowplug.drift.detector import Judged, Target
from glowplug.drift.episodes import Episodes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LOSSES = (
    ("glowplug_labelled_predictions_total", "Predictions whose label is known."),
    ("glowplug_labelled_loss_total", "Sum of the absolute errors of labelled predictions."),
    ("glowplug_labelled_loss_squares_total", "Sum of the squared errors of labelled predictions."),
)
# Not of events.
_APART = ("windows", "episodes", "forgotten", "expired")


class Counted(Protocol):
    """What of a detector is told."""

    @property
    def target(self) -> Target: ...
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def losses(self) -> Mapping[str, Sequence[float]]: ...
    @property
    def episodes(self) -> Episodes: ...
    @property
    def last(self) -> Judged | None: ...


def exposition(detector: Counted, waiting: tuple[int, int], unsent: int) -> str:
    """All of it; `waiting` are requests without labels and labels without a request."""
    target = {
        "namespace": detector.target.namespace,
        "inferenceservice": detector.target.inferenceservice,
    }
    lines: list[str] = []
    for place, (name, help) in enumerate(_LOSSES):
        lines += [f"# HELP {name} {help}", f"# TYPE {name} counter"]
        lines += [
            _line(name, {**target, "revision": revision}, sums[place])
            for revision, sums in sorted(detector.losses.items())
        ]
    lines.append("# TYPE glowplug_drift_events_total counter")
    for outcome, count in sorted(detector.counts.items()):
        if outcome not in _APART:
            lines.append(_line("glowplug_drift_events_total", {**target, "outcome": outcome}, count))
    for name in _APART:
        full = f"glowplug_drift_{name}_total"
        lines += [f"# TYPE {full} counter", _line(full, target, detector.counts.get(name, 0))]
    gauges: dict[str, float] = {
        "episode_open": int(detector.episodes.is_open),
        "waiting_requests": waiting[0],
        "waiting_labels": waiting[1],
        "unsent_events": unsent,
    }
    if detector.last is not None:
        verdict = detector.last.verdict
        gauges["window_drifted"] = int(bool(verdict.is_drifted))
        gauges["drifted_share"] = verdict.share
        if verdict.error is not None:
            gauges["error_ratio"] = verdict.error.ratio
    for name, value in gauges.items():
        full = f"glowplug_drift_{name}"
        lines += [f"# TYPE {full} gauge", _line(full, target, value)]
    return "\n".join(lines) + "\n"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
