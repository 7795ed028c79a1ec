"""What is stored in place of an InferenceService that somebody writes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from unit.rollout.rollout_lab import KServe, container, service

from glowplug.errors import ConfigError, Invalid
from glowplug.rollout import record
from glowplug.rollout.admission import admit
from glowplug.rollout.state import Member, Phase, State
from glowplug.spec import names

Object = dict[str, Any]
METRICS = frozenset({"errors", "latency"})
NOW = 1000.0


def stored(*components: str, **annotations: str) -> Object:
    """As it lies in the API after its first version has been rolled out."""
    asked = annotations or {"rollout_steps": "10,50"}
    return copy.deepcopy(KServe(service(*components, **asked)).isvc)


def edited(old: Object, *components: str, version: str = "two") -> Object:
    new = copy.deepcopy(old)
    for name in components or ("predictor",):
        percent = new["spec"][name].get("canaryTrafficPercent")
        new["spec"][name] = container(version)
        if percent is not None:
            new["spec"][name]["canaryTrafficPercent"] = percent
    return new


def with_state(isvc: Object, state: State) -> Object:
    found = copy.deepcopy(isvc)
    found["metadata"]["annotations"][names.ROLLOUT_STATE] = record.dump(state)
    for name in state.members if state.weight is not None else ():
        found["spec"][name]["canaryTrafficPercent"] = state.weight
    return found


def state_of(isvc: Object) -> State:
    found = record.load(isvc["metadata"]["annotations"][names.ROLLOUT_STATE])
    assert found is not None
    return found


def admitted(old: Object | None, new: Object) -> Object:
    """What is stored; asked a second time, as the API may, it stays so."""
    before = copy.deepcopy(new)
    found = admit(old, new, METRICS, NOW)
    assert new == before
    assert found != new
    again = admit(old, copy.deepcopy(found or new), METRICS, NOW + 1)
    assert again is None
    return found or new


MEMBER = Member("f-predictor-00001", "f-predictor-00001", "f-predictor-00002")
MIDWAY = State(Phase.PROGRESSING, {"predictor": MEMBER}, weight=50, since=900.0, started=800.0)


def test_a_changed_container_gets_no_requests_in_the_same_write() -> None:
    old = stored()
    found = admitted(old, edited(old))
    assert found["spec"]["predictor"]["canaryTrafficPercent"] == 0
    state = state_of(found)
    assert state.phase is Phase.STARTING
    assert state.members["predictor"].stable == "f-predictor-00001"


@pytest.mark.parametrize(
    "change",
    [
        {"minReplicas": 3},
        {"scaleTarget": 5},
        {"canaryTrafficPercent": None},
        {"labels": {"team": "a"}},
        {"timeout": 30},
    ],
)
def test_what_is_no_new_version_is_left_alone(change: Object) -> None:
    old = stored()
    new = copy.deepcopy(old)
    new["spec"]["predictor"].update(change)
    new["metadata"]["annotations"]["example.com/note"] = "x"
    assert admitted(old, new) == new


def test_the_first_version_takes_all_requests() -> None:
    new = service(rollout_steps="10,50")
    assert admitted(None, new) == new
    old = stored()
    old["status"] = {}
    new = edited(old)
    assert admitted(old, new) == new


def test_without_steps_nothing_is_touched() -> None:
    old = stored(other="1")
    new = edited(old)
    assert admitted(old, new) == new


def test_only_components_that_change_get_a_percent() -> None:
    old = stored("predictor", "transformer")
    found = admitted(old, edited(old, "transformer"))
    assert found["spec"]["transformer"]["canaryTrafficPercent"] == 0
    assert "canaryTrafficPercent" not in found["spec"]["predictor"]


def test_locked_pairs_change_together() -> None:
    new = service("predictor", "transformer", rollout_steps="10,50", pair_lock="true")
    first = admit(None, new, METRICS, NOW)
    assert first is not None
    old = copy.deepcopy(KServe(first).isvc)
    found = admitted(old, edited(old, "transformer"))
    assert [spec["canaryTrafficPercent"] for spec in found["spec"].values()] == [0, 0]
    assert set(state_of(found).members) == {"predictor", "transformer"}


def test_an_edit_in_the_middle_starts_over() -> None:
    old = with_state(stored(), MIDWAY)
    old["status"]["components"]["predictor"]["latestCreatedRevision"] = "f-predictor-00002"
    found = admitted(old, edited(old, version="three"))
    assert found["spec"]["predictor"]["canaryTrafficPercent"] == 0
    member = state_of(found).members["predictor"]
    assert (member.stable, member.before, member.canary) == ("f-predictor-00001", "f-predictor-00002", "")


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.ROLLED_BACK])
def test_who_replaces_the_object_does_not_take_its_rollout_away(phase: Phase) -> None:
    weight = 50 if phase is Phase.PROGRESSING else 0
    old = with_state(stored(), State(phase, {"predictor": MEMBER}, weight=weight))
    new = copy.deepcopy(old)
    del new["metadata"]["annotations"][names.ROLLOUT_STATE]
    del new["spec"]["predictor"]["canaryTrafficPercent"]
    assert admitted(old, new) == old


@pytest.mark.parametrize("asked", [0, 10, 100])
@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.PROGRESSING, Phase.ROLLED_BACK])
def test_a_manifest_that_brings_a_percent_each_time_moves_no_weight(phase: Phase, asked: int) -> None:
    weight = 50 if phase is Phase.PROGRESSING else 0
    old = with_state(stored(), State(phase, {"predictor": MEMBER}, weight=weight))
    new = copy.deepcopy(old)
    new["spec"]["predictor"]["canaryTrafficPercent"] = asked
    told: list[str] = []
    assert (admit(old, new, METRICS, NOW, told.append) or new) == old
    assert len(told) == (asked != weight)
    assert all(f"stays {weight}, {asked} is not taken" in each for each in told)


def test_a_percent_after_the_promotion_does_not_take_it_back_but_0_does() -> None:
    old = with_state(stored(), State(Phase.PROMOTED, {"predictor": MEMBER}))
    for asked, kept in ((10, None), (100, 100), (0, 0)):
        new = copy.deepcopy(old)
        new["spec"]["predictor"]["canaryTrafficPercent"] = asked
        found = admit(old, copy.deepcopy(new), METRICS, NOW) or new
        assert found["spec"]["predictor"].get("canaryTrafficPercent") == kept


def test_who_takes_the_percent_away_promotes() -> None:
    old = with_state(stored(), State(Phase.ROLLED_BACK, {"predictor": MEMBER}, weight=0))
    new = copy.deepcopy(old)
    del new["spec"]["predictor"]["canaryTrafficPercent"]
    assert admitted(old, new) == new
    # What was promoted so is not taken back by the next write that replaces the object.
    new["status"]["components"]["predictor"]["latestRolledoutRevision"] = MEMBER.canary
    replaced = copy.deepcopy(new)
    del replaced["metadata"]["annotations"][names.ROLLOUT_STATE]
    assert admitted(new, replaced) == new


def test_the_controllers_own_writes_pass() -> None:
    old = with_state(stored(), MIDWAY)
    new = with_state(stored(), State(Phase.ROLLING_BACK, {"predictor": MEMBER}, weight=0))
    assert admitted(old, new) == new


def test_a_state_that_was_copied_along_is_not_believed() -> None:
    new = with_state(service(rollout_steps="10"), MIDWAY)
    del new["spec"]["predictor"]["canaryTrafficPercent"]
    assert names.ROLLOUT_STATE not in admitted(None, new)["metadata"]["annotations"]


def test_wrong_annotations_are_refused_with_all_problems() -> None:
    new = service(rollout_steps="50,10", rollout_interval="never", rollout_gates="loss<=1.05x")
    with pytest.raises(ConfigError) as raised:
        admit(None, new, METRICS, NOW)
    for told in ("must rise, but 10 follows 50", "must be a duration", "gates without a metric source"):
        assert told in raised.value.message
    old = stored()
    new = copy.deepcopy(old)
    new["metadata"]["annotations"][names.ROLLOUT_ACTION] = "undo"
    with pytest.raises(ConfigError, match="must be one of pause, resume, promote, abort"):
        admit(old, new, METRICS, NOW)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_percent_out_of_bounds_is_refused_as_knative_would_later(percent: int) -> None:
    new = stored("predictor", "transformer")
    for spec in new["spec"].values():
        spec["canaryTrafficPercent"] = percent
    with pytest.raises(Invalid) as refused:
        admit(stored(), new, METRICS, NOW)
    told = f"canaryTrafficPercent: expected 0 <= {percent} <= 100"
    assert refused.value.message == f"spec.predictor.{told}; spec.transformer.{told}"
    assert admitted(new, edited(new))
    plain = service(other="1")
    plain["spec"]["predictor"]["canaryTrafficPercent"] = percent
    assert admitted(None, plain) == plain


def test_what_was_stored_wrong_may_be_written_again() -> None:
    old = stored(rollout_steps="50,10")
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    assert admitted(old, new) == new
