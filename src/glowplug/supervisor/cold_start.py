"""What a start took, phase by phase. Values; who measures is the container's runner.

Each phase has the time from the end of the one before it: `decided` until the supervisor has seen the pod, `downloaded`
until the model is here, `started` until the process runs (forked or executed), `imported`, `loaded` and `warmed` as our
serving library says of itself, `ready` until the readiness probe has succeeded, `first_byte` until the first successful
prediction. A phase that nobody saw, as in a program that is not ours, is left out, and its time is in the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from glowplug.spec import names

PHASES = ("decided", "downloaded", "started", "imported", "loaded", "warmed", "ready", "first_byte")
DECIDED, DOWNLOADED, STARTED, READY, FIRST_BYTE = "decided", "downloaded", "started", "ready", "first_byte"
_WORDS = {
    "decided": "seen", "downloaded": "model here", "started": "process", "first_byte": "first answer",
}  # fmt: skip
_LONGEST_DECISION_S = 600.0


@dataclass
class ColdStart:
    """One start of one container. `began` is the decision, in seconds since the epoch; `moments` the ends of phases."""

    container: str
    image: str
    began: float
    how: str = ""
    restart: int = 0
    moments: dict[str, float] = field(default_factory=dict)

    def mark(self, phase: str, moment: float) -> None:
        """The phase is over; the first time counts."""
        self.moments.setdefault(phase, moment)

    def durations_s(self) -> dict[str, float]:
        """Phase → seconds, in order; clocks that disagree by a little give 0."""
        result, before = {}, self.began
        for phase in PHASES:
            if phase in self.moments:
                result[phase] = max(self.moments[phase] - before, 0.0)
                before = max(self.moments[phase], before)
        return result

    def total_s(self) -> float | None:
        """From the decision until ready; None while it is not."""
        return max(self.moments[READY] - self.began, 0.0) if READY in self.moments else None

    def as_object(self) -> dict[str, Any]:
        """For the annotation: durations in milliseconds, to a hundredth."""
        at = datetime.fromtimestamp(self.began, timezone.utc)
        return {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "how": self.how,
            "restart": self.restart,
            "ms": {phase: round(value * 1000, 2) for phase, value in self.durations_s().items()},
        }

    def in_words(self) -> str:
        """For the event and the condition."""
        total_s = self.total_s()
        parts = [f"{_WORDS.get(phase, phase)} {_shown(value)}" for phase, value in self.durations_s().items()]
        how = {"fork": "from the warm pool", "exec": "as a new process"}.get(self.how, self.how)
        shown = _shown(total_s) if total_s is not None else "not"
        return f"Container {self.container} ready in {shown}, started {how}: {', '.join(parts)}"


def annotation(starts: Iterable[ColdStart]) -> str:
    """The pod's annotation: container → its last start."""
    return json.dumps({start.container: start.as_object() for start in starts}, separators=(",", ":"))


def decided_at(annotations: Mapping[str, str], seen: float) -> float:
    """When a new pod was decided on: as its annotation says where that can be, else when it was seen."""
    try:
        moment = float(annotations.get(names.DECIDED_AT, ""))
    except ValueError:
        return seen
    return moment if seen - _LONGEST_DECISION_S < moment <= seen else seen


def _shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
