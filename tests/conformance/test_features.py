"""Features by entity from Redis: the lookup in the predictor's pod, and in pods of its own.

Two InferenceServices on one store; the model adds three features up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conformance.controller import image
from conformance.features import online_store
from conformance.target import Object, Target, service
from unit.features.lab import to_yaml

from glowplug.features.view import Entity, Feature, FeatureView, Group, OnMissing

GROUP = Group(
    "rider",
    ("rider_id",),
    "riders",
    "event_timestamp",
    tuple(Feature(name, default=0.1) for name in ("age", "spend", "visits")),
    on_missing=OnMissing.DEFAULT,
)
VIEW = FeatureView("riders", (Entity("rider_id"),), (GROUP,))
ROWS = {"ann": (0.2, 0.3, 0.4), "bob": (0.8, 0.9, 0.7)}
VIEWS = "/etc/glowplug/feature-views"
ARGUMENTS = (
    f"--feature_view={VIEWS}/feature_view.yaml",
    "--model_dir=/mnt/models",
    "--enable_predictor_health_check",
)
COLLOCATED, SEPARATE = "together", "apart"


@pytest.fixture(scope="module")
def store(target: Target) -> Iterator[None]:
    """What both services read: the rows, the view, and where Redis is."""
    with online_store(target, VIEW, ROWS) as url:
        data = {"feature-store": {"REDIS_URL": url}, "feature-views": {"feature_view.yaml": to_yaml(VIEW)}}
        for name, content in data.items():
            metadata = {"name": name}
            target.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": content})
        yield
        for name in data:
            target.kubectl("delete", "configmap", name)


def lookup(target: Target, container: str, http_port: int, *arguments: str) -> Object:
    small = {"requests": {"cpu": "20m", "memory": "96Mi"}}
    return {
        "name": container,
        "image": image(target).replace("/xgboost:", "/feature-lookup:"),
        "args": [*ARGUMENTS, f"--http_port={http_port}", *arguments],
        "envFrom": [{"configMapRef": {"name": "feature-store"}}],
        "ports": [{"containerPort": http_port, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": http_port}},
        "volumeMounts": [{"name": "views", "mountPath": VIEWS, "readOnly": True}],
        "resources": small,
    }


def collocated(target: Target) -> Object:
    found = service(target, COLLOCATED, minReplicas=1)
    local_predictor = ("--predictor_host=localhost:8081", "--predictor_protocol=grpc-v2")
    arguments = (f"--model_name={COLLOCATED}", "--grpc_port=8091", *local_predictor)
    predictor = found["spec"]["predictor"]
    predictor["containers"] = [lookup(target, "transformer-container", 8090, *arguments)]
    predictor["volumes"] = [{"name": "views", "configMap": {"name": "feature-views"}}]
    return found


def separate(target: Target) -> Object:
    found = service(target, SEPARATE, minReplicas=1)
    arguments = (f"--model_name={SEPARATE}", "--predictor_protocol=v2")
    container = lookup(target, "kserve-container", 8080, *arguments)
    # The layout of features is beside the model, which only the predictor has here.
    container["args"].remove("--model_dir=/mnt/models")
    found["spec"]["transformer"] = {
        "minReplicas": 1,
        "containers": [container],
        "volumes": [{"name": "views", "configMap": {"name": "feature-views"}}],
    }
    return found


@pytest.fixture(scope="module")
def both(target: Target, store: None) -> Iterator[None]:
    """Applied together, so that they start together."""
    services = (collocated(target), separate(target))
    try:
        for each in services:
            target.apply(each)
        for each in services:
            target.wait_ready(each["metadata"]["name"])
        yield
    finally:
        for each in services:
            target.delete(each["metadata"]["name"])


@pytest.mark.parametrize("name", [COLLOCATED, SEPARATE])
def test_a_prediction_by_entity(target: Target, both: None, name: str) -> None:
    url, host = target.address(name)
    entities = [*ROWS, "nobody"]
    tensor = {"name": "rider_id", "datatype": "BYTES", "shape": [3], "data": entities}
    answer = target.http.post(
        f"{url}/v2/models/{name}/infer", json={"inputs": [tensor]}, headers={"Host": host}
    )
    assert answer.status_code == 200, answer.text
    told = answer.json()
    expected = [sum(ROWS["ann"]), sum(ROWS["bob"]), 0.3]
    assert told["outputs"][0]["data"] == pytest.approx(expected, abs=0.3)
    assert told["parameters"]["feature_missing"] == 1, json.dumps(told["parameters"])
    wrong = {**tensor, "name": "nobody_knows"}
    refused = target.http.post(
        f"{url}/v2/models/{name}/infer", json={"inputs": [wrong]}, headers={"Host": host}
    )
    assert refused.status_code == 400, refused.text


def test_what_a_separate_transformer_adds_to_the_status(target: Target, both: None) -> None:
    """Its URL is the service's, and both have conditions of their own."""
    status = target.get("isvc", SEPARATE)["status"]
    assert set(status["components"]) == {"predictor", "transformer"}
    told = {each["type"]: each["status"] for each in status["conditions"]}
    for role in ("Predictor", "Transformer"):
        assert {told.get(f"{role}{each}") for each in ("Ready", "RouteReady", "ConfigurationReady")} == {
            "True"
        }
    together = {each["type"] for each in target.get("isvc", COLLOCATED)["status"]["conditions"]}
    assert not any(type.startswith("Transformer") for type in together)
