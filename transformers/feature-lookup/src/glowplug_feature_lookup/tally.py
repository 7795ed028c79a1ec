"""Counts what was filled in, for /metrics, and says it in the log: each kind at most once in ten seconds.

A line for every request would cost more than the lookup; no line would be silence.
"""

from __future__ import annotations

from collections import Counter as Counts

from prometheus_client import Counter

from glowplug.features.resolve import GroupReport, Report

LOG_EVERY_S = 10.0
OUTCOMES = (
    "missing",
    "stale",
    "defaulted_rows",
    "null_rows",
    "stale_used",
    "defaulted_values",
    "null_values",
)

_ROWS = Counter("glowplug_feature_rows", "feature rows that requests needed, by group", ["group"])
_OUTCOMES = Counter(
    "glowplug_feature_fallbacks",
    "feature rows (missing, stale, defaulted_rows, null_rows, stale_used) and values in rows (defaulted_values, "
    "null_values) that were not what the store should have held",
    ["group", "outcome"],
)


class Tally:
    """Owned by one lookup."""

    def __init__(self) -> None:
        self._window_end = 0.0
        self._told: set[str] = set()
        self._rows = 0
        self._requests = 0
        self._counts: Counts[str] = Counts()
        # By group; the library takes longer to find one than to count.
        self._counters: dict[str, Counter] = {}

    def add(self, report: Report, now: float) -> str:
        """Count a request's report; returns the line to log, or "". `now` is in seconds of a monotonic clock.

        What is new is told at once; what goes on, summed up when ten seconds are over.
        """
        for group in report.groups:
            self._count(group)
        self._requests += 1
        self._rows += report.groups[0].rows if report.groups else 0
        if now >= self._window_end:
            self._told.clear()
        if not self._counts.keys() - self._told:
            return ""
        if not self._told:
            self._window_end = now + LOG_EVERY_S
        self._told.update(self._counts)
        return self.flush()

    def flush(self) -> str:
        """The line for what was not told yet, or ""."""
        if not self._counts:
            return ""
        counts = ", ".join(f"{what}: {number}" for what, number in sorted(self._counts.items()))
        line = f"{self._rows} rows in {self._requests} requests; {counts}"
        self._rows, self._requests = 0, 0
        self._counts.clear()
        return line

    def _count(self, group: GroupReport) -> None:
        rows = self._counters.get(group.group)
        if rows is None:
            rows = self._counters[group.group] = _ROWS.labels(group.group)
        rows.inc(group.rows)
        for outcome in OUTCOMES:
            number = int(getattr(group, outcome))
            if number:
                _OUTCOMES.labels(group.group, outcome).inc(number)
                if not outcome.endswith("_values"):
                    self._counts[f"{group.group} {outcome.replace('_', ' ')}"] += number
