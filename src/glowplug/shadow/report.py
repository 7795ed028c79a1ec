"""What the shadow's process tells the machine, a line of JSON at a time; and as Prometheus' text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from glowplug.shadow.tally import BOUNDS, Notice, Tally

Object = dict[str, Any]

_METRICS = (
    (
        "glowplug_shadow_requests_total",
        "counter",
        "Requests that were copied for a shadow, by what came of it.",
    ),
    (
        "glowplug_shadow_distance",
        "histogram",
        "How far a shadow's numbers were from those in use, relative to the largest of an answer.",
    ),
    ("glowplug_shadow_seconds_sum", "counter", "Time in the pods, of requests that both revisions answered."),
    ("glowplug_shadow_seconds_count", "counter", "Requests that both revisions answered."),
)


def report_line(tally: Tally, notices: Iterable[Notice]) -> bytes:
    """Everything as it is now, and the notices since the last line."""
    pairs = [
        {
            **asdict(pair),
            "outcomes": {outcome.value: n for outcome, n in counts.outcomes.items()},
            "distances": counts.distances,
            "distance_sum": counts.distance_sum,
            "answered_by_both": counts.timed,
            "revision_s": round(counts.revision_s, 3),
            "shadow_s": round(counts.shadow_s, 3),
        }
        for pair, counts in tally.counts.items()
    ]
    report = {
        "services": pairs,
        "differences": list(tally.differences),
        "notices": [asdict(notice) for notice in notices],
    }
    return orjson.dumps(report, option=orjson.OPT_APPEND_NEWLINE)


def notices_of(report: Object) -> Iterator[Notice]:
    """The news in it."""
    return (Notice(**notice) for notice in report.get("notices", ()))


def metrics(report: Mapping[str, Any]) -> str:
    """In Prometheus' text format; empty where nothing was copied."""
    pairs: list[Object] = report.get("services", [])
    if not pairs:
        return ""
    lines: list[str] = []
    for name, kind, words in _METRICS:
        lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
        for pair in pairs:
            lines += _samples(name, pair)
    return "".join(f"{line}\n" for line in lines)


def _samples(name: str, pair: Object) -> Iterator[str]:
    namespace, _, service = pair["service"].partition("/")
    labels = {
        "namespace": namespace,
        "service": service,
        "revision": pair["revision"].partition("/")[2],
        "shadow": pair["shadow"].partition("/")[2],
    }
    if name == "glowplug_shadow_requests_total":
        for outcome, count in sorted(pair["outcomes"].items()):
            yield _sample(name, {**labels, "outcome": outcome}, count)
    elif name == "glowplug_shadow_distance":
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), pair["distances"], strict=True):
            total += count
            yield _sample(f"{name}_bucket", {**labels, "le": str(bound)}, total)
        yield _sample(f"{name}_sum", labels, pair["distance_sum"])
        yield _sample(f"{name}_count", labels, total)
    else:
        for side in ("revision", "shadow"):
            value = pair["answered_by_both"] if name.endswith("_count") else pair[f"{side}_s"]
            yield _sample(name, {**labels, "of": side}, value)


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:g}" if isinstance(value, float) else f"{name}{{{inside}}} {value}"
