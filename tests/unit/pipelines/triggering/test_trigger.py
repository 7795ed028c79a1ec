"""Events read as triggers: their episodes, and what is no trigger."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.registry.models import RegistryConfig
from glowplug.wire.events import CloudEvent, EventProblem
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.triggering import trigger
from glowplug_pipelines.triggering.keeper import config_map_name
from glowplug_pipelines.triggering.rules import rules_of
from glowplug_pipelines.triggering.trigger import RolloutEnded, Trigger, model_of, read

NOW = 1_700_000_000.0
Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def event(type: str, data: object, id: str = "1", source: str = "/s", **more: str) -> CloudEvent:
    attributes = {"specversion": "1.0", "type": type, "id": id, "source": source, **more}
    return CloudEvent(attributes, json.dumps(data).encode())


def a_pipeline(triggering: dict[str, Any]) -> Settings:
    return Settings("flights", "a:B", "", RegistryConfig("", ""), triggering=triggering)


def of(type: str, data: Any, id: str = "1", **more: str) -> Trigger:
    found = read(event(type, data, id, **more), NOW)
    assert isinstance(found, Trigger)
    return found


@pytest.mark.parametrize(
    "type, data, other",
    [
        (trigger.DRIFT, {"model": "m", "episode": "7"}, {"model": "m", "episode": "8"}),
        (
            trigger.DRIFT,
            {"model": "m", "episode": 1, "profile": "a"},
            {"model": "m", "episode": 1, "profile": "b"},
        ),
        (trigger.DATA, {"model": "m", "from": "a", "to": "b"}, {"model": "m", "from": "b", "to": "c"}),
        (
            trigger.ALERT,
            {"labels": {"model": "m", "x": "1"}, "startsAt": "t"},
            {"labels": {"model": "m", "x": "2"}, "startsAt": "t"},
        ),
    ],
)
def test_events_of_one_cause_have_one_episode(type: str, data: Any, other: Any) -> None:
    assert of(type, data, "1").episode == of(type, data, "2").episode
    assert of(type, data, "1").episode != of(type, other, "1").episode
    assert model_of(event(type, data)) == "m"


def test_each_request_is_a_cause_of_its_own() -> None:
    asked = {"model": "m"}
    assert of(trigger.REQUESTED, asked, "1").episode != of(trigger.REQUESTED, asked, "2").episode
    assert of(trigger.REQUESTED, {"model": "m", "force": True}).is_forced
    assert not of(trigger.DRIFT, {"model": "m", "force": True}).is_forced


def test_a_sender_whose_clock_is_ahead_is_not_the_newest_for_ever() -> None:
    assert of(trigger.REQUESTED, {"model": "m"}, time="2099-01-01T00:00:00Z").at == NOW
    assert of(trigger.REQUESTED, {"model": "m"}, time="2020-01-01T00:00:00Z").at == 1_577_836_800.0


def test_how_a_rollout_ended_is_read() -> None:
    data = {"namespace": "d", "name": "flights", "reason": "worse", "canary": {"predictor": "flights-2"}}
    found = read(event(trigger.ROLLED_BACK, data), NOW)
    assert isinstance(found, RolloutEnded) and not found.is_promoted
    assert (found.inference_service, found.reason, found.canary) == ("flights", "worse", data["canary"])


@settings(deadline=None)
@given(st.sampled_from([*trigger.TRIGGERS, *trigger.ROLLOUTS, "other"]), Json)
def test_whatever_the_data_are_they_are_read_or_refused(type: str, data: object) -> None:
    for reader in (lambda found: read(found, NOW), model_of):
        try:
            reader(event(type, data))
        except EventProblem as error:
            assert error.message


def test_all_that_is_wrong_with_the_rules_is_told_at_once() -> None:
    wrong = {"coolDownMinutes": "soon", "runsPerDay": 0, "inferenceService": "No", "speed": 1}
    with pytest.raises(ConfigError) as caught:
        rules_of(a_pipeline(wrong))
    for part in (
        "triggering.coolDownMinutes = 'soon'",
        "runsPerDay = 0",
        "inferenceService = 'No'",
        "triggering.speed is unknown",
    ):
        assert part in caught.value.message
    good = rules_of(a_pipeline({"coolDownMinutes": 30, "leaseSeconds": 20}))
    assert (good.cool_down_s, good.lease_s, good.inference_service) == (1800.0, 20.0, "flights")


def test_every_model_has_a_name_that_kubernetes_takes() -> None:
    assert config_map_name("flights") == "glowplug-retraining-flights"
    odd = config_map_name("Flights/Ärger")
    assert odd.startswith("glowplug-retraining-flights-rger-") and odd != config_map_name("flights-rger")
