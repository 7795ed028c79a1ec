"""What a PodAutoscaler says from its first pod to its last, as Knative's reconcilers (kpa, serverlessservice) do."""

from __future__ import annotations

from typing import Any

from unit.controllers.fakes import CRASH, HANG, READY
from unit.controllers.machine import Machine, knative_service

from glowplug.spec import kinds

Said = dict[str, tuple[str, str, str]]
QUEUED = ("Unknown", "Queued", "Requests to the target are being buffered as resources are provisioned.")
NO_TRAFFIC = ("False", "NoTraffic", "The target is not receiving traffic.")
NO_ENDPOINTS = ("Unknown", "NotReady", "K8s Service is not ready")
YES = ("True", "", "")


def applied(image: str = "app", **annotations: str) -> Machine:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image=image, annotations=annotations))
    machine.settle()
    return machine


def running() -> Machine:
    machine = applied()
    assert scales(machine) == (1, 1)
    return machine


def autoscaler(machine: Machine) -> dict[str, Any]:
    return machine.get(kinds.POD_AUTOSCALER, "web-00001")


def scales(machine: Machine) -> tuple[int, int]:
    status = autoscaler(machine)["status"]
    return status["desiredScale"], status["actualScale"]


def said_of(machine: Machine) -> Said:
    return {
        entry["type"]: (entry["status"], entry.get("reason", ""), entry.get("message", ""))
        for entry in autoscaler(machine)["status"]["conditions"]
    }


def revision_replicas(machine: Machine) -> tuple[int | None, int | None]:
    status = machine.get(kinds.REVISION, "web-00001")["status"]
    return status.get("desiredReplicas"), status.get("actualReplicas")


def test_while_it_starts_nothing_was_measured() -> None:
    machine = applied(f"app-{HANG}")
    assert scales(machine) == (-1, 0)
    assert said_of(machine) == {
        "Active": QUEUED, "Ready": QUEUED, "ScaleTargetInitialized": ("Unknown", "", ""), "SKSReady": NO_ENDPOINTS,
    }  # fmt: skip
    # What is not known is not repeated.
    assert revision_replicas(machine) == (None, 0)
    assert machine.condition(kinds.REVISION, "web-00001", "Active") == QUEUED


def test_a_floor_and_first_pods_are_known_before() -> None:
    assert scales(applied(f"app-{HANG}", **{"autoscaling.knative.dev/min-scale": "2"})) == (2, 0)
    assert scales(applied(f"app-{HANG}", **{"autoscaling.knative.dev/initial-scale": "3"})) == (3, 0)


def test_with_all_its_pods_it_is_active() -> None:
    machine = running()
    assert said_of(machine) == dict.fromkeys(("Active", "Ready", "ScaleTargetInitialized", "SKSReady"), YES)
    status = autoscaler(machine)["status"]
    assert (status["serviceName"], status["metricsServiceName"]) == ("web-00001", "web-00001-private")
    assert revision_replicas(machine) == (1, 1)


def test_at_zero_and_on_its_way_back() -> None:
    machine = running()
    machine.autoscaler.desired["default/web-00001"] = 0
    machine.controllers.wake_all()
    machine.settle()
    asleep = {
        "Active": NO_TRAFFIC, "Ready": NO_TRAFFIC, "ScaleTargetInitialized": YES, "SKSReady": NO_ENDPOINTS,
    }  # fmt: skip
    assert (scales(machine), said_of(machine)) == ((0, 0), asleep)
    assert machine.condition(kinds.REVISION, "web-00001", "Active") == NO_TRAFFIC
    machine.autoscaler.desired["default/web-00001"] = 1
    machine.advance(5)
    machine.controllers.wake_all()
    machine.settle(node=False)
    assert (scales(machine), said_of(machine)) == ((1, 0), {**asleep, "Active": QUEUED, "Ready": QUEUED})
    machine.settle()
    assert said_of(machine)["Ready"] == YES


def test_who_never_becomes_ready_says_so_for_good() -> None:
    machine = applied(f"app-{HANG}", **{"serving.knative.dev/progress-deadline": "30s"})
    machine.advance(31)
    timed_out = ("False", "TimedOut", "The target could not be activated.")
    for _ in range(2):
        assert said_of(machine)["Active"] == said_of(machine)["Ready"] == timed_out
        assert said_of(machine)["ScaleTargetInitialized"][0] == "Unknown"
        assert scales(machine) == (0, 0) and machine.pods("web-00001") == []
        machine.controllers.wake_all()
        machine.advance(60)


def test_who_is_left_before_it_was_ready_has_not_failed() -> None:
    machine = applied(f"app-{HANG}")
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image=f"app-{READY}"))
    machine.advance(120)
    assert said_of(machine)["Active"] == NO_TRAFFIC
    assert said_of(machine)["ScaleTargetInitialized"][0] == "Unknown"


def test_a_load_that_cannot_be_measured_is_said_for_as_long_as_it_lasts() -> None:
    machine = running()
    machine.autoscaler.unmeasured = "the ingress cannot be measured"
    machine.controllers.wake_all()
    machine.settle()
    said = machine.condition(kinds.POD_AUTOSCALER, "web-00001", "ScalingActive")
    assert said == ("False", "FailedGetMetrics", "the ingress cannot be measured")
    assert machine.condition(kinds.POD_AUTOSCALER, "web-00001")[0] == "True"
    assert len(machine.pods("web-00001")) == 1
    machine.autoscaler.unmeasured = ""
    machine.controllers.wake_all()
    machine.settle()
    assert "ScalingActive" not in said_of(machine)
    reasons = [reason for _, _, reason, _ in machine.events if "Metric" in reason]
    assert reasons == ["FailedGetMetrics", "ValidMetricFound"]


def test_reachability() -> None:
    assert "reachability" not in autoscaler(pending())["spec"]
    machine = running()
    assert autoscaler(machine)["spec"]["reachability"] == "Reachable"
    (pod,) = machine.pods("web-00001")
    machine.node.orders[pod["metadata"]["name"]] = CRASH
    machine.settle()
    assert autoscaler(machine)["spec"]["reachability"] == "Unreachable"
    machine.node.orders.clear()
    machine.settle()
    assert autoscaler(machine)["spec"]["reachability"] == "Reachable"
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app-2"))
    machine.advance(120)
    assert autoscaler(machine)["spec"]["reachability"] == "Unreachable"


def pending() -> Machine:
    """A Configuration that no route leads to."""
    machine = Machine()
    found = knative_service()
    template = found["spec"]["template"]
    configuration = {
        "apiVersion": kinds.CONFIGURATION.api_version,
        "kind": kinds.CONFIGURATION.name,
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"template": template},
    }
    machine.apply(kinds.CONFIGURATION, configuration)
    machine.settle()
    return machine
