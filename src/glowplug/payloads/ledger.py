"""What came of the events over all lives of the process: a report counts from its own process's start. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from glowplug.payloads.report import metrics
from glowplug.payloads.tally import Component, Notice, Outcome

_WHY = "the payload logger's process ended with them, and with what it was handed in its last half second"


class Ledger:
    """`report` it, and tell it when the process that reports has `ended`."""

    def __init__(self, kept_components: int) -> None:
        self._kept_components = kept_components
        self._before: dict[Component, Counter[str]] = {}
        self._now: Mapping[str, Any] = {}

    def report(self, report: Mapping[str, Any]) -> None:
        """The newest of the process that runs."""
        self._now = report

    def ended(self) -> Iterator[Notice]:
        """The process is no more: what it has not said the outcome of is lost."""
        components, self._now = self._now.get("components", ()), {}
        for each in components:
            key = _key(each)
            sums = self._before.setdefault(key, Counter())
            sums.update(each["outcomes"])
            if each["open"]:
                sums[Outcome.LOST.value] += each["open"]
                yield Notice(key.namespace, key.service, each["open"], _WHY)
        while len(self._before) > self._kept_components:
            del self._before[next(iter(self._before))]

    def metrics(self, uncopied: int | None) -> str:
        """In Prometheus' text format; empty where nothing was ever logged."""
        counts = {key: Counter(sums) for key, sums in self._before.items()}
        for each in self._now.get("components", ()):
            counts.setdefault(_key(each), Counter()).update(each["outcomes"])
        if not (self._now or counts):
            return ""
        return metrics(counts, self._now.get("waiting", {}), uncopied)


def _key(component: Mapping[str, Any]) -> Component:
    return Component(component["namespace"], component["service"], component["component"])
