"""A revision's measurements: what all its reporters say, in a stable and a panic window for each metric.

The values are the whole revision's, not a pod's, and each request is in one report only: what the ingress sent straight
to pods in its own, what the activator holds or let go in the activator's. Source: knative.dev/serving
pkg/autoscaler/metrics/collector.go.
"""

from __future__ import annotations

from dataclasses import replace

from glowplug.spec import autoscaling
from glowplug.spec.load import Report

from .buckets import LinearBuckets, WeightedBuckets
from .decider import NoData, Observation
from .parameters import Windows


class Collector:
    """The windows of one revision. Times are nanoseconds since the epoch, given by the caller."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        # The algorithm is an annotation of the revision, and that never changes.
        kind = WeightedBuckets if windows.is_weighted else LinearBuckets
        self._concurrency = kind(windows.stable_ns), kind(windows.panic_ns)
        self._rps = kind(windows.stable_ns), kind(windows.panic_ns)

    def record(self, now_ns: int, report: Report) -> None:
        """Adds one report of the last second, of the activator or of all pods together."""
        for window in self._concurrency:
            window.record(now_ns, report.concurrency)
        for window in self._rps:
            window.record(now_ns, report.requests)

    def resize(self, windows: Windows, now_ns: int) -> None:
        """Takes over new lengths; what was measured stays as far as it fits."""
        self._windows = replace(windows, is_weighted=self._windows.is_weighted)
        for stable, panic in (self._concurrency, self._rps):
            stable.resize(windows.stable_ns, now_ns)
            panic.resize(windows.panic_ns, now_ns)

    def observe(self, metric: str, ready: int | None, now_ns: int) -> Observation | NoData:
        """What a decision is made on: `metric` is `rps`, anything else is concurrency.

        A revision that is scraped and silent for a stable window is not known to be idle; one that has the activator
        in its path always is. `ready` None: nobody knows how many pods are ready.
        """
        if ready is None:
            return NoData("the number of ready pods is not known")
        stable, panic = self._rps if metric == autoscaling.RPS else self._concurrency
        if self._windows.is_scraped and stable.is_empty(now_ns):
            return NoData("no data to scale on yet: nothing was reported within the stable window")
        return Observation(ready, stable.average(now_ns), panic.average(now_ns))
