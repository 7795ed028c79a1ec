from __future__ import annotations

from typing import Any

from unit.controllers.fakes import CRASH, HANG, READY
from unit.controllers.machine import Machine, knative_service

from glowplug.controllers import ControllersConfig
from glowplug.spec import kinds

MIN_ONE = {"autoscaling.knative.dev/min-scale": "1"}


def pinned(revision: str, percent: int, tag: str | None = None) -> dict[str, Any]:
    target: dict[str, Any] = {"revisionName": revision, "percent": percent, "latestRevision": False}
    return {**target, "tag": tag} if tag else target


def latest(percent: int, tag: str | None = None) -> dict[str, Any]:
    target: dict[str, Any] = {"latestRevision": True, "percent": percent}
    return {**target, "tag": tag} if tag else target


def apply(machine: Machine, image: str, traffic: list[dict[str, Any]] | None = None) -> None:
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image=image, traffic=traffic, annotations=MIN_ONE))
    machine.settle()


def with_two_revisions() -> Machine:
    machine = Machine(ControllersConfig(retire_delay_s=2))
    apply(machine, "app:1")
    apply(machine, "app:2")
    machine.advance(60)
    assert machine.pods("web-00001") == [] and len(machine.pods("web-00002")) == 1
    return machine


def test_a_split_over_two_revisions_with_tags() -> None:
    machine = Machine()
    apply(machine, "app:1")
    apply(machine, "app:2", [latest(10, "new"), pinned("web-00001", 90, "old")])
    assert machine.splits("web") == {"web-00001": 90, "web-00002": 10}
    assert machine.splits("new-web") == {"web-00002": 100}
    assert machine.splits("old-web") == {"web-00001": 100}
    assert machine.get(kinds.ROUTE, "web")["status"]["traffic"] == [
        {
            "latestRevision": True,
            "percent": 10,
            "revisionName": "web-00002",
            "tag": "new",
            "url": "http://127.0.0.1:8080/serving/default/new-web",
        },
        {
            "latestRevision": False,
            "percent": 90,
            "revisionName": "web-00001",
            "tag": "old",
            "url": "http://127.0.0.1:8080/serving/default/old-web",
        },
    ]
    routes = {route.name: route for route in machine.tables[-1].routes}
    assert routes["new-web"].path_prefixes == ("/serving/default/new-web",)
    assert "new-web.default.localhost" in routes["new-web"].hosts
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "True"
    machine.assert_settled()


def test_two_targets_of_one_revision_are_one_split() -> None:
    machine = Machine()
    apply(machine, "app:1", [latest(30), pinned("web-00001", 70)])
    assert machine.splits("web") == {"web-00001": 100}
    shares = [target["percent"] for target in machine.get(kinds.ROUTE, "web")["status"]["traffic"]]
    assert shares == [30, 70]


def test_a_tag_alone_keeps_its_revision_running() -> None:
    machine = Machine()
    apply(machine, "app:1")
    apply(machine, "app:2", [latest(100), pinned("web-00001", 0, "prev")])
    machine.advance(60)
    assert machine.splits("web") == {"web-00002": 100}
    assert machine.splits("prev-web") == {"web-00001": 100}
    assert len(machine.pods("web-00001")) == 1


def test_a_rollback_to_a_revision_without_pods_waits_for_them() -> None:
    machine = with_two_revisions()
    machine.apply(
        kinds.KNATIVE_SERVICE,
        knative_service(image="app:2", traffic=[pinned("web-00001", 100)], annotations=MIN_ONE),
    )
    machine.settle(node=False)
    assert len(machine.pods("web-00001")) == 1
    assert machine.splits("web") == {"web-00002": 100}
    assert machine.condition(kinds.ROUTE, "web", "AllTrafficAssigned") == (
        "Unknown",
        "RevisionMissing",
        'Revision "web-00001" is not yet ready.',
    )
    machine.settle()
    assert machine.splits("web") == {"web-00001": 100}
    machine.advance(60)
    assert machine.pods("web-00002") == []
    machine.assert_settled()


def test_a_rollback_to_a_revision_that_cannot_start_moves_nothing() -> None:
    machine = with_two_revisions()
    machine.objects.live[kinds.REVISION, "default", "web-00001"]["spec"]["containers"][0]["image"] = (
        f"app-{CRASH}"
    )
    apply(machine, "app:2", [pinned("web-00001", 100)])
    machine.advance(5000)
    assert machine.splits("web") == {"web-00002": 100}
    assert len(machine.pods("web-00002")) == 1
    assert machine.condition(kinds.ROUTE, "web", "AllTrafficAssigned")[0] == "False"


def test_a_missing_target_is_named_and_moves_nothing() -> None:
    machine = Machine()
    apply(machine, "app:1")
    apply(machine, "app:1", [pinned("web-00099", 100)])
    assert machine.condition(kinds.KNATIVE_SERVICE, "web") == (
        "False",
        "RevisionMissing",
        'Revision "web-00099" referenced in traffic not found.',
    )
    assert machine.splits("web") == {"web-00001": 100}
    machine.advance(60)
    assert len(machine.pods("web-00001")) == 1


def test_a_revision_of_another_service_is_refused() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service("other"))
    apply(machine, "app:1", [pinned("other-00001", 100)])
    assert machine.condition(kinds.ROUTE, "web", "AllTrafficAssigned")[1] == "RevisionNotOwned"
    assert machine.splits("web") == {}


def test_shares_that_do_not_sum_to_100_are_refused() -> None:
    machine = Machine()
    apply(machine, "app:1")
    apply(machine, "app:1", [latest(30)])
    assert machine.condition(kinds.ROUTE, "web", "AllTrafficAssigned")[1] == "InvalidTraffic"
    assert machine.splits("web") == {"web-00001": 100}


def test_a_revision_that_was_overtaken_before_it_was_ready_is_stopped() -> None:
    machine = Machine()
    apply(machine, "app:1")
    apply(machine, f"app:2-{HANG}")
    apply(machine, "app:3")
    machine.advance(10)
    assert machine.splits("web") == {"web-00003": 100}
    assert machine.pods("web-00001") == [] and machine.pods("web-00002") == []


def test_a_revision_that_was_overtaken_can_still_be_named() -> None:
    machine = Machine()
    apply(machine, "app:1")
    apply(machine, f"app:2-{HANG}")
    apply(machine, "app:3")
    machine.advance(10)
    machine.apply(
        kinds.KNATIVE_SERVICE,
        knative_service(image="app:3", traffic=[pinned("web-00002", 100)], annotations=MIN_ONE),
    )
    machine.settle()
    (pod,) = machine.pods("web-00002")
    machine.node.orders[pod["metadata"]["name"]] = READY
    machine.settle()
    assert machine.splits("web") == {"web-00002": 100}


def test_a_route_and_a_configuration_without_a_service() -> None:
    machine = Machine()
    container = {"image": "app"}
    machine.apply(
        kinds.CONFIGURATION,
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Configuration",
            "metadata": {"name": "alone", "namespace": "default"},
            "spec": {"template": {"spec": {"containers": [container]}}},
        },
    )
    route = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Route",
        "metadata": {"name": "front", "namespace": "default"},
        "spec": {"traffic": [{"configurationName": "alone", "latestRevision": True, "percent": 100}]},
    }
    machine.apply(kinds.ROUTE, route)
    machine.settle()
    assert machine.splits("front") == {"alone-00001": 100}
    revision = machine.get(kinds.REVISION, "alone-00001")
    assert revision["metadata"]["annotations"]["serving.knative.dev/routes"] == "front"
    machine.objects.delete(kinds.ROUTE, "default", "front")
    machine.advance(60)
    assert machine.tables[-1].routes == ()
    assert machine.get(kinds.REVISION, "alone-00001")["metadata"]["labels"][
        "serving.knative.dev/routingState"
    ] == ("reserve")
    assert machine.pods("alone-00001") == []


def test_traffic_to_a_deleted_revision_answers_from_an_empty_backend() -> None:
    machine = Machine()
    apply(machine, "app:1")
    machine.objects.delete(kinds.REVISION, "default", "web-00001")
    machine.settle()
    # The generation has its revision again, under the same name.
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "True"
    assert machine.splits("web") == {"web-00001": 100}
    assert len(machine.tables[-1].backends[0].endpoints) == 1


def test_a_revision_that_requests_wait_for_stays_in_the_table_until_they_have_gone() -> None:
    machine = Machine(ControllersConfig(retire_delay_s=2))
    machine.autoscaler.desired["default/web-00001"] = 0
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:1"))
    machine.advance(60)
    assert machine.pods("web-00001") == []
    # A request came, and before its pod is ready the service has changed.
    machine.waited_for.add("default/web-00001")
    machine.autoscaler.desired["default/web-00001"] = 1
    machine.controllers.wake("default/web-00001")
    machine.settle(node=False)
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:2"))
    machine.advance(30)
    assert machine.splits("web") == {"web-00002": 100}
    (backend,) = (b for b in machine.tables[-1].backends if b.revision == "default/web-00001")
    assert backend.takes_requests and len(backend.endpoints) == 1

    machine.waited_for.clear()
    machine.advance(5)
    assert machine.pods("web-00001") == []
    assert {backend.revision for backend in machine.tables[-1].backends} == {"default/web-00002"}
    machine.assert_settled()


def test_a_revision_that_fails_is_not_kept_for_those_who_wait() -> None:
    machine = Machine(ControllersConfig(retire_delay_s=2))
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:1"))
    machine.settle()
    (pod,) = machine.pods("web-00001")
    machine.node.orders[pod["metadata"]["name"]] = CRASH
    machine.waited_for.add("default/web-00001")
    machine.settle()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:2"))
    machine.advance(30)
    assert {backend.revision for backend in machine.tables[-1].backends} == {"default/web-00002"}
    assert machine.pods("web-00001") == []
