"""The concurrency of whoever handles requests, weighted by time: Knative's request statistics.

Two requests of half a second each make an average of 1 over a second. Whoever reports (once a second, as a pod's
proxy and the activator do) asks `report`, which begins a new interval. Source: knative.dev/networking
pkg/http/stats/request.go. Times are nanoseconds; one that lies before the last is taken for the last.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One reporter's interval: average requests in flight, requests that arrived, and the part of each that came
    through the activator, which reports them itself."""

    concurrency: float
    requests: float
    proxied_concurrency: float = 0.0
    proxied_requests: float = 0.0


class RequestMeter:
    """Counts requests in and out. Not thread-safe: it belongs to one loop."""

    def __init__(self, now_ns: int) -> None:
        self._changed_ns = now_ns
        self._in_flight = 0
        self._proxied_in_flight = 0
        self._begin()

    @property
    def in_flight(self) -> int:
        """Requests that have come in and not yet gone out."""
        return self._in_flight

    def request_in(self, now_ns: int, *, is_proxied: bool = False) -> None:
        """A request arrived; `is_proxied` if the activator sent it."""
        self._advance(now_ns)
        self._requests += 1
        self._in_flight += 1
        if is_proxied:
            self._proxied_requests += 1
            self._proxied_in_flight += 1

    def request_out(self, now_ns: int, *, is_proxied: bool = False) -> None:
        """A request that had arrived is done, or its client has gone."""
        self._advance(now_ns)
        self._in_flight -= 1
        if is_proxied:
            self._proxied_in_flight -= 1

    def report(self, now_ns: int) -> Report:
        """The interval since the last report. An interval without length has no concurrency."""
        self._advance(now_ns)
        in_use = self._in_use_s
        report = Report(
            concurrency=self._area / in_use if in_use > 0 else 0.0,
            requests=float(self._requests),
            proxied_concurrency=self._proxied_area / in_use if in_use > 0 else 0.0,
            proxied_requests=float(self._proxied_requests),
        )
        self._begin()
        return report

    def _begin(self) -> None:
        self._requests = 0
        self._proxied_requests = 0
        self._area = 0.0
        self._proxied_area = 0.0
        self._in_use_s = 0.0

    def _advance(self, now_ns: int) -> None:
        elapsed_ns = now_ns - self._changed_ns
        if elapsed_ns <= 0:
            return
        # Go's Duration.Seconds adds whole seconds and the rest, each as a float.
        elapsed_s = float(elapsed_ns // 1_000_000_000) + (elapsed_ns % 1_000_000_000) / 1e9
        self._in_use_s += elapsed_s
        self._area += self._in_flight * elapsed_s
        self._proxied_area += self._proxied_in_flight * elapsed_s
        self._changed_ns = now_ns
