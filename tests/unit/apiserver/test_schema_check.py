"""Objects against their schemas: unknown fields, wrong types, what is missing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from unit.spec.shapes import any_json, changed, inference_service, knative_service

from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.schema_check import check
from glowplug.spec import kinds
from glowplug.spec.kinds import Kind

Object = dict[str, Any]
SCHEMAS = Schemas.load()


def _isvc(**predictor: Any) -> Any:
    return check(SCHEMAS, kinds.INFERENCE_SERVICE, inference_service(**predictor))


def test_an_object_that_fits_is_unchanged() -> None:
    found = check(SCHEMAS, kinds.INFERENCE_SERVICE, inference_service())
    assert (found.object, found.unknown, found.problems, found.missing) == (inference_service(), (), (), ())


def test_unknown_fields_are_pruned_and_told_with_what_was_meant() -> None:
    obj = inference_service(minReplica=1)
    obj["spec"]["minReplicas"] = 1
    obj["spec"]["predictor"]["containers"][0]["arg"] = []
    obj["spec"]["predictor"]["zzz"] = 1
    obj["metadata"]["labls"] = {}
    found = check(SCHEMAS, kinds.INFERENCE_SERVICE, obj)
    assert {unknown.path: unknown.hint for unknown in found.unknown} == {
        "metadata.labls": "labels",
        "spec.minReplicas": "predictor.minReplicas",
        "spec.predictor.minReplica": "minReplicas",
        "spec.predictor.containers[0].arg": "args",
        "spec.predictor.zzz": "",
    }
    assert found.object == inference_service()


@pytest.mark.parametrize(
    ("predictor", "field", "wanted"),
    [
        ({"minReplicas": "1"}, "minReplicas", 'must be of type integer: "string"'),
        ({"minReplicas": 1.5}, "minReplicas", 'must be of type integer: "number"'),
        ({"minReplicas": True}, "minReplicas", 'must be of type integer: "boolean"'),
        ({"minReplicas": 2**64}, "minReplicas", "64 bits"),
        ({"model": []}, "model", 'must be of type object: "array"'),
        ({"containers": {}}, "containers", 'must be of type array: "object"'),
        ({"labels": {"a": 1}}, "labels[a]", 'must be of type string: "integer"'),
        ({"containers": [None]}, "containers[0]", 'must be of type object: "null"'),
        ({"model": {"env": [{"name": "A", "value": 1}]}}, "model.env[0].value", 'type string: "integer"'),
        ({"model": {"resources": {"limits": {"cpu": "1x"}}}}, "model.resources.limits[cpu]", "quantities must match"),
        ({"model": {"resources": {"limits": {"cpu": []}}}}, "model.resources.limits[cpu]", "string or number"),
        ({"model": {"livenessProbe": {"grpc": {"port": "a"}}}}, "model.livenessProbe.grpc.port", "integer"),
        ({"model": {"livenessProbe": {"tcpSocket": {"port": 1.5}}}}, "model.livenessProbe.tcpSocket.port", "or string"),
    ],
)  # fmt: skip
def test_wrong_types_are_told(predictor: Object, field: str, wanted: str) -> None:
    problems = {problem.field: problem.message for problem in _isvc(**predictor).problems}
    assert wanted in problems[f"spec.predictor.{field}"]


def test_numbers_of_json_are_read_as_they_are_meant() -> None:
    model = {
        "resources": {"limits": {"cpu": 1, "memory": 0.5}},
        "livenessProbe": {"httpGet": {"port": 8080.0}},
    }
    predictor = _isvc(minReplicas=2.0, model=model).object["spec"]["predictor"]
    assert predictor["minReplicas"] == 2
    assert isinstance(predictor["minReplicas"], int)
    assert predictor["model"]["resources"]["limits"] == {"cpu": "1", "memory": "0.5"}
    assert predictor["model"]["livenessProbe"]["httpGet"]["port"] == 8080


def test_a_whole_number_too_large_is_told_as_it_was_given() -> None:
    found = _isvc(minReplicas=2.0**63)
    assert [problem.message for problem in found.problems] == [
        "Invalid value: 9.223372036854776e+18: must fit in 64 bits"
    ]
    assert check(SCHEMAS, kinds.INFERENCE_SERVICE, found.object).problems == found.problems


def test_null_is_absent() -> None:
    obj = inference_service(logger=None)
    obj["metadata"]["creationTimestamp"] = None
    found = check(SCHEMAS, kinds.INFERENCE_SERVICE, obj)
    assert found.object == inference_service()
    assert found.problems == ()


def test_what_is_missing_is_told_apart() -> None:
    found = check(
        SCHEMAS, kinds.INFERENCE_SERVICE, {"spec": {"predictor": {"containers": [{}], "model": {}}}}
    )
    fields = {problem.field for problem in found.missing}
    assert {"spec.predictor.containers[0].name", "spec.predictor.model.modelFormat"} <= fields
    assert found.problems == ()


def test_a_status_of_kserves_may_hold_more() -> None:
    obj = {
        **inference_service(),
        "status": {"url": "http://x", "kopf": {"progress": 1}, "conditions": [{"type": "R"}]},
    }
    found = check(SCHEMAS, kinds.INFERENCE_SERVICE, obj)
    assert found.unknown == ()
    assert found.object["status"]["kopf"] == {"progress": 1}


@pytest.mark.parametrize(
    ("kind", "obj", "field"),
    [
        (kinds.SECRET, {"data": {"a": "not base64!"}}, "data[a]"),
        (kinds.LEASE, {"spec": {"renewTime": "yesterday"}}, "spec.renewTime"),
        (kinds.TRIGGER, {"spec": {"subscriber": {"uri": 1}}}, "spec.subscriber.uri"),
    ],
)
def test_formats(kind: Kind, obj: Object, field: str) -> None:
    assert field in {problem.field for problem in check(SCHEMAS, kind, obj).problems}


def test_a_recursive_schema_is_followed_only_so_far() -> None:
    filters: Object = {"exact": {"type": "a"}}
    for _ in range(200):
        filters = {"not": filters}
    found = check(SCHEMAS, kinds.TRIGGER, {"spec": {"filters": [filters]}})
    assert any("nested more than" in problem.message for problem in found.problems)


@settings(max_examples=150)
@given(changed(inference_service()), changed(knative_service()), any_json)
def test_anything_is_answered_and_what_is_left_fits(isvc: Object, ksvc: Object, other: Any) -> None:
    pairs = [(kinds.INFERENCE_SERVICE, isvc), (kinds.KNATIVE_SERVICE, ksvc)]
    pairs += [(kind, other) for kind in kinds.KINDS if isinstance(other, dict)]
    for kind, obj in pairs:
        before = copy.deepcopy(obj)
        found = check(SCHEMAS, kind, obj)
        again = check(SCHEMAS, kind, found.object)
        assert obj == before
        assert again.unknown == ()
        assert again.problems == found.problems
        assert again.object == found.object
