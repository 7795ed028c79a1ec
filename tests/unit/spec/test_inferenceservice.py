from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from unit.spec.shapes import changed, custom_inference_service, inference_service

from glowplug.spec import inferenceservice as isvc

Object = dict[str, Any]
MODE = "serving.kserve.io/deploymentMode"


def _fields(obj: Object, old: Object | None = None) -> dict[str, str]:
    return {problem.field: problem.message for problem in isvc.validate(isvc.default(obj), old)}


def _model(**model: Any) -> Object:
    obj = inference_service()
    obj["spec"]["predictor"]["model"].update(model)
    return obj


@pytest.mark.parametrize("obj", [inference_service(), custom_inference_service()])
def test_what_is_valid_stays_valid(obj: Object) -> None:
    assert isvc.validate(obj) == ()
    assert isvc.validate(isvc.default(obj)) == ()
    assert isvc.warnings(obj) == ()


def test_a_frameworks_field_becomes_a_model() -> None:
    obj = inference_service()
    obj["spec"]["predictor"] = {"triton": {"storageUri": "gs://b/m"}}
    model = isvc.default(obj)["spec"]["predictor"]
    assert model == {
        "model": {"modelFormat": {"name": "triton"}, "protocolVersion": "v2", "storageUri": "gs://b/m"}
    }


def test_two_frameworks_stay_two_and_are_refused() -> None:
    obj = inference_service()
    obj["spec"]["predictor"] = {"sklearn": {}, "model": {"modelFormat": {"name": "xgboost"}}}
    assert "found: model, sklearn" in _fields(obj)["spec.predictor"]


def test_a_custom_container_is_named_as_kserve_names_it() -> None:
    spec = isvc.default(custom_inference_service())["spec"]
    assert spec["predictor"]["containers"][0]["name"] == "kserve-container"
    assert spec["transformer"]["containers"][0]["name"] == "kserve-container"


def test_the_deployment_mode() -> None:
    obj = inference_service()
    for written, warning in ((None, "default is Standard"), ("Serverless", "deprecated")):
        obj["metadata"]["annotations"] = {} if written is None else {MODE: written}
        assert isvc.default(obj)["metadata"]["annotations"] == {MODE: "Knative"}
        assert warning in isvc.warnings(obj)[0]
        assert _fields(obj) == {}
    for refused in ("Standard", "RawDeployment", "ModelMesh", "knative"):
        obj["metadata"]["annotations"] = {MODE: refused}
        assert "supported values" in _fields(obj)[f"metadata.annotations[{MODE}]"]


def test_the_deployment_mode_of_what_runs_is_not_changed() -> None:
    old = {**inference_service(), "status": {"deploymentMode": "Standard"}}
    assert (
        "cannot be changed from 'Standard'"
        in _fields(inference_service(), old)[f"metadata.annotations[{MODE}]"]
    )


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        ("a", True),
        ("a" * 53, True),
        ("a" * 54, False),
        ("1a", False),
        ("A", False),
        ("a.b", False),
        ("a-", False),
    ],
)
def test_names(name: str, is_valid: bool) -> None:
    obj = inference_service()
    obj["metadata"]["name"] = name
    assert ("metadata.name" not in _fields(obj)) == is_valid


def test_a_transformers_name_is_longer() -> None:
    obj = custom_inference_service()
    obj["metadata"]["name"] = "a" * 52
    assert "no more than 51" in _fields(obj)["metadata.name"]


@pytest.mark.parametrize(
    ("predictor", "field", "message"),
    [
        ({"minReplicas": -1}, "minReplicas", "'MinReplicas' cannot be less than 0"),
        ({"maxReplicas": -1}, "maxReplicas", "'MaxReplicas' cannot be less than 0"),
        (
            {"minReplicas": 4, "maxReplicas": 3},
            "minReplicas",
            "'MinReplicas' cannot be greater than MaxReplicas",
        ),
        ({"containerConcurrency": -1}, "containerConcurrency", "parallelism cannot be less than 0"),
        ({"containerConcurrency": 1001}, "containerConcurrency", "expected 0 <= 1001 <= 1000"),
        ({"timeout": 601}, "timeout", "expected 0 <= 601 <= 600"),
        ({"canaryTrafficPercent": 101}, "canaryTrafficPercent", "expected 0 <= 101 <= 100"),
        ({"scaleMetric": "qps"}, "scaleMetric", "requests per second is called rps"),
        ({"scaleMetric": "cpu"}, "scaleMetric", "not a supported metric in Knative mode"),
        ({"scaleMetric": "rps", "scaleTarget": 0}, "scaleTarget", "the target for rps"),
        ({"logger": {"mode": "some", "url": "http://x"}}, "logger.mode", "invalid logger type"),
        ({"logger": {"url": "http://x"}}, "logger.mode", "Required value"),
        ({"logger": {"mode": "all", "url": "x"}}, "logger.url", "http://"),
        ({"logger": {"mode": "all", "url": "http://x", "storage": {}}}, "logger.storage", "Forbidden"),
        ({"batcher": {"maxBatchSize": 8}}, "batcher", "Forbidden"),
        ({"workerSpec": {}}, "workerSpec", "multi-node"),
        ({"storageUris": [{"uri": "s3://a/b"}]}, "storageUris", "use storageUri"),
        ({"deploymentStrategy": {}}, "deploymentStrategy", "raw deployment mode"),
        ({"name": "blue"}, "name", "Standard mode"),
        ({"initContainers": [{"name": "a"}]}, "initContainers", "no init containers"),
        ({"labels": {"a b": "c"}}, "labels", "name part must consist"),
        (
            {"annotations": {"autoscaling.knative.dev/window": "1s"}},
            "annotations[autoscaling.knative.dev/window]",
            "6s",
        ),
    ],
)
def test_the_rules_for_a_component(predictor: Object, field: str, message: str) -> None:
    assert message in _fields(inference_service(**predictor))[f"spec.predictor.{field}"]


@pytest.mark.parametrize(
    ("model", "field", "message"),
    [
        ({"modelFormat": {}}, "modelFormat.name", "Required value"),
        ({"name": "m"}, "name", "the 'name' field is not allowed in standard predictor"),
        ({"protocolVersion": "v3"}, "protocolVersion", "supported values"),
        ({"storage": {"key": "k"}}, "storage", "use storageUri"),
        ({"confidential": {"enabled": True}}, "confidential.enabled", "decrypts no models"),
        ({"env": [{"name": "PYTHONPATH", "value": "."}]}, "env[0].name", "security reasons"),
        ({"livenessProbe": {"httpGet": {"path": "/"}}}, "livenessProbe.httpGet.port", "Required value"),
    ],
)
def test_the_rules_for_a_model(model: Object, field: str, message: str) -> None:
    assert message in _fields(_model(**model))[f"spec.predictor.model.{field}"]


@pytest.mark.parametrize(
    "uri",
    [
        "pvc://c/a/b",
        "pvc://c",
        "s3://b/k",
        "gs://b/k",
        "hf://o/m",
        "https://h/f",
        "file:///tmp/m",
        "/models/m",
    ],
)
def test_storage_uris_that_are_fetched(uri: str) -> None:
    assert _fields(_model(storageUri=uri)) == {}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("oci://r/i:1", "container runtime"),
        ("oci+native://r/i", "container runtime"),
        ("ftp://h/f", "must be one of"),
        ("models/m", "absolute local path"),
        ("", "1 to 4096"),
        ("s3://", "no location"),
        ("pvc://C_/x", "claim's name"),
        ("pvc://c/../d", "without '..'"),
        ("s3:/x", "must be one of"),
    ],
)
def test_storage_uris_that_are_not(uri: str, message: str) -> None:
    assert message in _fields(_model(storageUri=uri))["spec.predictor.model.storageUri"]


def test_what_the_machine_cannot_do_is_an_error() -> None:
    obj = inference_service()
    obj["spec"]["explainer"] = {}
    obj["spec"]["canary"] = [{"predictor": {"name": "b"}, "trafficPercent": 10}]
    assert {"spec.explainer", "spec.canary"} <= set(_fields(obj))


def test_what_only_places_or_sizes_a_pod_is_a_warning() -> None:
    obj = _model(resources={"limits": {"nvidia.com/gpu": "1"}})
    obj["spec"]["predictor"].update(
        nodeSelector={"a": "b"}, serviceAccountName="sa", autoScaling={"metrics": []}
    )
    assert _fields(obj) == {}
    (warning,) = isvc.warnings(obj)
    assert "autoScaling, nodeSelector, serviceAccountName, model.resources: without effect" in warning


def test_what_the_machine_does_needs_no_warning() -> None:
    obj = inference_service(minReplicas=0, maxReplicas=3, scaleMetric="rps", scaleTarget=4)
    for logger in ({"mode": "all", "url": "http://sink"}, {"mode": "request"}):
        obj["spec"]["predictor"]["logger"] = logger
        assert _fields(obj) == {}
        assert isvc.warnings(obj) == ()


def test_a_transformer_needs_containers() -> None:
    obj = inference_service()
    obj["spec"]["transformer"] = {"minReplicas": 1}
    assert "Required value" in _fields(obj)["spec.transformer.containers"]


def test_a_predictor_is_something() -> None:
    obj = inference_service()
    obj["spec"]["predictor"] = {"minReplicas": 1}
    assert "exactly one of" in _fields(obj)["spec.predictor"]


def test_one_of_several_containers_is_the_predictor() -> None:
    obj = inference_service()
    names = ("a", "b")
    containers = [{"name": name, "image": "x", "ports": []} for name in names]
    containers[0]["ports"] = [{"containerPort": 1}]
    obj["spec"]["predictor"] = {"containers": containers}
    assert "named kserve-container" in _fields(obj)["spec.predictor.containers"]


def test_a_collocated_transformer_brings_no_model() -> None:
    obj = inference_service()
    obj["spec"]["predictor"]["containers"][0]["env"] = [{"name": "STORAGE_URI", "value": "s3://a/b"}]
    assert "should not be specified" in _fields(obj)["spec.predictor.containers[0].env[0]"]


def test_a_custom_predictors_protocol() -> None:
    obj = custom_inference_service()
    obj["spec"]["predictor"]["containers"][0]["env"] = [{"name": "PROTOCOL", "value": "v9"}]
    assert "Must be one of [v1, v2]" in _fields(obj)["spec.predictor.containers[0].env[0].value"]


def test_the_autoscaler_class() -> None:
    obj = inference_service()
    key = "serving.kserve.io/autoscalerClass"
    obj["metadata"]["annotations"][key] = "keda"
    assert _fields(obj) == {}
    assert "no effect" in isvc.warnings(obj)[0]
    obj["metadata"]["annotations"][key] = "mine"
    assert "not a supported autoscaler class type" in _fields(obj)[f"metadata.annotations[{key}]"]


def test_every_problem_is_found_at_once() -> None:
    obj = inference_service(minReplicas=-1, timeout=900, scaleMetric="qps", batcher={})
    obj["metadata"]["name"] = "Bad"
    obj["spec"]["explainer"] = {}
    assert len(_fields(obj)) == 6


@given(changed(inference_service()) | changed(custom_inference_service()))
def test_anything_is_answered_and_defaulting_twice_is_defaulting_once(obj: Object) -> None:
    before = copy.deepcopy(obj)
    defaulted = isvc.default(obj)
    assert isvc.default(defaulted) == defaulted
    for problem in (*isvc.validate(obj), *isvc.validate(defaulted, obj)):
        assert problem.message
        assert not problem.field.endswith(".")
    isvc.warnings(obj)
    assert obj == before
