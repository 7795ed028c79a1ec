"""PingSources: when they fire, through changes of time, what they send, and what is refused."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.pings import default_ping, parse_ping, ping_problems
from glowplug.spec.validation import Object


def ping(**spec: Any) -> Object:
    sink = {"sink": {"uri": "http://example.org"}}
    return default_ping({"metadata": {"name": "clock", "namespace": "ns"}, "spec": {**sink, **spec}})


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("schedule", "zone", "now", "then"),
    [
        ("*/5 * * * *", "", "2026-01-01T00:01:30", "2026-01-01T00:05:00"),
        ("*/10 * * * * *", "", "2026-01-01T00:00:01", "2026-01-01T00:00:10"),
        ("@hourly", "", "2026-01-01T00:00:00", "2026-01-01T01:00:00"),
        ("0 8 * * *", "Europe/Berlin", "2026-01-01T00:00:00", "2026-01-01T07:00:00"),
        ("0 8 * * *", "Europe/Berlin", "2026-07-01T00:00:00", "2026-07-01T06:00:00"),
        # 2:30 is not there on that day: at once when the clock has been put forward.
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),
    ],
)
def test_the_next_time(schedule: str, zone: str, now: str, then: str) -> None:
    assert parse_ping(ping(schedule=schedule, timezone=zone)).after(at(now)) == at(then)


def test_without_a_schedule_it_is_every_minute() -> None:
    assert parse_ping(ping()).after(at("2026-01-01T00:00:59.5")) == at("2026-01-01T00:01:00")


@given(st.integers(1_700_000_000, 1_900_000_000), st.sampled_from(["Europe/Berlin", "America/New_York", ""]))
def test_the_next_time_is_later(now: int, zone: str) -> None:
    spec = parse_ping(ping(schedule="*/7 * * * *", timezone=zone))
    following = spec.after(now)
    assert following is not None and now < following <= now + 2 * 3600


def test_the_event_has_the_overrides_and_the_data() -> None:
    overrides = {"extensions": {"origin": "a b", "type": "mine"}}
    spec = parse_ping(ping(dataBase64="AAE=", contentType="application/x", ceOverrides=overrides))
    headers, body = spec.event("id-1", at("2026-01-01T00:00:00"))
    assert body == b"\x00\x01" and headers["content-type"] == "application/x"
    assert headers["ce-origin"] == "a b" and headers["ce-type"] == "mine"
    assert headers["ce-source"] == "/apis/v1/namespaces/ns/pingsources/clock"
    assert (headers["ce-id"], headers["ce-time"]) == ("id-1", "2026-01-01T00:00:00.000Z")
    assert "content-type" not in parse_ping(ping()).event("id-2", 0.0)[0]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"schedule": "* * *"}, "spec.schedule"),
        ({"schedule": "99 * * * *"}, "spec.schedule"),
        ({"schedule": "@every 5s"}, "spec.schedule"),
        ({"schedule": "0 0 30 2 *"}, "spec.schedule"),
        ({"timezone": "Mars/Olympus"}, "spec.timezone"),
        ({"timezone": "../../etc/passwd"}, "spec.timezone"),
        ({"data": "a", "dataBase64": "AAE="}, "spec"),
        ({"dataBase64": "%"}, "spec.dataBase64"),
        ({"data": "{", "contentType": "application/json"}, "spec.data"),
        ({"data": "1", "contentType": "application/json"}, "spec.data"),
        ({"sink": {}}, "spec.sink"),
        ({"sink": {"uri": "/relative"}}, "spec.sink.uri"),
    ],
)
def test_what_is_wrong_is_said(spec: Object, field: str) -> None:
    assert [each.field for each in ping_problems(ping(**spec))] == [field]


def test_what_is_right_passes() -> None:
    assert not list(
        ping_problems(ping(data='{"a": 1}', contentType="application/json", timezone="Europe/Berlin"))
    )
