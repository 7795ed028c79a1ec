"""RFC 3339 on every supported Python: 3.10 itself reads no `Z`, and only 3 or 6 digits of a second."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.times import parse_time

WHOLE = datetime(2026, 3, 1, 11, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-03-01T11:00:00Z", 0),
        ("2026-03-01T12:00:00+01:00", 0),
        ("2026-03-01T11:00:00", 0),
        ("2026-03-01T11:00:00.5Z", 500_000),
        ("2026-03-01T11:00:00.000001z", 1),
        ("2026-03-01T12:00:00.123456789+01:00", 123_456),
    ],
)
def test_every_form_is_read(text: str, microseconds: int) -> None:
    assert parse_time(text) == WHOLE + timedelta(microseconds=microseconds)


@pytest.mark.parametrize(
    "text",
    [None, "", 3, "yesterday", "2026-13-01T00:00:00Z", "2026-03-01T11:00:00.Z.", "0001-01-01T00:00:00+14:00"],
)
def test_what_is_no_time_is_none(text: object) -> None:
    assert parse_time(text) is None


@given(st.text("0123456789-T:.Zz+ ", max_size=40))
def test_any_text_is_answered(text: str) -> None:
    found = parse_time(text)
    assert found is None or found.tzinfo is timezone.utc


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(timezone.utc)))
def test_what_is_written_is_read(moment: datetime) -> None:
    assert parse_time(moment.isoformat().replace("+00:00", "Z")) == moment
