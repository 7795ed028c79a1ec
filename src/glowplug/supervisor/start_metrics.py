"""Histograms of the starts on this machine, as Prometheus text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from glowplug.supervisor.cold_start import FIRST_BYTE, ColdStart

PHASE_FAMILY = "glowplug_cold_start_phase_seconds"
TOTAL_FAMILY = "glowplug_cold_start_seconds"
# A fork is ready after 30 ms, an exec after 400 ms, a large model after minutes.
BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip

Labels = tuple[tuple[str, str], ...]


class StartMetrics:
    """Counts starts when they are ready, and first answers when they come."""

    def __init__(self) -> None:
        self._phases: dict[Labels, _Series] = {}
        self._totals: dict[Labels, _Series] = {}

    def ready(self, start: ColdStart) -> None:
        """A start has come to its end."""
        for phase, value in start.durations_s().items():
            if phase != FIRST_BYTE:
                self._observe(self._phases, start, value, phase)
        total_s = start.total_s()
        if total_s is not None:
            self._observe(self._totals, start, total_s)

    def first_byte(self, start: ColdStart) -> None:
        """A container has answered for the first time."""
        self._observe(self._phases, start, start.durations_s()[FIRST_BYTE], FIRST_BYTE)

    def render(self) -> str:
        """The families, with labels `image`, `how` (fork or exec) and `phase`."""
        phases = _family(PHASE_FAMILY, "how long the phases of containers' starts took", self._phases)
        totals = _family(
            TOTAL_FAMILY, "from the decision to start a container until it was ready", self._totals
        )
        return "".join(f"{line}\n" for line in (*phases, *totals))

    def _observe(
        self, family: dict[Labels, _Series], start: ColdStart, value: float, phase: str | None = None
    ) -> None:
        labels: Labels = (("image", start.image), ("how", start.how))
        labels += (("phase", phase),) if phase else ()
        family.setdefault(labels, _Series()).observe(value)


class _Series:
    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS_S, value)] += 1
        self.total += value


def _family(name: str, text: str, family: Mapping[Labels, _Series]) -> Iterable[str]:
    if not family:
        return
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} histogram"
    for labels, series in family.items():
        label = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
        running = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), series.counts, strict=True):
            running += count
            yield f'{name}_bucket{{{label},le="{bound}"}} {running}'
        yield f"{name}_count{{{label}}} {running}"
        yield f"{name}_sum{{{label}}} {series.total!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
