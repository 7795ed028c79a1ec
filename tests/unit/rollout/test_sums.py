"""Adding evidence up loses nothing and does not depend on the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.rollout.evidence import Evidence, Histogram, Moments, Sample
from glowplug.rollout.sums import added, reading, sum_of

BOUNDS = (0.1, 0.2, 0.4, 0.8)
LOSSES = st.lists(st.floats(-100, 100), max_size=20)


def moments(losses: list[float]) -> Moments:
    if not losses:
        return Moments()
    mean = sum(losses) / len(losses)
    return Moments(len(losses), mean, sum((loss - mean) ** 2 for loss in losses))


@given(LOSSES, LOSSES)
def test_moments_are_those_of_all_losses(one: list[float], other: list[float]) -> None:
    found = added(Sample(loss=moments(one)), Sample(loss=moments(other))).loss
    wanted = moments(one + other)
    assert found.count == wanted.count
    assert found.mean == pytest.approx(wanted.mean, abs=1e-6)
    assert found.squares == pytest.approx(wanted.squares, abs=1e-4)


def test_histograms_of_different_bounds_are_merged() -> None:
    """The machine's page names the bounds between which a revision answered."""
    one = Sample(3, 1, Histogram((0.1, 0.2), (0, 3, 0)))
    other = Sample(5, 0, Histogram((0.4, 0.8), (0, 4, 1)))
    assert added(one, other) == Sample(8, 1, Histogram((0.1, 0.2, 0.4, 0.8), (0, 3, 0, 4, 1)))
    assert added(one, Sample()) == one
    assert added(Sample(), one) == one


@given(st.lists(st.lists(st.integers(0, 100), min_size=5, max_size=5), max_size=6))
def test_the_spread_is_that_of_all_readings(all_counts: list[list[int]]) -> None:
    readings = [Evidence(Sample(latency=reading(BOUNDS, tuple(counts)))) for counts in all_counts]
    found = sum_of(readings).canary.latency
    asked = [counts for counts in all_counts if sum(counts)]
    assert found.readings == len(asked)
    for number, spread in enumerate(found.spread):
        wanted = sum(sum(counts[number + 1 :]) ** 2 / sum(counts) for counts in asked)
        assert spread == pytest.approx(wanted)


def test_the_spread_of_a_reading_goes_on_beyond_its_bounds() -> None:
    """A bound below its fastest answer has all of them above it, one above its slowest none."""
    fast = Evidence(Sample(latency=reading((0.1, 0.2), (0, 4, 0))))
    slow = Evidence(Sample(latency=reading((0.4, 0.8), (0, 10, 0))))
    for found in (sum_of([fast, slow]), sum_of([slow, fast])):
        assert found.canary.latency == Histogram(
            (0.1, 0.2, 0.4, 0.8), (0, 4, 0, 10, 0), 2, (14.0, 10.0, 10.0, 0.0)
        )


def test_without_readings_the_spread_is_not_known() -> None:
    known = Evidence(Sample(latency=reading((0.1,), (3, 1))))
    unknown = Evidence(Sample(latency=Histogram((0.1,), (3, 1))))
    assert sum_of([known, unknown]).canary.latency == Histogram((0.1,), (6, 2))
    assert sum_of([known, Evidence()]).canary.latency == known.canary.latency


@given(st.lists(st.lists(st.integers(0, 100), min_size=5, max_size=5), max_size=6))
def test_sums_do_not_depend_on_the_order(all_counts: list[list[int]]) -> None:
    readings = [
        Evidence(Sample(sum(counts), counts[0], Histogram(BOUNDS, tuple(counts))), Sample(counts[1]))
        for counts in all_counts
    ]
    assert sum_of(readings) == sum_of(reversed(readings))
    assert sum_of(readings).canary.requests == sum(map(sum, all_counts))
