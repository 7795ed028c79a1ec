"""The largest value of a sliding window, in buckets: what delays a scale-down. A frozen value.

Source: knative.dev/serving pkg/autoscaler/aggregation/max. The window is a whole number of buckets that lie at fixed
times, so a delay of 5 s in buckets of 2 s lasts between 4 and 6 s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class MaximumWindow:
    """`size` buckets of `granularity_s` seconds each; `maxima` are (bucket, value), falling, oldest first."""

    size: int
    granularity_s: int
    maxima: tuple[tuple[int, int], ...] = ()

    def recorded(self, now_ns: int, value: int) -> MaximumWindow:
        """The window with `value` in the bucket of `now_ns`; times must not fall."""
        bucket = (now_ns // SECOND_NS) // self.granularity_s
        # What is no larger than the new value will never be the maximum again.
        kept = [entry for entry in self.maxima if entry[1] > value and bucket - entry[0] < self.size]
        if not kept or kept[-1][0] != bucket:
            kept.append((bucket, value))
        return replace(self, maxima=tuple(kept))

    @property
    def current(self) -> int:
        """The largest value of the window as of its last record."""
        return self.maxima[0][1]


def window(duration_ns: int, granularity_s: int) -> MaximumWindow:
    """An empty window of at least `duration_ns`, which must be positive."""
    return MaximumWindow(-(-duration_ns // (granularity_s * SECOND_NS)), granularity_s)
