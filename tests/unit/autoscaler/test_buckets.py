from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler.buckets import LinearBuckets, WeightedBuckets
from glowplug.autoscaler.maximum import window

S = 10**9
EDGE = 1_000_000_000 * S


def recorded(values: dict[float, float], length_s: int = 10) -> LinearBuckets:
    buckets = LinearBuckets(length_s * S)
    for at, value in values.items():
        buckets.record(EDGE + int(at * S), value)
    return buckets


def test_a_young_revision_is_judged_by_its_own_seconds() -> None:
    assert recorded({0: 4, 1: 2}).average(EDGE + S) == 3


def test_reports_of_one_second_are_added() -> None:
    assert recorded({0.1: 4, 0.9: 2}).average(EDGE) == 6


def test_seconds_without_a_report_count_as_nothing() -> None:
    assert recorded({0: 6, 2: 6}).average(EDGE + 2 * S) == 4


def test_silence_does_not_lower_the_average() -> None:
    buckets = recorded(dict.fromkeys(range(10), 10))
    assert [buckets.average(EDGE + at * S) for at in (9, 14, 18, 19)] == [10, 10, 10, 0]


def test_a_window_without_a_write_forgets_everything() -> None:
    buckets = recorded({0: 100, 1: 100, 11: 3})
    assert buckets.average(EDGE + 11 * S) == 3


def test_a_late_report_goes_into_its_own_second_and_a_too_late_one_nowhere() -> None:
    buckets = recorded({20: 1, 19: 3, 10: 100})
    assert buckets.average(EDGE + 20 * S) == 2


def test_empty_is_not_the_same_as_zero() -> None:
    buckets = LinearBuckets(10 * S)
    assert buckets.is_empty(EDGE) and buckets.average(EDGE) == 0
    buckets.record(EDGE, 0)
    assert [buckets.is_empty(EDGE + at * S) for at in (0, 10, 11)] == [False, False, True]


def test_averages_have_six_digits() -> None:
    assert recorded({0: 1, 1: 0, 2: 0}).average(EDGE + 2 * S) == 0.333333


def test_a_resized_window_keeps_the_newest_seconds() -> None:
    buckets = recorded({second: float(second) for second in range(10)})
    buckets.resize(2 * S, EDGE + 9 * S)
    assert buckets.average(EDGE + 9 * S) == 8.5
    buckets.resize(4 * S, EDGE + 9 * S)
    assert buckets.average(EDGE + 9 * S) == 8.5
    buckets.resize(5 * S, EDGE + 99 * S)
    assert buckets.average(EDGE + 99 * S) == 0


def test_new_seconds_weigh_more() -> None:
    rising, falling = WeightedBuckets(6 * S), WeightedBuckets(6 * S)
    for at in range(6):
        rising.record(EDGE + at * S, at)
        falling.record(EDGE + at * S, 5 - at)
    assert rising.average(EDGE + 5 * S) > 4 > 1 > falling.average(EDGE + 5 * S)


def test_the_newest_second_has_a_fifth_at_least() -> None:
    buckets = WeightedBuckets(60 * S)
    buckets.record(EDGE, 10)
    assert buckets.average(EDGE) == 2
    assert buckets.average(EDGE + S) == pytest.approx(1.6)


def test_the_weights_of_a_full_window_add_up() -> None:
    for length_s in (1, 6, 60, 600):
        buckets = WeightedBuckets(length_s * S)
        for at in range(length_s):
            buckets.record(EDGE + at * S, 7)
        assert buckets.average(EDGE + (length_s - 1) * S) == pytest.approx(7, rel=2e-4)


WRITES = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 50)), min_size=1, max_size=60)


@given(WRITES, st.integers(1, 12), st.integers(0, 15))
def test_the_average_is_that_of_the_written_seconds(
    writes: list[tuple[int, int]], length: int, silence: int
) -> None:
    buckets, sums, at, first = LinearBuckets(length * S), {}, 0, 0
    for gap, value in writes:
        if not sums or gap >= length:
            sums, first = {}, at + gap  # a new life: nothing was written for a window
        at += gap
        buckets.record(EDGE + at * S, value)
        sums[at] = sums.get(at, 0) + value
    now = at + silence
    begin = max(first, now - length + 1)
    seconds = at - begin + 1
    wanted = (
        sum(value for second, value in sums.items() if second >= begin) / seconds if silence < length else 0
    )
    assert buckets.average(EDGE + now * S) == pytest.approx(wanted, abs=1e-6)


@given(
    st.lists(st.tuples(st.sampled_from([0, 0.5, 1, 2, 3, 9]), st.integers(0, 9)), min_size=1),
    st.integers(1, 9),
)
def test_the_delay_window_has_the_largest_of_its_buckets(
    steps: list[tuple[float, int]], delay_s: int
) -> None:
    found, at, seen = window(delay_s * S, 2), 0.0, []
    for gap, value in steps:
        at += gap
        found = found.recorded(EDGE + int(at * S), value)
        seen.append((int(at) // 2, value))
        assert found.current == max(v for bucket, v in seen if int(at) // 2 - bucket < found.size)
        assert len(found.maxima) <= found.size == -(-delay_s // 2)
