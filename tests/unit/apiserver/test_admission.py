"""Admission: everything that is wrong with an object, at once, in the form that kubectl shows."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from unit.spec.shapes import (
    any_json,
    changed,
    custom_inference_service,
    inference_service,
    knative_service,
    serving_runtime,
)

from glowplug.apiserver.admission import Admission, Admitted
from glowplug.apiserver.schema import Schemas
from glowplug.errors import ApiError, BadRequest, Invalid
from glowplug.spec import kinds
from glowplug.spec.kinds import Kind

Object = dict[str, Any]
ADMISSION = Admission(Schemas.load())


def _admit(
    obj: Object, kind: Kind = kinds.INFERENCE_SERVICE, old: Object | None = None, **options: Any
) -> Admitted:
    return ADMISSION.admit(kind, obj, old, **options)


@pytest.mark.parametrize(
    ("kind", "obj"),
    [
        (kinds.INFERENCE_SERVICE, inference_service()),
        (kinds.INFERENCE_SERVICE, custom_inference_service()),
        (kinds.CLUSTER_SERVING_RUNTIME, serving_runtime()),
        (
            kinds.CONFIG_MAP,
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}},
        ),
        (
            kinds.LEASE,
            {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}},
        ),
    ],
)
def test_what_is_valid_is_admitted_in_silence_and_stays_admitted(kind: Kind, obj: Object) -> None:
    first = _admit(obj, kind)
    assert first.warnings == ()
    assert _admit(first.object, kind, first.object) == first


def test_unknown_fields_are_refused_all_at_once() -> None:
    obj = inference_service(minReplica=1, zzz=2)
    with pytest.raises(BadRequest) as caught:
        _admit(obj, duplicates=("spec.predictor.timeout",))
    assert caught.value.message == (
        'strict decoding error: duplicate field "spec.predictor.timeout", '
        'unknown field "spec.predictor.minReplica" (did you mean "minReplicas"?), unknown field "spec.predictor.zzz"'
    )
    assert [cause.field for cause in caught.value.causes] == [
        "spec.predictor.timeout", "spec.predictor.minReplica", "spec.predictor.zzz",
    ]  # fmt: skip


def test_unknown_fields_are_warned_of_or_dropped() -> None:
    obj = inference_service(zzz=2)
    warned = _admit(obj, validation="Warn", duplicates=("spec.x",))
    assert warned.warnings == ('duplicate field "spec.x"', 'unknown field "spec.predictor.zzz"')
    dropped = _admit(obj, validation="Ignore")
    assert dropped.warnings == ()
    assert dropped.object == warned.object == inference_service()


def test_every_stage_reports_into_one_answer() -> None:
    obj = inference_service(minReplicas=-1, maxReplicas="3", timeout=900)
    obj["metadata"]["labels"] = {"a b": "c"}
    del obj["spec"]["predictor"]["model"]["modelFormat"]
    with pytest.raises(Invalid) as caught:
        _admit(obj)
    fields = {cause.field: cause.reason for cause in caught.value.causes}
    assert fields["spec.predictor.maxReplicas"] == "FieldValueTypeInvalid"
    assert fields["spec.predictor.model.modelFormat"] == "FieldValueRequired"
    assert {"spec.predictor.minReplicas", "spec.predictor.timeout", "metadata.labels"} <= set(fields)
    status = caught.value.status({"name": "flights", "kind": "InferenceService"})
    assert status["message"].startswith('InferenceService.serving.kserve.io "flights" is invalid: [')
    assert len(status["details"]["causes"]) == len(caught.value.causes)
    obj["spec"]["predictor"]["zzz"] = 1
    with pytest.raises(BadRequest, match="it is also invalid") as strict:
        _admit(obj)
    assert len(strict.value.causes) == len(caught.value.causes) + 1


def test_a_field_of_a_wrong_type_is_told_once() -> None:
    with pytest.raises(Invalid) as caught:
        _admit(inference_service(model={"modelFormat": {"name": "a"}, "storageUri": 1}))
    assert [cause.field for cause in caught.value.causes] == ["spec.predictor.model.storageUri"]


def test_defaults_come_before_what_is_required() -> None:
    admitted = _admit(custom_inference_service())
    assert admitted.object["spec"]["predictor"]["containers"][0]["name"] == "kserve-container"


def test_a_locked_pair_is_stamped_whether_or_not_a_controller_runs() -> None:
    locked = inference_service()
    locked["metadata"].setdefault("annotations", {})["glowplug.dev/pair-lock"] = "true"
    locked["spec"]["transformer"] = {"containers": [{"name": "kserve-container", "image": "glowplug/text"}]}
    spec = _admit(locked).object["spec"]
    env = {each["name"]: each["value"] for each in spec["transformer"]["containers"][0]["env"]}
    assert env["GLOWPLUG_PAIR"].startswith("auto-")
    assert {"name": "GLOWPLUG_PAIR", "value": env["GLOWPLUG_PAIR"]} in spec["predictor"]["model"]["env"]
    locked["metadata"]["annotations"]["glowplug.dev/pair-lock"] = "yes"
    with pytest.raises(Invalid, match='must be "true" or "false"'):
        _admit(locked)


@pytest.mark.parametrize("kind", kinds.UNMANAGED)
def test_kinds_that_nothing_acts_on_are_stored_with_a_warning(kind: Kind) -> None:
    specs: dict[Kind, Object] = {
        kinds.INFERENCE_GRAPH: {"nodes": {"root": {"routerType": "Sequence"}}},
        kinds.JOB: {"template": {"spec": {"containers": [{"name": "a"}]}}},
        kinds.TRIGGER: {"subscriber": {"uri": "http://x"}},
        kinds.KAFKA_SOURCE: {"bootstrapServers": ["a:9092"], "topics": ["t"]},
    }
    obj = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": "a"},
        "spec": specs.get(kind, {}),
    }
    assert _admit(obj, kind).warnings == (f"the local machine stores a {kind.name}, but nothing acts on it",)


def test_a_status_is_checked_for_its_shape_alone() -> None:
    obj = inference_service(minReplicas=-1)
    obj["status"] = {"url": "http://x"}
    assert _admit(obj, old=obj, subresource="status").object == obj
    obj["status"] = {"url": 1}
    with pytest.raises(Invalid):
        _admit(obj, old=obj, subresource="status")


def test_a_rule_does_not_hold_up_a_deletion() -> None:
    old = inference_service(timeout=10_000)
    old["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["a/b"])
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = []
    assert _admit(new, old=old).object["metadata"]["finalizers"] == []


def test_a_name_is_needed_or_made() -> None:
    obj = knative_service()
    obj["metadata"] = {"generateName": "a-"}
    _admit(obj, kinds.KNATIVE_SERVICE)
    obj["metadata"] = {}
    with pytest.raises(Invalid, match=r"metadata\.name: Required value"):
        _admit(obj, kinds.KNATIVE_SERVICE)


@settings(max_examples=200)
@given(changed(inference_service()), changed(knative_service()), changed(serving_runtime()), any_json)
def test_any_object_is_admitted_or_refused_with_reasons(
    isvc: Object, ksvc: Object, runtime: Object, other: Any
) -> None:
    pairs = [
        (kinds.INFERENCE_SERVICE, isvc),
        (kinds.KNATIVE_SERVICE, ksvc),
        (kinds.CLUSTER_SERVING_RUNTIME, runtime),
        *((kind, other) for kind in kinds.KINDS if isinstance(other, dict)),
    ]
    for kind, obj in pairs:
        try:
            admitted = _admit(obj, kind, validation="Warn")
        except ApiError as error:
            assert error.causes
            orjson.dumps(error.status(), option=orjson.OPT_NON_STR_KEYS)
            continue
        assert ADMISSION.admit(kind, admitted.object, None, validation="Strict").object == admitted.object


def test_the_status_of_a_refused_object_names_it_on_a_create() -> None:
    with pytest.raises(Invalid) as caught:
        _admit(inference_service(minReplicas=-1))
    details = caught.value.status({"group": "serving.kserve.io", "kind": "inferenceservices"})["details"]
    del details["causes"]
    assert details == {"name": "flights", "group": "serving.kserve.io", "kind": "InferenceService"}
