from __future__ import annotations

import pytest
from unit.controllers.fakes import CRASH, DOWNLOAD_FAILS, HANG, MISSING, READY
from unit.controllers.machine import Machine, knative_service

from glowplug.controllers import ControllersConfig
from glowplug.controllers.knative.labels import PROGRESS_DEADLINE
from glowplug.spec import kinds

MIN_ONE = {"autoscaling.knative.dev/min-scale": "1"}


def applied(image: str, **annotations: str) -> Machine:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image=image, annotations={**MIN_ONE, **annotations}))
    machine.settle()
    return machine


def revision_condition(machine: Machine, type: str) -> tuple[str, str, str]:
    return machine.condition(kinds.REVISION, "web-00001", type)


def test_a_container_that_exits_is_reported_with_its_last_lines() -> None:
    machine = applied(f"app-{CRASH}")
    message = "Container failed with: boom: no such model"
    assert revision_condition(machine, "ContainerHealthy") == ("False", "ExitCode1", message)
    assert revision_condition(machine, "Ready") == ("False", "ExitCode1", message)
    status, reason, said = machine.condition(kinds.CONFIGURATION, "web")
    assert (status, reason) == ("False", "RevisionFailed")
    assert said == f'Revision "web-00001" failed with message: {message}.'
    assert machine.condition(kinds.ROUTE, "web") == (
        "False",
        "RevisionMissing",
        'Configuration "web" does not have any ready Revision.',
    )
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "False"
    assert (
        "web",
        "Warning",
        "LatestCreatedFailed",
        'Latest created revision "web-00001" has failed',
    ) in machine.events
    assert len(machine.pods("web-00001")) == 1, "the pod is started again until the deadline"
    machine.assert_settled()


def test_one_that_recovers_before_the_deadline_becomes_ready() -> None:
    machine = applied(f"app-{CRASH}")
    machine.advance(100)
    machine.node.orders[machine.pods("web-00001")[0]["metadata"]["name"]] = READY
    machine.settle()
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "True"
    assert machine.splits("web") == {"web-00001": 100}


@pytest.mark.parametrize("order", [CRASH, HANG])
def test_one_that_never_becomes_ready_stops_at_the_deadline_and_stays_stopped(order: str) -> None:
    machine = applied(f"app-{order}", **{PROGRESS_DEADLINE: "1m30s"})
    machine.advance(80)
    assert len(machine.pods("web-00001")) == 1
    machine.advance(15)
    assert machine.pods("web-00001") == []
    status, reason, message = revision_condition(machine, "ResourcesAvailable")
    assert (status, reason) == ("False", "ProgressDeadlineExceeded")
    said = "boom: no such model" if order == CRASH else "readiness probe failed: connection refused"
    assert "Initial scale was never achieved" in message and said in message
    assert said in revision_condition(machine, "Ready")[2]
    assert revision_condition(machine, "Active")[:2] == ("False", "TimedOut")
    machine.advance(10_000)
    machine.restart()
    machine.advance(10_000)
    assert machine.pods("web-00001") == []
    assert said in machine.condition(kinds.REVISION, "web-00001", "ResourcesAvailable")[2]
    machine.assert_settled()


def test_a_failed_revision_is_replaced_by_the_next_template() -> None:
    machine = applied(f"app-{HANG}", **{PROGRESS_DEADLINE: "1m"})
    machine.advance(100)
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:2", annotations=MIN_ONE))
    machine.settle()
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "True"
    assert machine.splits("web") == {"web-00002": 100}


def test_the_deadline_does_not_run_while_the_machine_is_down() -> None:
    machine = applied(f"app-{HANG}", **{PROGRESS_DEADLINE: "1m"})
    machine.now += 3600
    machine.restart()
    machine.advance(30)
    assert len(machine.pods("web-00001")) == 1
    machine.advance(40)
    assert machine.pods("web-00001") == []


def test_an_unknown_image_is_container_missing() -> None:
    machine = applied(f"nobody/app-{MISSING}")
    assert revision_condition(machine, "Ready") == (
        "False",
        "ContainerMissing",
        f'Unable to fetch image "nobody/app-{MISSING}": no unit declares it',
    )


def test_a_model_that_cannot_be_fetched_is_said_at_once() -> None:
    machine = applied(f"app-{DOWNLOAD_FAILS}")
    assert revision_condition(machine, "Ready")[:2] == ("False", "ExitCode1")


def test_one_that_died_after_being_ready_keeps_its_pods_and_its_traffic() -> None:
    machine = applied("app", **{PROGRESS_DEADLINE: "1m"})
    (pod,) = machine.pods("web-00001")
    machine.node.orders[pod["metadata"]["name"]] = CRASH
    machine.advance(7200)
    assert revision_condition(machine, "Ready")[:2] == ("False", "ExitCode1")
    assert revision_condition(machine, "ResourcesAvailable")[0] == "True"
    assert [p["metadata"]["name"] for p in machine.pods("web-00001")] == [pod["metadata"]["name"]]
    assert machine.splits("web") == {"web-00001": 100}
    assert machine.tables[-1].backends[0].endpoints == ()
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "False"
    machine.node.orders.clear()
    machine.settle()
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "True"
    assert len(machine.tables[-1].backends[0].endpoints) == 1


def test_a_new_revision_that_fails_leaves_the_old_one_serving() -> None:
    machine = applied("app")
    bad = knative_service(image=f"app-{CRASH}", annotations={**MIN_ONE, PROGRESS_DEADLINE: "1m"})
    machine.apply(kinds.KNATIVE_SERVICE, bad)
    machine.advance(300)
    assert machine.splits("web") == {"web-00001": 100}
    assert len(machine.pods("web-00001")) == 1 and machine.pods("web-00002") == []
    assert machine.condition(kinds.KNATIVE_SERVICE, "web", "RoutesReady")[0] == "True"
    status = machine.get(kinds.KNATIVE_SERVICE, "web")["status"]
    assert (
        status["latestReadyRevisionName"] == "web-00001"
        and status["latestCreatedRevisionName"] == "web-00002"
    )
    assert "boom" in machine.condition(kinds.KNATIVE_SERVICE, "web")[2]


def test_a_failed_pod_is_replaced_no_sooner_than_the_back_off() -> None:
    machine = Machine(ControllersConfig(failed_pod_backoff_s=10))
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(annotations=MIN_ONE))
    machine.settle(node=False)
    (first,) = machine.pods("web-00001")
    machine.node.orders[first["metadata"]["name"]] = "failed"
    machine.advance(5)
    assert [p["metadata"]["name"] for p in machine.pods("web-00001")] == [first["metadata"]["name"]]
    machine.advance(10)
    (second,) = machine.pods("web-00001")
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "True"


def test_zero_initial_scale_is_ready_without_pods() -> None:
    machine = Machine()
    annotations = {"autoscaling.knative.dev/initial-scale": "0"}
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(annotations=annotations))
    machine.settle()
    assert machine.pods("web-00001") == []
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "True"
    assert revision_condition(machine, "Active")[:2] == ("False", "NoTraffic")
    assert machine.splits("web") == {"web-00001": 100}
    machine.assert_settled()


def test_all_first_pods_must_be_ready_then_min_scale_counts() -> None:
    machine = Machine()
    annotations = {"autoscaling.knative.dev/initial-scale": "3", **MIN_ONE}
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image=f"app-{HANG}", annotations=annotations))
    machine.settle()
    pods = [pod["metadata"]["name"] for pod in machine.pods("web-00001")]
    assert len(pods) == 3
    machine.node.orders = {pods[0]: READY, pods[1]: READY}
    machine.settle()
    assert revision_condition(machine, "Ready")[0] == "Unknown"
    machine.node.orders[pods[2]] = READY
    machine.settle()
    assert revision_condition(machine, "Ready")[0] == "True"
    assert len(machine.pods("web-00001")) == 1
    machine.assert_settled()
