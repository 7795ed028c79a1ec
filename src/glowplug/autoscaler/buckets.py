"""Averages over a sliding window, in buckets of a second, exactly as Knative's collector keeps them.

A bucket holds the sum of what was recorded in its second: one report of the activator and one of the pods together.
The average is over the buckets between the first and the last write, at most a window of them, so that a revision
that has existed for six seconds is judged by six seconds. A window without a write forgets everything.

Source: knative.dev/serving pkg/autoscaler/aggregation/bucketing.go. Times are nanoseconds since the epoch; they are
given, never read. The one difference: Go asks its clock when a window is resized, here the caller says.
"""

from __future__ import annotations

from . import floats

SECOND_NS = 1_000_000_000
_NEVER = -(2**80)  # before every time and further from it than any window
_SMOOTHING_MIN = 0.2
_WEIGHTS_LEFT = 0.0001


class LinearBuckets:
    """The average that counts every second of the window alike.

    `window_ns` is the window's length; `granularity_ns` a bucket's, in whole seconds.
    """

    def __init__(self, window_ns: int, granularity_ns: int = SECOND_NS) -> None:
        self._granularity_ns = granularity_ns
        self._window_ns = window_ns
        self._buckets = [0.0] * _count(window_ns, granularity_ns)
        self._total = 0.0
        self._first_ns = _NEVER
        self._last_ns = _NEVER

    def is_empty(self, now_ns: int) -> bool:
        """True if nothing was recorded within the window."""
        return self._truncated(now_ns) - self._last_ns > self._window_ns

    def record(self, now_ns: int, value: float) -> None:
        """Adds `value` to the bucket of `now_ns`; what is older than the window is ignored."""
        time_ns, index = self._truncated(now_ns), self._index(now_ns)
        if time_ns != self._last_ns:
            if time_ns + self._window_ns <= self._last_ns:
                return
            if self._first_ns == _NEVER or self._first_ns > time_ns:
                self._first_ns = time_ns
            if time_ns > self._last_ns:
                self._advance(time_ns, index)
        self._buckets[index % len(self._buckets)] += value
        self._total += value

    def _advance(self, time_ns: int, index: int) -> None:
        """Clears the buckets that were skipped, all of them after a window of silence."""
        if time_ns - self._last_ns >= self._window_ns:
            self._first_ns = time_ns
            self._buckets = [0.0] * len(self._buckets)
            self._total = 0.0
        else:
            for skipped in range(self._index(self._last_ns) + 1, index + 1):
                place = skipped % len(self._buckets)
                self._total -= self._buckets[place]
                self._buckets[place] = 0.0
        self._last_ns = time_ns

    def average(self, now_ns: int) -> float:
        """The average of a bucket over the window that ends at `now_ns`; 0 after a window of silence."""
        time_ns = self._truncated(now_ns)
        since_ns = time_ns - self._last_ns
        if since_ns <= 0:
            return floats.to_sixth_digit(self._total / min(self._written(), len(self._buckets)))
        if since_ns >= self._window_ns:
            return 0.0
        start, end = self._index(self._last_ns), self._index(time_ns)
        total = self._total
        for outdated in range(start + 1, end + 1):
            total -= self._buckets[outdated % len(self._buckets)]
        count = min(self._written(), len(self._buckets) - (end - start))
        return floats.to_sixth_digit(floats.divide(total, count))

    def resize(self, window_ns: int, now_ns: int) -> None:
        """Changes the window's length, keeping the newest buckets; a bucket's own length stays."""
        if window_ns == self._window_ns:
            return
        old, new = self._buckets, [0.0] * _count(window_ns, self._granularity_ns)
        total = 0.0
        if self._truncated(now_ns) - self._last_ns <= self._window_ns:
            newest = self._index(self._last_ns)
            for index in range(newest, newest - min(len(old), len(new)), -1):
                new[index % len(new)] = old[index % len(old)]
                total += old[index % len(old)]
            self._first_ns = self._last_ns - (len(old) - 1) * self._granularity_ns
        else:
            self._first_ns = _NEVER
        self._window_ns, self._buckets, self._total = window_ns, new, total

    def _written(self) -> int:
        """How many buckets lie between the first and the last write, both counted."""
        # Go's division cuts towards zero; a first write that was forgotten lies further back than any window.
        span_ns = self._last_ns - self._first_ns
        return int(span_ns / self._granularity_ns) + 1 if span_ns < 2**62 else len(self._buckets)

    def _truncated(self, time_ns: int) -> int:
        return time_ns - time_ns % self._granularity_ns

    def _index(self, time_ns: int) -> int:
        return (time_ns // SECOND_NS) // (self._granularity_ns // SECOND_NS)


class WeightedBuckets(LinearBuckets):
    """The average that weighs a second the more the newer it is (`weighted-exponential`).

    The weights fall geometrically: the newest has `s`, the next `s(1-s)`, ... where `s` is at least 0.2 and such that
    the whole window has a weight of 0.9999 together.
    """

    def __init__(self, window_ns: int, granularity_ns: int = SECOND_NS) -> None:
        super().__init__(window_ns, granularity_ns)
        self._smoothing = _smoothing(len(self._buckets))

    def resize(self, window_ns: int, now_ns: int) -> None:
        super().resize(window_ns, now_ns)
        self._smoothing = _smoothing(_count(window_ns, self._granularity_ns))

    def average(self, now_ns: int) -> float:
        """The weighted average over the window that ends at `now_ns`; it is not rounded."""
        if self.is_empty(now_ns):
            return 0.0
        weight, count = self._smoothing, len(self._buckets)
        silent = (self._truncated(now_ns) - self._last_ns) // self._granularity_ns
        if silent > 0:
            weight *= floats.power(1 - self._smoothing, float(silent))
            count -= silent
        newest, average = self._index(self._last_ns), 0.0
        for age in range(count):
            average += self._buckets[(newest - age) % len(self._buckets)] * weight
            weight *= 1 - self._smoothing
        return average


def _count(window_ns: int, granularity_ns: int) -> int:
    return -(-window_ns // granularity_ns)


def _smoothing(count: int) -> float:
    return max(1 - floats.power(_WEIGHTS_LEFT, 1 / count), _SMOOTHING_MIN)
