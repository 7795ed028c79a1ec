"""How long a revision's pods take to become ready: learned from the pods that are there.

Pure. The local machine writes every start on its pod; on a cluster it is the time from the pod's creation until its
condition Ready, which are whole seconds. Each start counts once, in the order they began.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.spec import names
from glowplug.spec.times import parse_time

_WEIGHT = 0.3
_MAX_S = 3600.0
_FIRST_BYTE = "first_byte"
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Start:
    """One pod's start; `began` in seconds since the epoch."""

    began: float
    took_s: float


@dataclass(frozen=True)
class StartTime:
    """The exponentially weighted mean of the starts so far; `newest` is when the last of them began."""

    mean_s: float = 30.0
    count: int = 0
    newest: float = 0.0

    def with_starts(self, starts: Iterable[Start]) -> StartTime:
        """After more starts; those that began before the newest one known are known, too."""
        found = self
        for start in sorted(starts, key=lambda each: each.began):
            if start.began > self.newest:
                mean_s = start.took_s
                if found.count:
                    mean_s = found.mean_s + _WEIGHT * (start.took_s - found.mean_s)
                found = StartTime(round(mean_s, 3), found.count + 1, start.began)
        return found


def start_of(pod: Object) -> Start | None:
    """A pod's start; None while it is not ready, or where it cannot be told."""
    return _from_annotation(pod) or _from_status(pod)


def _from_annotation(pod: Object) -> Start | None:
    """The slowest of the pod's containers."""
    try:
        found = json.loads((pod["metadata"].get("annotations") or {})[names.COLD_START])
        starts = [
            Start(
                parse_time(each["at"]).timestamp(),  # type: ignore[union-attr]
                sum(float(ms) for phase, ms in each["ms"].items() if phase != _FIRST_BYTE) / 1000,
            )
            for each in found.values()
            if "ready" in each["ms"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    slowest = max(starts, key=lambda start: start.took_s, default=None)
    return slowest if slowest is not None and 0 <= slowest.took_s <= _MAX_S else None


def _from_status(pod: Object) -> Start | None:
    status = pod.get("status") or {}
    if any(each.get("restartCount") for each in status.get("containerStatuses") or ()):
        return None
    began = parse_time(pod["metadata"].get("creationTimestamp"))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            ready = parse_time(condition.get("lastTransitionTime"))
            if began is not None and ready is not None:
                took_s = (ready - began).total_seconds()
                return Start(began.timestamp(), took_s) if 0 <= took_s <= _MAX_S else None
    return None
