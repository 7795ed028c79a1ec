from __future__ import annotations

from unit.controllers.machine import Machine, knative_service

from glowplug.controllers import ControllersConfig
from glowplug.spec import kinds

URL = "http://127.0.0.1:8080/serving/default/web"
ALWAYS_ONE = {"autoscaling.knative.dev/min-scale": "1"}


def test_a_service_becomes_ready_with_the_objects_that_a_cluster_has() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service())
    machine.settle()
    status = machine.get(kinds.KNATIVE_SERVICE, "web")["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "ConfigurationsReady": "True",
        "Ready": "True",
        "RoutesReady": "True",
    }
    assert status["url"] == URL and status["address"] == {"url": URL}
    assert status["latestCreatedRevisionName"] == status["latestReadyRevisionName"] == "web-00001"
    assert status["traffic"] == [{"latestRevision": True, "percent": 100, "revisionName": "web-00001"}]
    assert status["observedGeneration"] == 1
    revision = machine.get(kinds.REVISION, "web-00001")
    labels = revision["metadata"]["labels"]
    assert labels["serving.knative.dev/configuration"] == labels["serving.knative.dev/service"] == "web"
    assert labels["serving.knative.dev/configurationGeneration"] == "1"
    assert labels["serving.knative.dev/routingState"] == "active"
    assert revision["metadata"]["annotations"]["serving.knative.dev/routes"] == "web"
    assert revision["spec"]["timeoutSeconds"] == 300
    assert {c["type"]: c["status"] for c in revision["status"]["conditions"]} == {
        "Active": "True",
        "ContainerHealthy": "True",
        "Ready": "True",
        "ResourcesAvailable": "True",
    }
    assert (revision["status"]["actualReplicas"], revision["status"]["desiredReplicas"]) == (1, 1)
    machine.assert_settled()


def test_the_pods_are_named_labelled_and_owned_as_a_deployment_s() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(timeoutSeconds=42))
    machine.settle()
    (pod,) = machine.pods("web-00001")
    head, digest, token = pod["metadata"]["name"].rsplit("-", 2)
    assert head == "web-00001-deployment" and len(digest) == 8 and len(token) == 5
    assert pod["metadata"]["labels"]["app"] == "web-00001"
    assert "serving.knative.dev/routingState" not in pod["metadata"]["labels"]
    owner = pod["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Revision", "web-00001", True)
    assert pod["spec"]["terminationGracePeriodSeconds"] == 42
    assert pod["spec"]["restartPolicy"] == "Always"
    assert "containerConcurrency" not in pod["spec"] and "timeoutSeconds" not in pod["spec"]
    assert pod["spec"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"] == 8080
    autoscaler = machine.get(kinds.POD_AUTOSCALER, "web-00001")
    assert autoscaler["spec"]["reachability"] == "Reachable"
    assert autoscaler["spec"]["protocolType"] == "http1"
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == "web-00001-deployment"
    assert (autoscaler["status"]["desiredScale"], autoscaler["status"]["actualScale"]) == (1, 1)


def test_the_table_has_hosts_path_and_the_pods_real_ports() -> None:
    machine = Machine(ControllersConfig(domain="example.test"))
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(containerConcurrency=4, timeoutSeconds=10))
    machine.settle()
    table = machine.tables[-1]
    (route,) = table.routes
    assert route.hosts == (
        "web.default.example.test",
        "web.default.svc.cluster.local",
        "web.default.svc",
        "web.default",
    )
    assert route.path_prefixes == ("/serving/default/web",)
    (backend,) = table.backends
    assert (backend.revision, backend.container_concurrency, backend.timeout_s) == (
        "default/web-00001",
        4,
        10.0,
    )
    (endpoint,) = backend.endpoints
    assert endpoint.grpc_port == endpoint.http_port + 1 and endpoint.host == "127.0.0.1"


def test_nothing_is_published_before_all_that_exists_was_looked_at() -> None:
    machine = Machine()
    for name in ("a", "b", "c"):
        machine.apply(kinds.KNATIVE_SERVICE, knative_service(name))
    machine.settle()
    machine.tables.clear()
    machine.restart()
    machine.settle()
    assert [len(table.routes) for table in machine.tables] == [3]


def test_a_new_template_replaces_before_it_retires() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(annotations=ALWAYS_ONE))
    machine.settle()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(image="app:2-hang", annotations=ALWAYS_ONE))
    machine.advance(30)
    assert machine.splits("web") == {"web-00001": 100}
    assert len(machine.pods("web-00001")) == 1 and len(machine.pods("web-00002")) == 1
    assert machine.condition(kinds.KNATIVE_SERVICE, "web")[0] == "Unknown"
    machine.node.orders[machine.pods("web-00002")[0]["metadata"]["name"]] = "ready"
    machine.settle()
    assert machine.splits("web") == {"web-00002": 100}
    assert len(machine.pods("web-00001")) == 1, "it keeps its pods for a moment"
    machine.advance(5)
    assert machine.pods("web-00001") == []
    old = machine.get(kinds.REVISION, "web-00001")
    assert old["metadata"]["labels"]["serving.knative.dev/routingState"] == "reserve"
    assert machine.condition(kinds.REVISION, "web-00001") == ("True", "", "")
    assert machine.condition(kinds.REVISION, "web-00001", "Active")[:2] == ("False", "NoTraffic")
    assert machine.get(kinds.POD_AUTOSCALER, "web-00001")["spec"]["reachability"] == "Unreachable"
    machine.assert_settled()


def test_an_unchanged_template_makes_no_revision() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service())
    machine.settle()
    changed = knative_service(traffic=[{"latestRevision": True, "percent": 100, "tag": "now"}])
    changed["metadata"]["labels"] = {"team": "a"}
    machine.apply(kinds.KNATIVE_SERVICE, changed)
    machine.settle()
    assert machine.names(kinds.REVISION) == ["web-00001"]
    assert machine.get(kinds.CONFIGURATION, "web")["metadata"]["labels"]["team"] == "a"


def test_a_revision_name_of_the_user_s_is_kept_and_one_that_is_taken_stops_the_traffic() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(template_name="web-blue"))
    machine.settle()
    assert machine.splits("web") == {"web-blue": 100}
    other = knative_service("other", image="other", template_name="web-blue")
    machine.apply(kinds.KNATIVE_SERVICE, other)
    machine.settle()
    assert machine.condition(kinds.CONFIGURATION, "other")[:2] == ("False", "RevisionFailed")
    assert machine.condition(kinds.KNATIVE_SERVICE, "other", "RoutesReady")[1] == "RevisionNameTaken"
    assert machine.splits("other") == {}
    machine.assert_settled()


def test_a_child_that_somebody_else_owns_is_left_alone() -> None:
    machine = Machine()
    configuration = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Configuration",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"image": "theirs"}]}}},
    }
    machine.apply(kinds.CONFIGURATION, configuration)
    machine.apply(kinds.KNATIVE_SERVICE, knative_service())
    machine.settle()
    assert machine.condition(kinds.KNATIVE_SERVICE, "web") == (
        "False",
        "NotOwned",
        'There is an existing Configuration "web" that we do not own.',
    )
    theirs = machine.get(kinds.CONFIGURATION, "web")["spec"]["template"]["spec"]["containers"][0]
    assert theirs["image"] == "theirs"


def test_deleting_a_service_takes_everything_with_it() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service())
    machine.settle()
    machine.objects.delete(kinds.KNATIVE_SERVICE, "default", "web")
    machine.settle()
    assert machine.objects.live == {}
    assert machine.tables[-1].routes == () and machine.tables[-1].backends == ()


def test_old_revisions_are_collected_and_those_with_traffic_stay() -> None:
    machine = Machine(ControllersConfig(kept_revisions=3, retire_delay_s=0))
    traffic = [
        {"revisionName": "web-00001", "percent": 50, "latestRevision": False},
        {"latestRevision": True, "percent": 50},
    ]
    for generation in range(1, 9):
        extra = {} if generation == 1 else {"traffic": traffic}
        machine.apply(kinds.KNATIVE_SERVICE, knative_service(image=f"app:{generation}", **extra))
        machine.advance(10)
    assert machine.names(kinds.REVISION) == ["web-00001", "web-00005", "web-00006", "web-00007", "web-00008"]
    assert machine.splits("web") == {"web-00001": 50, "web-00008": 50}


def test_min_scale_on_the_live_revision_raises_its_floor_without_a_new_revision() -> None:
    machine = Machine()
    machine.apply(kinds.KNATIVE_SERVICE, knative_service(annotations=ALWAYS_ONE))
    machine.settle()
    revision = machine.get(kinds.REVISION, "web-00001")
    revision["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] = "3"
    machine.objects.update(kinds.REVISION, revision)
    machine.settle()
    assert len(machine.pods("web-00001")) == 3
    autoscaler = machine.get(kinds.POD_AUTOSCALER, "web-00001")
    assert autoscaler["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] == "3"
    assert machine.names(kinds.REVISION) == ["web-00001"]
    machine.assert_settled()
