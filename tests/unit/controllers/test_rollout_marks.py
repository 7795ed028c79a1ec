"""What a rollout writes on an InferenceService: its conditions stay, its annotations reach no revision."""

from __future__ import annotations

from glowplug.controllers.inferenceservice.annotations import passed_on
from glowplug.controllers.inferenceservice.status import inference_service_status, stopped_status
from glowplug.spec.names import ROLLOUT_KEYS

FOREIGN = {"type": "RolloutProgressing", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
GONE = {"type": "TransformerReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def test_conditions_of_others_stay_as_they_are() -> None:
    isvc = {"metadata": {"name": "f", "generation": 1}, "status": {"conditions": [FOREIGN, GONE]}}
    for status in (
        inference_service_status(isvc, [], "http://f", 0.0),
        stopped_status(isvc, ["predictor"], 0.0),
    ):
        found = status["conditions"]
        assert FOREIGN in found
        # Our own of a component that is no longer there go.
        assert "TransformerReady" not in [each["type"] for each in found]
        assert [each["type"] for each in found] == sorted(each["type"] for each in found)


def test_no_step_of_a_rollout_makes_a_revision() -> None:
    asked = dict.fromkeys((*ROLLOUT_KEYS, "glowplug.dev/rollout-later"), "x")
    assert passed_on({**asked, "glowplug.dev/warm-floor": "true"}) == {"glowplug.dev/warm-floor": "true"}
