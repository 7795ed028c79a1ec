"""What counters say of the concurrency, held against requests of which everything is known."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler.rates import Counters, report_between

# (start, duration) in milliseconds.
REQUESTS = st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 8_000)), max_size=60)


def reading(requests: list[tuple[int, int]], at_ms: int) -> Counters:
    sent = [(start, length) for start, length in requests if start <= at_ms]
    over = [length for start, length in sent if start + length <= at_ms]
    return Counters(len(sent), len(sent) - len(over), sum(over) * 1000)


@given(REQUESTS)
def test_over_a_whole_trace_no_request_is_lost(requests: list[tuple[int, int]]) -> None:
    ends = [reading(requests, second * 1000) for second in range(31)]
    reports = [report_between(a, b, 1.0) for a, b in pairwise(ends)]
    at_start = reading(requests, 0).requests
    assert sum(report.requests for report in reports) == len(requests) - at_start
    assert all(report.concurrency >= 0 for report in reports)
    most = max((end.in_progress for end in ends), default=0)
    busy_most = max((b.busy_us - a.busy_us for a, b in pairwise(ends)), default=0) / 1e6
    assert all(report.concurrency <= max(most, 1.5 * busy_most + most) for report in reports)


@pytest.mark.parametrize("length_ms", [1, 20, 300, 900, 2500, 10_000])
@pytest.mark.parametrize("every_ms", [7, 50, 400])
def test_a_steady_stream_is_seen_as_it_is(length_ms: int, every_ms: int) -> None:
    requests = [(start, length_ms) for start in range(0, 60_000, every_ms)]
    reports = [
        report_between(reading(requests, s * 1000), reading(requests, s * 1000 + 1000), 1.0)
        for s in range(20, 50)
    ]
    mean = sum(report.concurrency for report in reports) / len(reports)
    assert mean == pytest.approx(length_ms / every_ms, rel=0.1)


def test_an_ingress_that_started_anew_counts_from_zero() -> None:
    report = report_between(Counters(1000, 3, 5_000_000), Counters(10, 0, 100_000), 1.0)
    assert (report.requests, report.concurrency) == (10, pytest.approx(0.1))
