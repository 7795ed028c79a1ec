"""Statuses and conditions field by field, of an InferenceService and of everything that Knative makes from it.

`pytest tests/conformance/test_statuses.py --target=cluster --record` writes anew what a real cluster says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conformance import statuses
from conformance.target import READY_TIMEOUT_S, Object, Target, service
from local.machine_lab import wait_for

Served = Callable[[Object], str]
Seen = Callable[[statuses.Statuses], statuses.Statuses]
Agrees = Callable[..., None]
# So that a cluster gives up as soon as it may: its default are ten minutes.
HASTE = {"serving.knative.dev/progress-deadline": "10s"}
BROKEN = {"args": ["--no-such-option"]}


@pytest.fixture
def agrees(target: Target, request: pytest.FixtureRequest) -> Agrees:
    is_recording = bool(request.config.getoption("--record", False))

    def compare(name: str, recorded: str, seen: Seen = statuses.everything) -> None:
        statuses.agrees(target, name, recorded, is_recording, seen)

    return compare


def version(target: Target, name: str, number: int, **predictor: Any) -> Object:
    model = {"env": [{"name": "VERSION", "value": str(number)}]}
    return service(target, name, HASTE, minReplicas=1, model=model, **predictor)


def wait_failed(target: Target, name: str) -> None:
    wait_for(
        lambda: target.condition("isvc", name, "Ready")[0] == "False", f"{name} to fail", READY_TIMEOUT_S
    )


def test_ready_then_a_canary_then_promoted(target: Target, served: Served, agrees: Agrees) -> None:
    name = served(version(target, "told", 1))
    agrees(name, "ready")
    target.apply(version(target, name, 2, canaryTrafficPercent=20))
    agrees(name, "canary")
    target.apply(version(target, name, 2))
    agrees(name, "promoted")


def test_a_version_that_cannot_start_leaves_the_one_before_it(
    target: Target, served: Served, agrees: Agrees
) -> None:
    name = served(service(target, "halfway", HASTE, minReplicas=1))
    target.apply(service(target, name, HASTE, minReplicas=1, model=BROKEN))
    wait_failed(target, name)
    agrees(name, "update-failed", statuses.verdicts)
    assert target.infer(name).status_code == 200


def test_a_first_version_that_cannot_start(target: Target, agrees: Agrees) -> None:
    name = "broken"
    try:
        target.apply(service(target, name, HASTE, minReplicas=1, model=BROKEN))
        wait_failed(target, name)
        agrees(name, "failed", statuses.verdicts)
    finally:
        target.delete(name)
