"""What is known of a canary and of the stable revision beside it, over the same time. Values.

Counts add up: the evidence of a step is the sum of the readings since it began.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """Latencies in seconds: `counts[i]` are at most `bounds_s[i]` and above the bound before; the last is above all.

    Bounds rise; there is one count more than bounds. `spread[i]` adds up, over the `readings` that this is the sum of,
    the square of those above `bounds_s[i]` over the requests of the reading: whether slow ones came evenly or all at
    once. Empty where that is not known.
    """

    bounds_s: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)
    readings: int = 0
    spread: tuple[float, ...] = ()


@dataclass(frozen=True)
class Moments:
    """Of a loss per labelled request: how many, their mean, and the sum of squared distances from it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True)
class Sample:
    """What one side answered: requests, those of them that failed on the server's side, latencies of the answers."""

    requests: int = 0
    errors: int = 0
    latency: Histogram = Histogram()
    loss: Moments = Moments()


@dataclass(frozen=True)
class Evidence:
    """Both sides over the same time."""

    canary: Sample = Sample()
    stable: Sample = Sample()


@dataclass(frozen=True)
class NoEvidence:
    """Nothing can be said; `why` is for the user."""

    why: str
