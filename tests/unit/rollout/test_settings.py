"""Annotations of a rollout: what they mean, and that all that is wrong is told at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.rollout import settings
from glowplug.rollout.settings import Action, Settings, parse_action

STEPS = "glowplug.dev/rollout-steps"
INTERVAL = "glowplug.dev/rollout-interval"
GATES = "glowplug.dev/rollout-gates"
ACTION = "glowplug.dev/rollout-action"


def parse(annotations: dict[str, str]) -> Settings | None:
    return settings.parse(annotations, frozenset({"errors", "latency"}))


def test_nothing_is_asked_without_steps() -> None:
    assert parse({}) is None
    assert parse({"glowplug.dev/warm-floor": "true"}) is None


def test_steps_end_with_all_and_the_rest_has_defaults() -> None:
    found = parse({STEPS: "10, 25,50"})
    assert found is not None
    assert found.steps == (10, 25, 50, 100)
    assert found.judged_steps == 3
    assert found.interval_s == 900
    assert [gate.metric for gate in found.gates] == ["errors", "latency", "latency"]


@pytest.mark.parametrize(
    ("text", "steps"), [("100", (100,)), ("1,100", (1, 100)), ("10,25,50,100", (10, 25, 50, 100))]
)
def test_steps_that_end_with_all_are_taken_as_they_are(text: str, steps: tuple[int, ...]) -> None:
    found = parse({STEPS: text})
    assert found is not None
    assert found.steps == steps


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ({STEPS: "10,25,25"}, "must rise, but 25 follows 25"),
        ({STEPS: "50,25"}, "must rise, but 25 follows 50"),
        ({STEPS: "0,10"}, "0 is not"),
        ({STEPS: "10,101"}, "101 is not"),
        ({STEPS: "-5"}, "with commas between, as 10,25,50,100"),
        ({STEPS: "10%"}, "with commas between"),
        ({STEPS: ""}, "with commas between"),
        ({STEPS: "10", INTERVAL: "soon"}, "must be a duration from 1s to 744h"),
        ({STEPS: "10", INTERVAL: "0s"}, "must be a duration from 1s to 744h"),
        ({STEPS: "10", INTERVAL: "-1m"}, "must be a duration from 1s to 744h"),
        ({STEPS: "10", GATES: "speed<=1x"}, "speed is unknown"),
        ({STEPS: "10", "glowplug.dev/rollout-step": "1"}, "rollout-step is no setting of a rollout"),
        ({STEPS: "10", GATES: "loss<=1.05x"}, "gates without a metric source: loss<=1.05x"),
    ],
)
def test_what_is_wrong_is_told(annotations: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(annotations)
    assert told in raised.value.message


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse({STEPS: "50,10", INTERVAL: "never", GATES: "x", "glowplug.dev/rollout-speed": "fast"})
    for key in (STEPS, INTERVAL, GATES, "glowplug.dev/rollout-speed"):
        assert key in raised.value.message


def test_an_action_is_one_of_four() -> None:
    assert parse_action({}) is None
    assert parse_action({ACTION: "promote"}) is Action.PROMOTE
    with pytest.raises(ConfigError, match="must be one of pause, resume, promote, abort"):
        parse_action({ACTION: "undo"})


@given(st.text(max_size=30), st.text(max_size=12))
def test_any_text_is_understood_or_refused(steps: str, interval: str) -> None:
    try:
        found = parse({STEPS: steps, INTERVAL: interval})
    except ConfigError as error:
        assert error.message
        return
    assert found is not None
    assert list(found.steps) == sorted(set(found.steps))
    assert found.steps[-1] == 100
    assert found.steps[0] >= 1
    assert 1 <= found.interval_s <= 744 * 3600
