from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from unit.spec.shapes import changed, serving_runtime

from glowplug.spec import servingruntime

Object = dict[str, Any]


def _fields(obj: Object) -> dict[str, str]:
    return {problem.field: problem.message for problem in servingruntime.validate(obj)}


def test_a_runtime_is_valid() -> None:
    assert _fields(serving_runtime()) == {}
    assert servingruntime.warnings(serving_runtime()) == ()


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"workerSpec": {}}, "workerSpec", "multi-node"),
        ({"protocolVersions": ["v1", "v9"]}, "protocolVersions[1]", "supported values"),
        ({"containers": [{"name": "x", "image": "a"}]}, "containers", "kserve-container"),
        ({"supportedModelFormats": [{"version": "1"}]}, "supportedModelFormats[0].name", "Required"),
        (
            {"supportedModelFormats": [{"name": "a", "priority": 0}]},
            "supportedModelFormats[0].priority",
            "or equal to 1",
        ),
        (
            {
                "supportedModelFormats": [
                    {"name": "a", "autoSelect": True, "priority": number} for number in (1, 2)
                ]
            },
            "supportedModelFormats[1].priority",
            "different priorities assigned for the model format a",
        ),
    ],
)
def test_the_rules(change: Object, field: str, message: str) -> None:
    obj = serving_runtime()
    obj["spec"].update(change)
    assert message in _fields(obj)[f"spec.{field}"]


def test_what_only_model_mesh_reads_is_told() -> None:
    obj = serving_runtime()
    obj["spec"]["grpcEndpoint"] = "port:8085"
    assert "ModelMesh" in servingruntime.warnings(obj)[0]
    obj["spec"]["multiModel"] = True
    assert "never is" in servingruntime.warnings(obj)[0]


@given(changed(serving_runtime()))
def test_anything_is_answered(obj: Object) -> None:
    for problem in servingruntime.validate(obj):
        assert problem.message
    servingruntime.warnings(obj)
