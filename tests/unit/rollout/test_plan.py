"""Decisions of a rollout in virtual time, against a KServe that follows KServe's own rules."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.rollout.rollout_lab import KServe, container, service

from glowplug.errors import NotFound
from glowplug.rollout import conditions, membership, plan, record
from glowplug.rollout.controller import wants_attention
from glowplug.rollout.observation import observe
from glowplug.rollout.plan import Ruling
from glowplug.rollout.revisions import Revisions
from glowplug.rollout.settings import Action, parse
from glowplug.rollout.state import Phase, State
from glowplug.rollout.verdict import Outcome, Verdict
from glowplug.spec import names

PASS = Ruling(Verdict(Outcome.PASS, "within the gates"))
FAIL = Ruling(Verdict(Outcome.FAIL, "errors 10 % against 0 %"))
UNSURE = Ruling(Verdict(Outcome.INCONCLUSIVE, "90 requests never suffice"))
BLIND = Ruling(UNSURE.verdict, "nobody answers", is_blind_long=True)
METRICS = frozenset({"errors", "latency"})
CANARY = "f-predictor-00002"


class Lab:
    """A rollout of `f` with steps 10, 50, 100 and an interval of 60 s; each turn is a second."""

    def __init__(self, *components: str, steps: str = "10,50") -> None:
        self.kserve = KServe(service(*components, rollout_steps=steps, rollout_interval="60s"))
        settings = parse(self.kserve.isvc["metadata"]["annotations"], METRICS)
        assert settings is not None
        self.settings, self.state, self.now = settings, State(), 1000.0
        self.told: list[str] = []
        self.crash = ""

    def change(self, version: str, *components: str, announced: bool = True) -> None:
        """Somebody changes what these components run; `announced`: through the webhook."""
        before = observe(self.kserve.isvc)
        for name in components or ("predictor",):
            kept = self.kserve.isvc["spec"].get(name, {}).get("canaryTrafficPercent")
            self.kserve.isvc["spec"][name] = container(version)
            if kept is not None:
                self.kserve.isvc["spec"][name]["canaryTrafficPercent"] = kept
        if announced:
            created = {name: before.components[name].created for name in components or ("predictor",)}
            self.apply(membership.begin(self.state, observe(self.kserve.isvc), created, self.now))
        self.kserve.settle()

    def turn(self, ruling: Ruling | None = None, action: Action | None = None, seconds: float = 1) -> None:
        self.now += seconds
        seen = replace(observe(self.kserve.isvc, services=self.kserve.knative_services()), crash=self.crash)
        seen = asyncio.run(Revisions(self).compared("default", seen, membership.questions(self.state, seen)))
        ruling = ruling if self.state.phase is Phase.PROGRESSING else None
        was_active = self.state.is_active
        state = plan.decide(self.settings, self.state, seen, ruling, action, self.now)
        self.apply(state, is_active=was_active or state.is_active)
        self.kserve.settle()

    async def get(self, path: str) -> dict[str, Any]:
        found = self.kserve.revision(path.rpartition("/")[2])
        if found is None:
            raise NotFound(path)
        return found

    def apply(self, state: State, *, is_active: bool = True) -> None:
        # As it comes back after a crash.
        loaded = record.load(record.dump(state))
        assert loaded is not None
        self.state = loaded
        for name, percent in (
            membership.percents(state, observe(self.kserve.isvc)).items() if is_active else ()
        ):
            self.kserve.isvc["spec"][name].pop("canaryTrafficPercent", None)
            if percent is not None:
                self.kserve.isvc["spec"][name]["canaryTrafficPercent"] = percent
        self.told += [news.reason for news in state.news]
        self.state = self.state.without(frozenset(news.id for news in state.news))

    def until(self, phase: Phase, ruling: Ruling | None = None, most: int = 400) -> None:
        for _ in range(most):
            if self.state.phase is phase:
                return
            self.turn(ruling)
        raise AssertionError(f"{self.state} after {most} turns; told {self.told}")


def test_a_good_version_goes_step_by_step_to_everybody() -> None:
    lab = Lab()
    lab.change("two")
    assert lab.kserve.shares == {CANARY: 0, "f-predictor-00001": 100}
    lab.turn()
    assert (lab.state.phase, lab.kserve.shares[CANARY]) == (Phase.PROGRESSING, 10)
    for _ in range(59):
        lab.turn(PASS)
    assert lab.kserve.shares[CANARY] == 10
    lab.turn(PASS)
    assert lab.kserve.shares[CANARY] == 50
    assert lab.state.evidence == {}
    lab.until(Phase.PROMOTED, PASS)
    assert lab.kserve.shares == {CANARY: 100}
    assert "canaryTrafficPercent" not in lab.kserve.isvc["spec"]["predictor"]
    assert lab.told == [
        "RolloutStarted", "RolloutAdvanced", "RolloutAdvanced", "RolloutPromoting", "RolloutPromoted",
    ]  # fmt: skip
    lab.turn(PASS, seconds=3600)
    assert lab.state.phase is Phase.PROMOTED


def test_the_first_version_is_not_judged() -> None:
    lab = Lab()
    del lab.kserve.isvc["status"]["components"]["predictor"]["latestRolledoutRevision"]
    lab.change("two")
    assert lab.state.phase is Phase.IDLE
    assert lab.kserve.shares == {CANARY: 100}


def test_a_failure_rolls_back_at_once_and_stays() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.turn(FAIL)
    assert lab.kserve.shares == {CANARY: 0, "f-predictor-00001": 100}
    lab.turn(PASS)
    assert lab.state.phase is Phase.ROLLED_BACK
    assert lab.state.hold == "errors 10 % against 0 %"
    for _ in range(100):
        lab.turn(PASS, seconds=60)
    assert lab.kserve.shares[CANARY] == 0
    assert lab.told[-2:] == ["RolloutRollingBack", "RolloutRolledBack"]


def test_a_new_spec_after_a_rollback_starts_a_rollout_and_never_serves_the_bad_one() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.turn(FAIL)
    lab.until(Phase.ROLLED_BACK)
    lab.kserve.stuck.add("f-predictor-00003")
    lab.change("three")
    # The latest revision that is ready is the bad one.
    for _ in range(30):
        lab.turn(PASS)
        assert lab.kserve.shares == {CANARY: 0, "f-predictor-00001": 100}
    lab.kserve.stuck.clear()
    lab.kserve.settle()
    lab.turn()
    assert lab.kserve.shares == {"f-predictor-00003": 10, "f-predictor-00001": 90}


@pytest.mark.parametrize("announced", [True, False])
def test_an_edit_in_the_middle_starts_over_from_the_last_good_revision(announced: bool) -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.turn(PASS, seconds=61)
    assert lab.kserve.shares[CANARY] == 50
    lab.change("three", announced=announced)
    lab.turn()
    lab.turn()
    assert lab.kserve.shares == {"f-predictor-00003": 10, "f-predictor-00001": 90}
    assert lab.state.members["predictor"].stable == "f-predictor-00001"
    assert ("RolloutUnannounced" in lab.told) is not announced


def test_without_the_webhook_a_change_is_held_back_as_soon_as_it_is_seen() -> None:
    lab = Lab()
    lab.kserve.stuck.add(CANARY)
    lab.change("two", announced=False)
    lab.turn()
    lab.kserve.stuck.clear()
    lab.kserve.settle()
    assert lab.kserve.shares == {CANARY: 0, "f-predictor-00001": 100}
    assert "RolloutUnannounced" in lab.told
    lab.turn()
    assert lab.kserve.shares[CANARY] == 10


def test_a_canary_that_is_never_ready_takes_nothing_and_is_reported_once() -> None:
    lab = Lab()
    lab.kserve.stuck.add(CANARY)
    lab.change("two")
    lab.kserve.isvc["status"]["conditions"] = [
        {"type": "PredictorConfigurationReady", "status": "False", "message": "it exits with 1"}
    ]
    for _ in range(200):
        lab.turn()
        assert lab.kserve.shares == {"f-predictor-00001": 100}
    assert lab.told.count("RolloutCanaryNotReady") == 1
    assert lab.state.hold == "it exits with 1"
    lab.turn(action=Action.PROMOTE)
    assert lab.told[-1] == "RolloutActionRefused"
    lab.turn(action=Action.ABORT)
    lab.until(Phase.ROLLED_BACK)


def test_inconclusive_holds_is_told_once_and_goes_on_when_it_passes() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    for _ in range(300):
        lab.turn(UNSURE)
    assert lab.kserve.shares[CANARY] == 10
    assert lab.told.count("RolloutInconclusive") == 1
    assert lab.state.hold == "90 requests never suffice"
    lab.turn(PASS)
    assert lab.kserve.shares[CANARY] == 50
    assert lab.state.hold == ""


def test_without_measurements_the_weight_holds_though_the_evidence_would_pass() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.turn(PASS)
    for _ in range(300):
        lab.turn(replace(BLIND, verdict=PASS.verdict))
    assert lab.kserve.shares[CANARY] == 10
    assert lab.told.count("RolloutUnmeasured") == 1
    assert "nobody answers" in lab.state.hold
    lab.turn(PASS)
    assert lab.kserve.shares[CANARY] == 50


def test_a_crash_loop_rolls_back_though_the_judge_knows_nothing() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.crash = "container kserve-container of pod p crashes again and again (3 restarts)"
    lab.turn(UNSURE)
    lab.until(Phase.ROLLED_BACK)
    assert "crashes again" in lab.state.hold


def test_a_pause_stops_the_way_up_and_not_the_way_down() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.turn(PASS, Action.PAUSE)
    lab.turn(PASS, seconds=600)
    assert (lab.kserve.shares[CANARY], lab.state.is_paused) == (10, True)
    lab.turn(PASS, Action.RESUME)
    assert lab.kserve.shares[CANARY] == 50
    lab.turn(PASS, Action.PAUSE)
    lab.turn(FAIL)
    lab.until(Phase.ROLLED_BACK)


@pytest.mark.parametrize(
    ("action", "phase"), [(Action.PROMOTE, Phase.PROMOTED), (Action.ABORT, Phase.ROLLED_BACK)]
)
def test_promoted_and_aborted_by_hand(action: Action, phase: Phase) -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.turn(UNSURE, action)
    lab.until(phase)
    assert lab.kserve.shares[CANARY] == (100 if action is Action.PROMOTE else 0)
    lab.turn(action=action)
    if action is Action.ABORT:
        assert lab.told[-1] == "RolloutActionRefused"
        lab.turn(action=Action.PROMOTE)
        lab.until(Phase.PROMOTED)


def test_what_is_aborted_before_it_is_there_stays_aborted() -> None:
    lab = Lab()
    seen = observe(lab.kserve.isvc)
    lab.apply(membership.begin(lab.state, seen, {"predictor": "f-predictor-00001"}, lab.now))
    lab.turn(action=Action.ABORT)
    lab.change("two", announced=False)
    lab.until(Phase.ROLLED_BACK)
    for _ in range(20):
        lab.turn(PASS)
    assert (lab.state.phase, lab.kserve.shares[CANARY]) == (Phase.ROLLED_BACK, 0)


def test_an_abort_waits_for_the_revision_that_knative_has_made() -> None:
    lab = Lab()
    seen = observe(lab.kserve.isvc)
    lab.apply(membership.begin(lab.state, seen, {"predictor": "f-predictor-00001"}, lab.now))
    lab.turn(action=Action.ABORT)
    (service,) = lab.kserve.knative_services()
    made = {**service, "status": {**service["status"], "latestCreatedRevisionName": CANARY}}
    for known, phase in ((made, Phase.ROLLING_BACK), (service, Phase.ROLLED_BACK)):
        seen = observe(lab.kserve.isvc, services=[known])
        assert plan.decide(lab.settings, lab.state, seen, None, None, lab.now + 3600).phase is phase


def test_a_weight_that_somebody_moves_is_put_back_while_the_rollout_goes_on() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.kserve.isvc["spec"]["predictor"]["canaryTrafficPercent"] = 70
    lab.kserve.settle()
    lab.turn(PASS)
    assert lab.kserve.shares[CANARY] == 10
    assert lab.told[-1] == "RolloutWeightRestored"


def test_who_removes_the_percent_has_promoted() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    del lab.kserve.isvc["spec"]["predictor"]["canaryTrafficPercent"]
    lab.kserve.settle()
    lab.turn(UNSURE)
    assert lab.state.phase is Phase.PROMOTED
    assert lab.kserve.shares == {CANARY: 100}


@pytest.mark.parametrize("phase", [Phase.ROLLED_BACK, Phase.PROMOTED])
def test_a_change_of_the_scale_alone_is_no_new_version(phase: Phase) -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.until(phase, FAIL if phase is Phase.ROLLED_BACK else PASS)
    told, percent = len(lab.told), lab.kserve.isvc["spec"]["predictor"].get("canaryTrafficPercent")
    lab.kserve.isvc["spec"]["predictor"]["minReplicas"] = 2
    lab.kserve.stuck.add("f-predictor-00003")
    lab.kserve.settle()
    lab.turn()
    lab.kserve.stuck.clear()
    lab.kserve.settle()
    lab.turn()
    assert (lab.state.phase, lab.told[told:]) == (phase, [])
    assert lab.state.members["predictor"].canary == "f-predictor-00003"
    assert lab.kserve.isvc["spec"]["predictor"].get("canaryTrafficPercent") == percent
    lab.kserve.stuck.add("f-predictor-00004")
    lab.change("four", announced=False)
    lab.turn()
    assert lab.told[told] == "RolloutStarted"


def test_a_revision_that_runs_the_same_is_rolled_out_by_nobody() -> None:
    lab = Lab()
    lab.kserve.isvc["spec"]["predictor"]["annotations"] = {"example.com/note": "x"}
    lab.kserve.stuck.add(CANARY)
    lab.kserve.settle()
    assert wants_attention(lab.kserve.isvc, METRICS)
    lab.turn()
    assert (lab.state, lab.told) == (State(), [])
    assert "canaryTrafficPercent" not in lab.kserve.isvc["spec"]["predictor"]
    # The model's place is an annotation of the revision, too.
    lab.kserve.isvc["spec"]["predictor"]["annotations"] = {names.STORAGE_SOURCE_URI: "pvc://models/two"}
    lab.kserve.stuck.add("f-predictor-00003")
    lab.kserve.settle()
    lab.turn()
    assert lab.told == ["RolloutStarted", "RolloutUnannounced"]


@pytest.mark.parametrize("fails", [False, True])
def test_in_the_middle_it_goes_on_with_a_revision_that_runs_the_same(fails: bool) -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.turn(UNSURE)
    told = list(lab.told)
    lab.kserve.isvc["spec"]["predictor"]["labels"] = {"team": "a"}
    lab.kserve.stuck.add("f-predictor-00003")
    lab.kserve.settle()
    lab.turn(UNSURE)
    assert (lab.state.phase, lab.state.weight, lab.told) == (Phase.PROGRESSING, 10, told)
    assert lab.kserve.shares == {CANARY: 10, "f-predictor-00001": 90}
    lab.kserve.stuck.clear()
    lab.kserve.settle()
    assert lab.kserve.shares == {"f-predictor-00003": 10, "f-predictor-00001": 90}
    lab.until(Phase.ROLLED_BACK if fails else Phase.PROMOTED, FAIL if fails else PASS)
    kept = "f-predictor-00001" if fails else "f-predictor-00003"
    assert {name: share for name, share in lab.kserve.shares.items() if share} == {kept: 100}
    assert lab.told.count("RolloutStarted") == 1


def test_the_last_step_is_not_taken_back_while_the_newest_of_twins_is_awaited() -> None:
    """KServe takes the older of the two for the last good one meanwhile, and it is."""
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.until(Phase.PROMOTING, PASS)
    lab.kserve.isvc["spec"]["predictor"]["labels"] = {"team": "a"}
    lab.kserve.stuck.add("f-predictor-00003")
    lab.kserve.settle()
    lab.turn()
    assert lab.state.members["predictor"].canary == "f-predictor-00003"
    seen = observe(lab.kserve.isvc)
    assert membership.lost(lab.state, seen) == {"predictor": "f-predictor-00001"}
    seen = asyncio.run(Revisions(lab).compared("default", seen, membership.questions(lab.state, seen)))
    assert membership.lost(lab.state, seen) == {}
    lab.kserve.stuck.clear()
    lab.kserve.settle()
    lab.until(Phase.PROMOTED)
    assert lab.kserve.shares == {"f-predictor-00003": 100}


def test_who_promotes_by_hand_what_was_rolled_back_has_promoted() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    lab.until(Phase.ROLLED_BACK, FAIL)
    del lab.kserve.isvc["spec"]["predictor"]["canaryTrafficPercent"]
    lab.kserve.settle()
    assert wants_attention(with_state(lab), METRICS)
    lab.turn()
    assert (lab.state.phase, lab.state.weight, lab.kserve.shares) == (Phase.PROMOTED, None, {CANARY: 100})


def with_state(lab: Lab) -> dict[str, Any]:
    """The service as the API has it, with its conditions told."""
    told = conditions.merged((), conditions.conditions_of(lab.state), lab.now)
    annotations = {**lab.kserve.isvc["metadata"]["annotations"], names.ROLLOUT_STATE: record.dump(lab.state)}
    return {
        **lab.kserve.isvc,
        "metadata": {**lab.kserve.isvc["metadata"], "annotations": annotations},
        "status": {**lab.kserve.isvc["status"], "conditions": told},
    }


def test_components_without_a_new_revision_are_left_alone() -> None:
    lab = Lab("predictor", "transformer")
    # Each has had two versions, so that KServe would take a split for its rollback.
    lab.change("two", "predictor", "transformer")
    lab.until(Phase.PROMOTED, PASS)
    lab.change("three", "predictor")
    lab.turn()
    assert lab.kserve.isvc["spec"]["transformer"].get("canaryTrafficPercent") is None
    assert lab.kserve.isvc["status"]["components"]["transformer"]["latestRolledoutRevision"] == (
        "f-transformer-00002"
    )
    # A transformer that follows in the middle makes both start over.
    lab.change("three", "transformer")
    assert set(lab.state.members) == {"predictor", "transformer"}
    lab.turn()
    percents = [spec.get("canaryTrafficPercent") for spec in lab.kserve.isvc["spec"].values()]
    assert percents == [10, 10]
    lab.until(Phase.PROMOTED, PASS)


def test_a_change_that_makes_no_revision_ends_and_leaves_no_percent() -> None:
    lab = Lab()
    lab.change("two")
    lab.until(Phase.PROMOTED, PASS)
    seen = observe(lab.kserve.isvc)
    lab.apply(membership.begin(lab.state, seen, {"predictor": CANARY}, lab.now))
    for _ in range(12):
        lab.turn()
    assert lab.state.phase is Phase.PROMOTED
    assert lab.told[-1] == "RolloutEmpty"
    assert lab.kserve.shares == {CANARY: 100}
    lab.turn()
    assert lab.state.phase is Phase.PROMOTED


def test_a_version_that_failed_gets_nothing_while_the_next_one_is_awaited() -> None:
    lab = Lab()
    lab.change("bad")
    lab.turn()
    lab.turn(FAIL)
    lab.until(Phase.ROLLED_BACK)
    # KServe is slow: the weight was 0 before, so nothing shows whether it has seen the change.
    seen = observe(lab.kserve.isvc)
    lab.apply(membership.begin(lab.state, seen, {"predictor": CANARY}, lab.now))
    for _ in range(12):
        lab.turn()
        assert lab.kserve.shares == {CANARY: 0, "f-predictor-00001": 100}
    assert lab.state.phase is Phase.ROLLED_BACK
    assert lab.told[-1] == "RolloutEmpty"
    lab.change("three", announced=False)
    lab.turn()
    lab.turn()
    assert lab.kserve.shares == {"f-predictor-00003": 10, "f-predictor-00001": 90}
    assert "RolloutUnannounced" not in lab.told
    lab.until(Phase.PROMOTED, PASS)


def test_a_revision_that_kserve_does_not_tell_of_yet_is_awaited() -> None:
    lab = Lab()
    lab.change("two")
    lab.until(Phase.PROMOTED, PASS)
    seen = observe(lab.kserve.isvc)
    lab.apply(membership.begin(lab.state, seen, {"predictor": CANARY}, lab.now))
    (service,) = lab.kserve.knative_services()
    late = {**service["status"], "latestCreatedRevisionName": "f-predictor-00003"}
    behind = {"type": "ConfigurationsReady", "status": "Unknown", "reason": "OutOfDate"}
    for status in (late, {**service["status"], "conditions": [behind]}):
        seen = observe(lab.kserve.isvc, services=[{**service, "status": status}])
        later = plan.decide(lab.settings, lab.state, seen, None, None, lab.now + 3600)
        assert later.phase is Phase.STARTING


def test_new_steps_in_the_middle_are_taken_from_where_it_is() -> None:
    lab = Lab()
    lab.change("two")
    lab.turn()
    settings = parse(
        {**lab.kserve.isvc["metadata"]["annotations"], "glowplug.dev/rollout-steps": "5,20,30"}, METRICS
    )
    assert settings is not None
    lab.settings = settings
    lab.turn(PASS, seconds=61)
    assert lab.kserve.shares[CANARY] == 20


RULINGS = st.sampled_from([PASS, PASS, PASS, UNSURE, BLIND, FAIL])
ACTIONS = st.sampled_from([None, None, None, None, *Action])


@given(st.lists(st.tuples(RULINGS, ACTIONS, st.floats(0.5, 90)), max_size=40))
def test_weights_only_rise_until_they_fall_to_nothing_and_stay(
    turns: list[tuple[Ruling, Action | None, float]],
) -> None:
    lab = Lab(steps="1,10,50")
    lab.change("two")
    is_over = False
    for ruling, action, seconds in turns:
        before = lab.kserve.shares.get(CANARY, 0)
        lab.turn(ruling, action, seconds)
        after = lab.kserve.shares.get(CANARY, 0)
        is_forced = action is Action.PROMOTE
        if is_over and not is_forced:
            assert after in (0, 100) and after >= before
        is_over = is_over or after < before
        assert after >= before or after == 0
        assert after in (0, 1, 10, 50, 100)
        if lab.state.phase is Phase.PROGRESSING and before != after and not is_forced:
            assert (before, after) in ((0, 1), (1, 10), (10, 50))
