"""Floors by the clock."""

from __future__ import annotations

import zoneinfo
from datetime import datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from glowplug.warmfloor.schedule import Schedule

UTC = zoneinfo.ZoneInfo("UTC")


def schedule(text: str, zone: str = "UTC") -> Schedule:
    return Schedule.parse(text, zoneinfo.ZoneInfo(zone), 100)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def replicas(found: Schedule, text: str) -> int:
    entry = found.at(at(text))
    assert entry is not None
    return entry.replicas


def test_the_entry_that_matched_last_holds() -> None:
    work = schedule("0 8 * * 1-5=3; 0 20 * * *=1")
    # 2026-11-20 is a Friday.
    assert replicas(work, "2026-11-20T07:59:59") == 1
    assert replicas(work, "2026-11-20T08:00:00") == 3
    assert replicas(work, "2026-11-20T19:59:59") == 3
    assert replicas(work, "2026-11-20T20:00:00") == 1
    assert replicas(work, "2026-11-22T12:00:00") == 1
    assert replicas(schedule("0 8 * * *=2; 0 8 * * *=5"), "2026-11-20T09:00:00") == 5
    assert Schedule().at(at("2026-11-20T09:00:00")) is None


def test_it_is_raised_ahead_and_lowered_on_time() -> None:
    work = schedule("0 8 * * *=3; 0 20 * * *=1")

    def between(text: str) -> int:
        entry = work.between(at(text), at(text) + 30)
        assert entry is not None
        return entry.replicas

    assert between("2026-11-20T07:59:29") == 1
    assert between("2026-11-20T07:59:30") == 3
    assert between("2026-11-20T19:59:59") == 3
    assert between("2026-11-20T20:00:00") == 1


def test_a_time_zone_keeps_its_clock_through_daylight_saving() -> None:
    berlin = schedule("0 8 * * *=3; 0 20 * * *=1", "Europe/Berlin")
    assert replicas(berlin, "2026-07-01T05:59:59") == 1 and replicas(berlin, "2026-07-01T06:00:00") == 3
    assert replicas(berlin, "2026-12-01T06:59:59") == 1 and replicas(berlin, "2026-12-01T07:00:00") == 3


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 23), st.integers(0, 9)), min_size=1, max_size=4),
    st.integers(0, 3 * 86400),
)
def test_it_agrees_with_walking_back_minute_by_minute(
    entries: list[tuple[int, int, int]], offset_s: int
) -> None:
    text = ";".join(f"{minute} {hour} * * *={count}" for minute, hour, count in entries)
    moment = datetime(2026, 11, 20, tzinfo=timezone.utc) + timedelta(seconds=offset_s)
    walked = moment.replace(second=0)
    while not (
        found := [count for minute, hour, count in entries if (minute, hour) == (walked.minute, walked.hour)]
    ):
        walked -= timedelta(minutes=1)
    entry = Schedule.parse(text, UTC, 100).at(moment.timestamp())
    assert entry is not None and entry.replicas == found[-1]
