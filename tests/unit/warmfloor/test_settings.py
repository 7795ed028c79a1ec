"""The annotations of the warm floor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.warmfloor.settings import KEYS, Settings, parse

ON = {"glowplug.dev/warm-floor": "true"}


def asked(**values: str) -> dict[str, str]:
    return {
        **ON,
        **{f"glowplug.dev/warm-floor-{key.replace('_', '-')}": value for key, value in values.items()},
    }


def test_nothing_is_asked_without_the_annotation() -> None:
    assert parse({}) is None
    assert parse({"glowplug.dev/warm-floor": "false", "glowplug.dev/warm-floor-min": "x"}) is None
    assert parse({"glowplug.dev/warm-floor-min": "3"}) is None


def test_defaults_and_values() -> None:
    assert parse(ON) == Settings()
    found = parse(
        asked(min="1", max="7", season="168h", quantile="0.8", schedule="0 8 * * 1-5=3;0 20 * * *=1")
    )
    assert found is not None
    assert (found.minimum, found.maximum, found.season_s, found.quantile) == (1, 7, 604800.0, 0.8)
    assert [(entry.cron, entry.replicas) for entry in found.schedule.entries] == [
        ("0 8 * * 1-5", 3),
        ("0 20 * * *", 1),
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"min": "-1"}, 'warm-floor-min = "-1", must be a whole number from 0 to 1000'),
        ({"max": "1001"}, 'warm-floor-max = "1001", must be a whole number'),
        ({"min": "5", "max": "4"}, "warm-floor-min = 5, must not be more than glowplug.dev/warm-floor-max"),
        ({"min": "11"}, "must not be more than glowplug.dev/warm-floor-max, which is 10"),
        ({"season": "30s"}, 'warm-floor-season = "30s", must be a duration from 1m'),
        ({"season": "a day"}, 'warm-floor-season = "a day"'),
        ({"quantile": "1"}, 'warm-floor-quantile = "1", must be a number from 0.5 to 0.999'),
        ({"quantile": "nan"}, 'warm-floor-quantile = "nan"'),
        ({"time_zone": "Nowhere/City"}, "must be a time zone's name"),
        ({"time_zone": "../etc/passwd"}, "must be a time zone's name"),
        ({"schedule": "0 8 * *=3"}, '"0 8 * *" is no cron expression of 5 or 6 fields'),
        ({"schedule": "0 8 * * *=x"}, '"0 8 * * *=x" is not'),
        ({"schedule": "0 8 * * *=1001"}, "with 0 to 1000 replicas"),
        ({"schedule": "0 0 30 2 *=1"}, '"0 0 30 2 *" is no cron expression'),
        ({"schedule": ";"}, "must be 1 to 50 entries"),
        ({"slo": "5"}, "glowplug.dev/warm-floor-slo is no setting of the warm floor"),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(asked(**values))
    assert words in raised.value.message


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse(asked(min="x", quantile="y"))
    assert "warm-floor-min" in raised.value.message and "warm-floor-quantile" in raised.value.message
    with pytest.raises(ConfigError, match='must be "true" or "false"'):
        parse({"glowplug.dev/warm-floor": "yes"})


@given(
    st.dictionaries(
        st.sampled_from(KEYS), st.text(max_size=30) | st.sampled_from(["true", "3", "1h", "* * * * *=2"])
    )
)
def test_any_text_is_read_or_refused(annotations: dict[str, str]) -> None:
    try:
        found = parse(annotations)
    except ConfigError:
        return
    assert found is None or 0 <= found.minimum <= found.maximum <= 1000
