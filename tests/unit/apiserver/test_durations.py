"""Ages as text. The table of cases is what Kubernetes' own function gives for these durations."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver.durations import age, human_duration
from glowplug.spec.times import parse_time

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400
NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1.5, "0s"),
        (-0.5, "0s"),
        (0, "0s"),
        (1, "1s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 1, "2m1s"),
        (10 * MINUTE - 1, "9m59s"),
        (10 * MINUTE, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + MINUTE, "3h1m"),
        (8 * HOUR - 1, "7h59m"),
        (8 * HOUR, "8h"),
        (2 * DAY - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + HOUR, "2d1h"),
        (8 * DAY - 1, "7d23h"),
        (8 * DAY, "8d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + DAY, "2y1d"),
        (8 * YEAR - 1, "7y364d"),
        (8 * YEAR, "8y"),
    ],
)
def test_as_kubernetes_prints_it(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@given(st.integers(min_value=0, max_value=20 * YEAR))
def test_never_overstates_and_loses_at_most_a_sixth(seconds: int) -> None:
    units = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "y": YEAR}
    told, number = 0, ""
    for letter in human_duration(seconds):
        if letter.isdigit():
            number += letter
        else:
            told, number = told + int(number) * units[letter], ""
    assert told <= seconds
    assert seconds - told <= seconds / 6


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T11:00:00Z",
        "2026-03-01T11:00:00.000000Z",
        "2026-03-01T12:00:00+01:00",
        "2026-03-01T11:00:00.5Z",
    ],
)
def test_reads_every_form_of_timestamp(text: str) -> None:
    found = parse_time(text)
    assert found is not None
    assert abs(found - (NOW - timedelta(hours=1))) < timedelta(seconds=1)
    assert age(text, NOW) in ("60m", "59m")


@pytest.mark.parametrize("text", [None, "", 3, "yesterday", "2026-13-01T00:00:00Z"])
def test_what_is_no_timestamp_has_no_age(text: object) -> None:
    assert parse_time(text) is None
    assert age(text, NOW) == "<unknown>"
