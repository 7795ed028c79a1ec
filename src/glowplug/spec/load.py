"""What a revision was asked, averaged over time: Knative's request statistics.

Two requests of half a second each make an average of 1 over a second. Who lets requests through counts them in a
`RequestMeter`, who decides on them is given `Report`s. Source: knative.dev/networking pkg/http/stats/request.go; a test
compares the meter with that code. Times are nanoseconds; one that lies before the last is taken for the last.
"""

from __future__ import annotations

from dataclasses import dataclass

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Report:
    """One interval: requests in progress on average, and how many began."""

    concurrency: float
    requests: float


class RequestMeter:
    """Counts requests in and out. Not thread-safe: it belongs to one loop."""

    __slots__ = ("_area", "_changed_ns", "_in_use_s", "_requests", "in_flight")

    def __init__(self, now_ns: int) -> None:
        # Requests that have come in and not yet gone out.
        self.in_flight = 0
        self._changed_ns = now_ns
        self._begin()

    def request_in(self, now_ns: int) -> None:
        """A request arrived."""
        self._advance(now_ns)
        self._requests += 1
        self.in_flight += 1

    def request_out(self, now_ns: int) -> None:
        """A request that had arrived is done, or its client has gone."""
        self._advance(now_ns)
        self.in_flight -= 1

    def report(self, now_ns: int) -> Report:
        """The interval since the last report. An interval without length has no concurrency."""
        self._advance(now_ns)
        report = Report(self._area / self._in_use_s if self._in_use_s > 0 else 0.0, float(self._requests))
        self._begin()
        return report

    def _begin(self) -> None:
        self._requests = 0
        self._area = 0.0
        self._in_use_s = 0.0

    def _advance(self, now_ns: int) -> None:
        elapsed_ns = now_ns - self._changed_ns
        if elapsed_ns <= 0:
            return
        # Go's Duration.Seconds adds whole seconds and the rest, each as a float.
        elapsed_s = float(elapsed_ns // _SECOND_NS) + (elapsed_ns % _SECOND_NS) / 1e9
        self._in_use_s += elapsed_s
        self._area += self.in_flight * elapsed_s
        self._changed_ns = now_ns
