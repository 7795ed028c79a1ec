"""The rollout controller, the same on both targets: a good version is promoted, a bad one goes back, nobody helps.

On a cluster it needs $CONFORMANCE_PROMETHEUS, and what `glowplug rollout run` says of KServe's ConfigMap.
"""

from __future__ import annotations

import json
import pathlib
import signal
from collections.abc import Callable

from conformance.controller import controller, program, settle
from conformance.target import Object, Target
from local.machine_lab import wait_for

Served = Callable[[Object], str]
MODEL = pathlib.Path(__file__).parents[1] / "local" / "pods" / "model.py"
STATE = "glowplug.dev/rollout-state"
DONE_S = 240.0
CLIENTS = 4


def version(target: Target, name: str, **env: str) -> Object:
    """An InferenceService of a small program that answers with the variable VERSION."""
    asked = {"steps": "30,60", "interval": "2s", "gates": "errors<=+4%"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Knative",
                **{f"glowplug.dev/rollout-{key}": value for key, value in asked.items()},
            },
        },
        "spec": {"predictor": {"minReplicas": 1, "containers": [program(target, MODEL, **env)]}},
    }


def state(target: Target, name: str) -> Object:
    text = target.get("isvc", name)["metadata"]["annotations"].get(STATE)
    found: Object = json.loads(text) if text else {"phase": "Idle"}
    return found


def until(target: Target, name: str, phase: str, weight: int | None = None) -> None:
    def is_so() -> bool:
        found = state(target, name)
        return found["phase"] == phase and (weight is None or found["weight"] == weight)

    try:
        wait_for(is_so, f"the rollout of {name} to be {phase}", DONE_S)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{state(target, name)}\n{target.account(name)}") from error


def reasons(target: Target, name: str) -> set[str]:
    events = target.get("events", "", f"--field-selector=involvedObject.name={name}")["items"]
    return {event["reason"] for event in events if event["reason"].startswith("Rollout")}


def first_version(target: Target, served: Served, name: str) -> None:
    served(version(target, name, VERSION="one"))
    wait_for(
        lambda: target.get("isvc", name)["status"]["components"]["predictor"].get("latestRolledoutRevision"),
        f"{name} to be rolled out",
    )


def test_a_good_version_is_promoted_although_its_controller_is_killed(target: Target, served: Served) -> None:
    name = "promoted"
    with controller(target) as killed:
        first_version(target, served, name)
        with target.load(name, CLIENTS) as failures:
            target.apply(version(target, name, VERSION="two"))
            until(target, name, "Progressing", 30)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            settle(target, name, {1: 70, 2: 30})
            with controller(target):
                until(target, name, "Promoted")
                settle(target, name, {2: 100})
    assert not failures
    assert "canaryTrafficPercent" not in target.get("isvc", name)["spec"]["predictor"]
    found = reasons(target, name)
    assert found >= {"RolloutStarted", "RolloutAdvanced", "RolloutPromoted"}
    assert not found & {"RolloutRolledBack", "RolloutUnannounced", "RolloutOvertaken"}


def test_a_bad_version_goes_back_and_the_next_one_starts_from_the_good_one(
    target: Target, served: Served
) -> None:
    name = "goes-back"
    with controller(target):
        first_version(target, served, name)
        with target.load(name, CLIENTS) as failures:
            target.apply(version(target, name, VERSION="bad", FAIL_EVERY="5"))
            until(target, name, "RolledBack")
            settle(target, name, {1: 100})
            assert failures
            assert all("bad" in failure for failure in failures), failures
            told = target.get("isvc", name)["status"]["conditions"]
            healthy = next(each for each in told if each["type"] == "RolloutHealthy")
            assert (healthy["status"], "errors" in healthy["message"]) == ("False", True)
            failed = len(failures)
            target.apply(version(target, name, VERSION="three"))
            until(target, name, "Progressing", 30)
            settle(target, name, {1: 70, 3: 30})
        assert len(failures) == failed
