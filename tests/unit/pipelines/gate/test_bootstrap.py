"""Intervals over whole days: they cover what they promise, and slices looked at together raise few false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug_pipelines.gate.bootstrap import Resampling, simultaneous_lows, stretch, widened_level


def _days_that_differ(
    chance: np.random.Generator, days: int, correlation: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """(day, value) of rows with mean 0, skewed, those of a day alike, and each day somewhat like the one before."""
    day = np.repeat(np.arange(days), chance.integers(20, 40, days))
    effects = chance.standard_normal(days)
    for each in range(1, days):
        effects[each] = correlation * effects[each - 1] + np.sqrt(1 - correlation**2) * effects[each]
    return day, effects[day] + 3 * chance.standard_exponential(len(day)) - 3


@pytest.mark.parametrize("days", [7, 14])
def test_the_interval_covers_the_mean_as_often_as_it_says(days: int) -> None:
    """Of 400 samples 95 % are to cover; a percentile interval without widening covers 87 to 91 %."""
    chance = np.random.default_rng(5)
    covered = plain = 0
    for seed in range(400):
        day, values = _days_that_differ(chance, days)
        resampling = Resampling.of(day, 800, seed)
        interval = resampling.interval(values, 0.05)
        covered += interval.low <= 0 <= interval.high
        low, high = np.quantile(resampling.means(values), [0.025, 0.975])
        plain += low <= 0 <= high
    assert 0.92 <= covered / 400 <= 0.985
    assert plain < covered


@pytest.mark.parametrize("days", [5, 14])
def test_the_interval_covers_where_a_day_is_like_the_one_before(days: int) -> None:
    chance = np.random.default_rng(6)
    covered = unstretched = 0
    for seed in range(400):
        day, values = _days_that_differ(chance, days, correlation=0.2)
        interval = Resampling.of(day, 800, seed, correlation=0.2).interval(values, 0.05)
        covered += interval.low <= 0 <= interval.high
        interval = Resampling.of(day, 800, seed).interval(values, 0.05)
        unstretched += interval.low <= 0 <= interval.high
    assert 0.92 <= covered / 400 <= 0.985
    # 90 % of 400 are 360, give or take 6.
    assert unstretched / 400 < 0.92


def test_rows_of_a_day_are_not_independent() -> None:
    """Were rows drawn one by one, the interval would be several times too narrow."""
    day, values = _days_that_differ(np.random.default_rng(3), 14)
    by_day = Resampling.of(day, 2000, 1).interval(values, 0.05)
    by_row = Resampling.of(np.arange(len(day)), 2000, 1).interval(values, 0.05)
    assert by_day.high - by_day.low > 1.5 * (by_row.high - by_row.low)


def test_slices_looked_at_together_raise_few_false_alarms() -> None:
    chance = np.random.default_rng(11)
    alarms = 0
    for seed in range(200):
        day, values = _days_that_differ(chance, 14)
        column = chance.integers(0, 20, len(day))
        bounds = simultaneous_lows(
            Resampling.of(day, 500, seed), [(values, column == each) for each in range(20)], 0.05
        )
        alarms += any(bound.low > 0 for bound in bounds)
    # 5 % are promised: beyond 20 of 200 with a chance of 1 in 1000.
    assert alarms <= 20


def test_few_days_widen() -> None:
    assert widened_level(0.025, 5) < widened_level(0.025, 14) < widened_level(0.025, 365) < 0.025


def test_independent_days_are_not_stretched_and_alike_ones_are() -> None:
    assert stretch(0.025, 14, 0.0) == 1.0
    assert 1.0 < stretch(0.025, 14, 0.2) < stretch(0.025, 7, 0.2) < stretch(0.025, 7, 0.4)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(lambda days: len(set(days)) > 1))
def test_a_mean_is_that_of_the_rows_and_lies_within(days: list[int]) -> None:
    values = np.arange(len(days), dtype=np.float64)
    resampling = Resampling.of(np.array(days), 200, 1)
    interval = resampling.interval(values, 0.05)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low <= interval.high
    assert values.min() <= interval.low
    assert interval.high <= values.max()
    assert (interval.shifted(1).low, interval.days) == (interval.low + 1, len(set(days)))


def test_no_parts_have_no_bounds() -> None:
    assert simultaneous_lows(Resampling.of(np.array([1, 2]), 200, 1), [], 0.05) == []
