"""What `doctor` says of a cluster's platform, of objects as a real one gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from glowplug.cli import platform
from glowplug.spec import names


def deployment(name: str, image: str = "", version: str = "", available: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "space", "labels": {"app.kubernetes.io/version": version}},
        "spec": {
            "replicas": 1,
            "template": {
                "spec": {
                    "containers": [{"name": "proxy", "image": "p:9"}, {"name": "manager", "image": image}]
                }
            },
        },
        "status": {"availableReplicas": available} if available else {},
    }


def inferenceservice_config(*keys: str) -> dict[str, Any]:
    return {"data": {"inferenceService": json.dumps({"serviceAnnotationDisallowedList": list(keys)})}}


@pytest.mark.parametrize(
    ("text", "is_ok", "is_optional"),
    [
        ("1.21.1", True, False),
        ("v1.22.0", True, False),
        ("1.20.9", False, False),
        ("devel", False, True),
        ("", False, True),
    ],
)
def test_an_older_release_is_a_failure_and_an_unknown_one_is_told(
    text: str, is_ok: bool, is_optional: bool
) -> None:
    found = platform.release("Knative", text, (1, 21), "upgrade")
    assert (found.is_ok, found.is_optional) == (is_ok, is_optional)


def test_versions_are_where_the_releases_have_them() -> None:
    assert platform.knative_version(deployment("controller", version="1.21.1")) == "1.21.1"
    manager = deployment("kserve-controller-manager", image="kserve/kserve-controller:v0.20.0")
    assert platform.kserve_version(manager) == "v0.20.0"


def test_names_what_does_not_run() -> None:
    found = platform.running("KServe", [deployment("a"), deployment("b", available=0)])
    assert not found.is_ok
    assert "space/b" in found.text and "space/a" not in found.text
    assert "kubectl -n space describe pods" in found.hint
    assert platform.running("KServe", [deployment("a")]).is_ok


def test_what_is_switched_off() -> None:
    assert not platform.features({}).is_ok
    assert platform.features({"data": {"tag-header-based-routing": "enabled"}}).is_ok
    half = platform.observability({"data": {"metrics-protocol": "prometheus"}})
    assert not half.is_ok and half.text.startswith("request-metrics-protocol not set")
    both = {"metrics-protocol": "prometheus", "request-metrics-protocol": "prometheus"}
    assert platform.observability({"data": both}).is_ok


def test_annotations_of_rollouts() -> None:
    found = list(
        platform.unpassed_annotations(inferenceservice_config(names.ROLLOUT_STEPS), has_rollouts=True)
    )
    assert [each.is_ok or each.is_optional for each in found] == [False]
    assert names.ROLLOUT_STATE in found[0].text
    (unused,) = platform.unpassed_annotations({}, has_rollouts=False)
    assert unused.is_optional
    (whole, live) = platform.unpassed_annotations(
        inferenceservice_config(*names.ROLLOUT_KEYS), has_rollouts=True
    )
    assert whole.is_ok and names.SHADOW in live.text
    every = inferenceservice_config(*names.ROLLOUT_KEYS, *platform.LIVE_KEYS)
    assert all(each.is_ok for each in platform.unpassed_annotations(every, has_rollouts=True))


def test_services_that_nobody_looks_after() -> None:
    def asking(namespace: str, *keys: str) -> dict[str, Any]:
        return {"metadata": {"name": "a", "namespace": namespace, "annotations": dict.fromkeys(keys, "")}}

    services = [asking("serving", names.ROLLOUT_STEPS), asking("other"), asking("third", names.ROLLOUT_STEPS)]
    found = platform.unwatched(services, "serving second")
    assert found is not None and found.text.startswith("third/a: ")
    assert platform.unwatched(services, "serving third") is None
    assert platform.unwatched(services, "") is None, "all of them"


def test_gpus() -> None:
    nodes = [
        {"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "4"}}},
        {"metadata": {"name": "b"}, "status": {"allocatable": {"nvidia.com/gpu": "2"}}},
    ]
    assert not platform.gpus(nodes[:1]).is_ok
    assert platform.gpus(nodes).text == "b: 2 GPUs"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://prometheus.monitoring:9090", "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy"),
        ("http://prom.obs.svc", "/api/v1/namespaces/obs/services/prom:80/proxy"),
        ("http://prom.obs.svc.cluster.local:81/", "/api/v1/namespaces/obs/services/prom:81/proxy"),
        ("http://10.0.0.1:9090", None),
        ("", None),
    ],
)
def test_the_way_to_a_service(url: str, path: str | None) -> None:
    assert platform.proxy_path(url) == path


def test_prometheus() -> None:
    answer = {"status": "success", "data": {"result": [{"metric": {}, "value": [0, "7"]}]}}
    assert platform.prometheus("here", answer).is_ok
    assert not platform.prometheus("here", {"data": {"result": []}}).is_ok
    assert "answers as no Prometheus" in platform.prometheus("here", {"status": "error"}).text
