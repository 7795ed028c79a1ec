from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.load import Report, RequestMeter

S = 10**9


def test_two_halves_of_a_second_make_one() -> None:
    meter = RequestMeter(0)
    for at in (0, S // 2):
        meter.request_in(at)
        meter.request_out(at + S // 2)
    assert meter.report(S) == Report(concurrency=1.0, requests=2.0)
    assert meter.report(2 * S) == Report(0.0, 0.0)


def test_requests_in_flight_count_in_the_next_interval_too() -> None:
    meter = RequestMeter(0)
    meter.request_in(0)
    meter.report(S)
    assert (meter.in_flight, meter.report(2 * S)) == (1, Report(1.0, 0.0))


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
