"""From an ingress's counters to what a revision's pods have in progress, averaged over time. Pure.

The ingress counts requests that were sent, those in progress now, and the time that finished ones took, added up. Of
requests that are shorter than the time between two readings, that sum is the integral of the concurrency, but for what
is cut off at both ends (Little's law). Of longer ones little finishes in between, and the number in progress hardly
moves: there the mean of both readings is as good.
"""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec.load import Report


@dataclass(frozen=True)
class Counters:
    """One reading: requests sent to the pods since the ingress started, those in progress or waiting in its queue
    now, and the microseconds that finished requests took."""

    requests: int
    in_progress: int
    busy_us: int


def report_between(before: Counters, after: Counters, seconds: float) -> Report:
    """The average concurrency and the number of requests over the `seconds` (above 0) between two readings.

    An ingress that started anew counts from zero; then `before` is taken for zero too.
    """
    if after.requests < before.requests or after.busy_us < before.busy_us:
        before = Counters(0, 0, 0)
    arrived = after.requests - before.requests
    finished = max(arrived - (after.in_progress - before.in_progress), 0)
    busy_s = (after.busy_us - before.busy_us) / 1e6
    mean_s = busy_s / finished if finished else float("inf")
    if mean_s > seconds:
        return Report((before.in_progress + after.in_progress) / 2, float(arrived))
    # At either end, what is in progress has been so for half of its time on average.
    cut_off_s = (after.in_progress - before.in_progress) * mean_s / 2
    return Report(max(busy_s + cut_off_s, 0.0) / seconds, float(arrived))
