"""Concurrency as it is averaged over time, pure: the integral of the number in progress, not samples of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """Over some seconds: requests in progress on average, how many began, and how many are in progress at its end."""

    concurrency: float
    requests: int
    in_progress: int
    seconds: float


class Meter:
    """Counts what is in progress; `now` is monotonic, in seconds."""

    __slots__ = ("_area", "_began", "_changed_at", "_taken_at", "in_progress")

    def __init__(self, now: float) -> None:
        self.in_progress = 0
        self._began = 0
        self._area = 0.0
        self._changed_at = now
        self._taken_at = now

    def begin(self, now: float) -> None:
        """One more is in progress."""
        self._advance(now)
        self.in_progress += 1
        self._began += 1

    def end(self, now: float) -> None:
        """One less is."""
        self._advance(now)
        self.in_progress -= 1

    def take(self, now: float) -> Load:
        """The load since the last `take`; where no time has passed, the concurrency is that of the moment."""
        self._advance(now)
        seconds = now - self._taken_at
        average = self._area / seconds if seconds > 0 else float(self.in_progress)
        load = Load(average, self._began, self.in_progress, max(seconds, 0.0))
        self._area, self._began, self._taken_at = 0.0, 0, now
        return load

    def _advance(self, now: float) -> None:
        self._area += self.in_progress * max(now - self._changed_at, 0.0)
        self._changed_at = max(now, self._changed_at)
