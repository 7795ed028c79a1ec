"""minReplicas and the warm floor: how many pods are there although nobody asks, and which of them makes a revision."""

from __future__ import annotations

from collections.abc import Callable

from conformance.controller import warm_floor
from conformance.target import AUTOSCALING, READY_TIMEOUT_S, Object, Target, service
from local.machine_lab import wait_for

Served = Callable[[Object], str]
MIN_SCALE = f"{AUTOSCALING}/min-scale"
FLOOR = "glowplug.dev/warm-floor"


def min_scale(target: Target, revision: str) -> str | None:
    found: str | None = (target.get("revision", revision)["metadata"].get("annotations") or {}).get(MIN_SCALE)
    return found


def wait_pods(target: Target, revision: str, count: int) -> None:
    wait_for(lambda: target.scale(revision) == (count, count), f"{count} pods of {revision}", READY_TIMEOUT_S)


def test_the_minimum_of_replicas_is_there_and_another_one_is_a_revision(
    target: Target, served: Served
) -> None:
    name = served(service(target, "minimum", minReplicas=2, maxReplicas=3))
    first, second = (f"{name}-predictor-0000{number}" for number in (1, 2))
    wait_pods(target, first, 2)
    assert min_scale(target, first) == "2"
    target.apply(service(target, name, minReplicas=1, maxReplicas=3))
    wait_for(lambda: target.revisions(name) == [first, second], "a new revision", READY_TIMEOUT_S)
    target.wait_ready(name)
    wait_pods(target, second, 1)
    assert min_scale(target, second) == "1"


def test_the_warm_floor_holds_a_live_revision_and_lets_it_go(target: Target, served: Served) -> None:
    annotations = {FLOOR: "true", f"{FLOOR}-min": "2"}
    name = served(service(target, "floored", annotations, minReplicas=1, maxReplicas=3))
    revision = f"{name}-predictor-00001"
    assert min_scale(target, revision) == "1"
    with warm_floor(target):
        wait_for(lambda: min_scale(target, revision) == "2", "the floor", READY_TIMEOUT_S)
        wait_pods(target, revision, 2)
    # When it stops, all is as it was.
    assert min_scale(target, revision) == "1"
    wait_pods(target, revision, 1)
    assert target.revisions(name) == [revision]
    told = target.get("events", "", f"--field-selector=involvedObject.name={name}")["items"]
    assert "WarmFloorRaised" in {event["reason"] for event in told}
