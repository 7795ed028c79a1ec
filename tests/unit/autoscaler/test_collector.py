from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler.collector import Collector, from_sample
from glowplug.autoscaler.decider import NoData, Observation
from glowplug.autoscaler.meter import Report, RequestMeter
from glowplug.autoscaler.parameters import Windows

S = 10**9
EDGE = 1_000_000_000 * S
WINDOWS = Windows(60 * S, 6 * S, is_weighted=False, is_scraped=True)


def test_two_halves_of_a_second_make_one() -> None:
    meter = RequestMeter(0)
    for at in (0, S // 2):
        meter.request_in(at)
        meter.request_out(at + S // 2)
    assert meter.report(S) == Report(concurrency=1.0, requests=2.0)
    assert meter.report(2 * S) == Report(0.0, 0.0)


def test_requests_in_flight_count_in_the_next_interval_too() -> None:
    meter = RequestMeter(0)
    meter.request_in(0, is_proxied=True)
    meter.report(S)
    assert (meter.in_flight, meter.report(2 * S)) == (1, Report(1.0, 0.0, 1.0, 0.0))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**9)), max_size=40))
def test_the_area_under_the_requests_is_kept(events: list[tuple[bool, int]]) -> None:
    meter, now, inside, area = RequestMeter(0), 0, 0, 0
    for is_in, gap in events:
        now, area = now + gap, area + inside * gap
        if is_in or not inside:
            meter.request_in(now)
            inside += 1
        else:
            meter.request_out(now)
            inside -= 1
    assert meter.in_flight == inside
    assert meter.report(now + S).concurrency == pytest.approx((area + inside * S) / (now + S))


def test_what_the_activator_counted_is_not_counted_again() -> None:
    collector = Collector(WINDOWS)
    collector.record(EDGE, Report(concurrency=5, requests=50, proxied_concurrency=5, proxied_requests=50))
    collector.record(EDGE, Report(concurrency=7, requests=70))
    assert collector.observe("concurrency", 2, EDGE) == Observation(2, 7, 7)
    assert collector.observe("rps", 2, EDGE) == Observation(2, 70, 70)


def test_the_panic_window_is_the_shorter_one() -> None:
    collector = Collector(WINDOWS)
    for at in range(60):
        collector.record(EDGE + at * S, Report(10 if at < 54 else 100, 0))
    assert collector.observe("concurrency", 1, EDGE + 59 * S) == Observation(1, 19, 100)


def test_silence_is_no_data_where_pods_are_asked() -> None:
    silent = Collector(WINDOWS).observe("concurrency", 1, EDGE)
    assert isinstance(silent, NoData)
    behind = Collector(Windows(60 * S, 6 * S, is_weighted=False, is_scraped=False))
    assert behind.observe("concurrency", 1, EDGE) == Observation(1, 0, 0)
    assert isinstance(behind.observe("concurrency", None, EDGE), NoData)


def test_new_windows_keep_what_was_measured() -> None:
    collector = Collector(WINDOWS)
    for at in range(10):
        collector.record(EDGE + at * S, Report(at, 0))
    collector.resize(Windows(4 * S, 2 * S, is_weighted=False, is_scraped=True), EDGE + 9 * S)
    assert collector.observe("concurrency", 1, EDGE + 9 * S) == Observation(1, 7.5, 8.5)


def test_some_pods_stand_for_all() -> None:
    found = from_sample([Report(1, 10), Report(3, 30)], 8)
    assert found == Report(16, 160)
