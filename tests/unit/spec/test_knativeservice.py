from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from unit.spec.shapes import changed, knative_service

from glowplug.spec import knativeservice as kn

Object = dict[str, Any]


def _container(obj: Object) -> Object:
    found: Object = obj["spec"]["template"]["spec"]["containers"][0]
    return found


def _fields(obj: Object, old: Object | None = None) -> dict[str, str]:
    return {problem.field: problem.message for problem in kn.validate_service(obj, old)}


def test_defaults_are_knatives() -> None:
    obj = knative_service()
    del _container(obj)["livenessProbe"]
    defaulted = kn.default_service(obj)
    spec = defaulted["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert (spec["timeoutSeconds"], spec["containerConcurrency"], spec["enableServiceLinks"]) == (
        100,
        0,
        False,
    )
    assert container["name"] == "user-container"
    assert container["readinessProbe"] == {"tcpSocket": {"port": 0}, "successThreshold": 1}
    assert "readOnly" not in container["volumeMounts"][0]
    assert defaulted["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]


def test_mounts_of_what_cannot_be_written_are_read_only() -> None:
    obj = knative_service()
    obj["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "s"}}]
    assert _container(kn.default_service(obj))["volumeMounts"][0]["readOnly"] is True


def test_several_containers_get_names_that_do_not_clash() -> None:
    obj = knative_service()
    containers = obj["spec"]["template"]["spec"]["containers"]
    containers += [{"image": "b"}, {"image": "c", "name": "user-container-1"}, {"image": "d"}]
    names = [item["name"] for item in kn.default_service(obj)["spec"]["template"]["spec"]["containers"]]
    assert names == ["user-container-0", "user-container-2", "user-container-1", "user-container-3"]


def test_a_valid_service_is_valid_before_and_after_defaulting() -> None:
    obj = knative_service(traffic=[{"percent": 100, "latestRevision": True}])
    assert kn.validate_service(obj) == ()
    assert kn.validate_service(kn.default_service(obj)) == ()


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"name": "queue-proxy"}, "name", "reserved container name"),
        ({"image": ""}, "image", "missing field(s)"),
        ({"image": "a b"}, "image", "Failed to parse image reference"),
        ({"lifecycle": {"preStop": {}}}, "lifecycle", "must not set the field(s)"),
        ({"env": [{"name": "PORT"}]}, "env[0].name", "reserved environment variable"),
        ({"env": [{"name": "a=b"}]}, "env[0].name", "printable ASCII"),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "env[0].valueFrom", "got neither"),
        ({"envFrom": [{}]}, "envFrom[0]", "got neither: configMapRef, secretRef"),
        ({"ports": [{"containerPort": 8012}]}, "ports[0].containerPort", "reserved port"),
        ({"ports": [{"containerPort": 70000}]}, "ports[0].containerPort", "expected 0 <= 70000 <= 65535"),
        ({"ports": [{"containerPort": 80, "name": "web"}]}, "ports[0].name", "Port name web is not allowed"),
        ({"ports": [{"containerPort": 80, "protocol": "UDP"}]}, "ports[0].protocol", "invalid value: UDP"),
        ({"livenessProbe": {}}, "livenessProbe", "got neither"),
        (
            {"livenessProbe": {"exec": {"command": ["a"]}, "grpc": {}}},
            "livenessProbe",
            "got both: exec, grpc",
        ),
        (
            {"readinessProbe": {"periodSeconds": 0, "failureThreshold": 3}},
            "readinessProbe.failureThreshold",
            "disallowed",
        ),
        ({"readinessProbe": {"periodSeconds": -1}}, "readinessProbe.periodSeconds", "expected 0 <= -1"),
        ({"resources": {"limits": {"cpu": "-1"}}}, "resources.limits[cpu]", "greater than or equal to 0"),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
            "resources.requests[cpu]",
            "cpu limit of 1",
        ),
        ({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}, "volumeMounts[0].name", "no matching volume"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/dev/"}]},
            "volumeMounts[0].mountPath",
            "reserved path",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "x"}]},
            "volumeMounts[0].mountPath",
            "invalid value: x",
        ),
    ],
)
def test_the_rules_for_a_container(change: Object, field: str, message: str) -> None:
    obj = kn.default_service(knative_service())
    _container(obj).update(change)
    assert message in _fields(obj)[f"spec.template.spec.containers[0].{field}"]


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"timeoutSeconds": 601}, "timeoutSeconds", "expected 0 <= 601 <= 600"),
        ({"idleTimeoutSeconds": 101}, "idleTimeoutSeconds", "expected 0 <= 101 <= 100"),
        ({"containerConcurrency": 1001}, "containerConcurrency", "expected 0 <= 1001 <= 1000"),
        ({"containers": []}, "containers", "missing field(s)"),
        ({"containers": [{"image": "a"}, {"image": "b"}]}, "containers[*].ports", "missing field(s)"),
        ({"initContainers": [{"image": "a"}]}, "initContainers", "no init containers"),
        ({"restartPolicy": "Never"}, "restartPolicy", "must not set the field(s)"),
        ({"automountServiceAccountToken": True}, "automountServiceAccountToken", "only false is allowed"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volumes[0].hostPath", "Forbidden"),
        ({"volumes": [{"name": "v"}]}, "volumes[0]", "got neither"),
        ({"volumes": [{"name": "v", "emptyDir": {}, "secret": {}}]}, "volumes[0]", "got both"),
        ({"volumes": [{"name": "w", "emptyDir": {}}]}, "volumes[0].name", 'volume with name "w" not mounted'),
    ],
)
def test_the_rules_for_a_pod(change: Object, field: str, message: str) -> None:
    obj = kn.default_service(knative_service())
    obj["spec"]["template"]["spec"].update(change)
    assert message in _fields(obj)[f"spec.template.spec.{field}"]


def test_only_one_port_in_all_containers() -> None:
    obj = knative_service()
    obj["spec"]["template"]["spec"]["containers"].append({"image": "b", "ports": [{"containerPort": 1}]})
    assert "more than one container port" in _fields(obj)["spec.template.spec.containers[*].ports"]


@pytest.mark.parametrize(
    ("traffic", "field", "message"),
    [
        ([{"percent": 99}], "", "Traffic targets sum to 99, want 100"),
        ([{"percent": 101}, {"percent": -1}], "[0].percent", "expected 0 <= 101 <= 100"),
        (
            [{"percent": 100, "revisionName": "a", "latestRevision": True}],
            "[0].latestRevision",
            "may not set revisionName",
        ),
        ([{"percent": 100, "latestRevision": False}], "[0].latestRevision", "may not set revisionName"),
        ([{"percent": 100, "configurationName": "a"}], "[0].configurationName", "must not set the field(s)"),
        ([{"percent": 100, "tag": "A_b"}], "[0].tag", "not a DNS 1035 label"),
        (
            [{"percent": 100, "tag": "a"}, {"percent": 0, "tag": "a"}],
            "[1].tag",
            'Multiple definitions for "a"',
        ),
        ([{"percent": 100, "url": "http://x"}], "[0].url", "must not set the field(s)"),
    ],
)
def test_the_rules_for_traffic(traffic: list[Object], field: str, message: str) -> None:
    assert message in _fields(knative_service(traffic=traffic))[f"spec.traffic{field}"]


def test_a_route_names_what_it_leads_to() -> None:
    route = {"metadata": {"name": "r"}, "spec": {"traffic": [{"percent": 100}]}}
    problems = kn.validate_route(kn.default_route(route))
    assert [problem.field for problem in problems] == ["spec.traffic[0]"]
    route["spec"]["traffic"][0]["configurationName"] = "c"  # type: ignore[index]
    assert kn.validate_route(kn.default_route(route)) == ()


def test_autoscaling_annotations_belong_into_the_template() -> None:
    obj = knative_service()
    obj["metadata"]["annotations"] = {"autoscaling.knative.dev/min-scale": "1"}
    assert "spec.template.metadata.annotations" in " ".join(_fields(obj).values())


def test_a_named_template_needs_its_services_prefix_and_a_new_name_for_a_change() -> None:
    obj = knative_service()
    obj["spec"]["template"]["metadata"]["name"] = "other-1"
    assert 'must have prefix "hello-"' in _fields(obj)["spec.template.metadata.name"]
    obj["spec"]["template"]["metadata"]["name"] = "hello-1"
    new = copy.deepcopy(obj)
    new["spec"]["template"]["spec"]["timeoutSeconds"] = 50
    message = _fields(new, obj)["spec.template.metadata.name"]
    assert "without a name change" in message
    assert "spec.timeoutSeconds: -100 +50" in message
    new["spec"]["template"]["metadata"]["name"] = "hello-2"
    assert "spec.template.metadata.name" not in _fields(new, obj)


def test_a_revisions_spec_never_changes() -> None:
    template = knative_service()["spec"]["template"]["spec"]
    old = kn.default_revision({"metadata": {"name": "hello-00001"}, "spec": template})
    assert kn.validate_revision(old) == ()
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    assert kn.validate_revision(new, old) == ()
    new["spec"]["timeoutSeconds"] = 7
    (problem,) = kn.validate_revision(new, old)
    assert (problem.field, "Immutable fields changed" in problem.message) == ("spec", True)


def test_an_owner_label_needs_its_owner() -> None:
    obj = knative_service()
    obj["metadata"]["labels"] = {"serving.knative.dev/service": "s"}
    fields = {problem.field for problem in kn.validate_configuration(obj)}
    assert fields == {"metadata.labels[serving.knative.dev/service]"}
    obj["metadata"]["ownerReferences"] = [{"kind": "Service", "name": "s"}]
    assert kn.validate_configuration(obj) == ()


@pytest.mark.parametrize("name", ["", "a" * 64, "A", "1a", "a-", "a.b"])
def test_names_are_dns_1035_labels(name: str) -> None:
    obj = knative_service()
    obj["metadata"]["name"] = name
    assert ("metadata.name" in _fields(obj)) == (name != "")


def test_fields_that_only_place_or_size_a_pod_are_told() -> None:
    obj = knative_service()
    obj["spec"]["template"]["spec"].update(nodeSelector={"a": "b"}, tolerations=[{"key": "a"}])
    (warning,) = kn.warnings(obj)
    assert "nodeSelector, tolerations, containers[0].resources" in warning
    del _container(obj)["resources"]
    assert "resources" not in kn.warnings(kn.default_service(obj))[0]


@given(changed(knative_service()))
def test_anything_is_answered_and_defaulting_twice_is_defaulting_once(obj: Object) -> None:
    before = copy.deepcopy(obj)
    for default, validate in (
        (kn.default_service, kn.validate_service),
        (kn.default_configuration, kn.validate_configuration),
        (kn.default_revision, kn.validate_revision),
        (kn.default_route, kn.validate_route),
    ):
        defaulted = default(obj)
        assert default(defaulted) == defaulted
        for problem in (*validate(obj, None), *validate(defaulted, obj)):
            assert problem.message
            assert not problem.field.endswith(".")
    kn.warnings(obj)
    assert obj == before
