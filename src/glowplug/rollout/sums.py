"""Evidence added up over time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from glowplug.rollout.evidence import Evidence, Histogram, Moments, Sample


def sum_of(readings: Iterable[Evidence]) -> Evidence:
    """All of these together."""
    total = Evidence()
    for one in readings:
        total = Evidence(added(total.canary, one.canary), added(total.stable, one.stable))
    return total


def added(one: Sample, other: Sample) -> Sample:
    """Both together."""
    return Sample(
        one.requests + other.requests,
        one.errors + other.errors,
        _histogram(one.latency, other.latency),
        _moments(one.loss, other.loss),
    )


def reading(bounds_s: tuple[float, ...], counts: tuple[int, ...]) -> Histogram:
    """The histogram of one reading."""
    total = sum(counts)
    if not total:
        return Histogram(bounds_s, counts)
    above = [total - within for within in accumulate(counts[:-1])]
    return Histogram(bounds_s, counts, 1, tuple(number * number / total for number in above))


def _histogram(one: Histogram, other: Histogram) -> Histogram:
    """With the bounds of both: where one lacks a bound that the other has, it has nothing on either side of it."""
    bounds = tuple(sorted({*one.bounds_s, *other.bounds_s}))
    within: dict[float, int] = dict.fromkeys(bounds, 0)
    for histogram in (one, other):
        for bound, count in zip(histogram.bounds_s, histogram.counts, strict=False):
            within[bound] += count
    counts = (*(within[bound] for bound in bounds), one.counts[-1] + other.counts[-1])
    if any(sum(each.counts) and not each.readings for each in (one, other)):
        return Histogram(bounds, counts)
    spread = tuple(a + b for a, b in zip(_spread(one, bounds), _spread(other, bounds), strict=True))
    return Histogram(
        bounds, counts, one.readings + other.readings, spread if one.readings + other.readings else ()
    )


def _spread(histogram: Histogram, bounds: tuple[float, ...]) -> list[float]:
    """The spread for more bounds: all requests are above one that is below theirs."""
    known = dict(zip(histogram.bounds_s, histogram.spread, strict=False))
    found, before = [], float(sum(histogram.counts))
    for bound in bounds:
        before = known.get(bound, before)
        found.append(before)
    return found


def _moments(one: Moments, other: Moments) -> Moments:
    """Chan, Golub, LeVeque 1979."""
    count = one.count + other.count
    if not one.count or not other.count:
        return one if one.count else other
    apart = other.mean - one.mean
    mean = one.mean + apart * other.count / count
    squares = one.squares + other.squares + apart * apart * one.count * other.count / count
    return Moments(count, mean, squares)
