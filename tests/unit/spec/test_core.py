from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from unit.spec.shapes import any_json, changed

from glowplug.spec import core
from glowplug.spec.validation import metadata_problems

Object = dict[str, Any]
CONFIG_MAP: Object = {"metadata": {"name": "c"}, "data": {"a.b": "x"}, "binaryData": {"c": "eA=="}}
SECRET: Object = {
    "metadata": {"name": "s"},
    "stringData": {"a": "b"},
    "data": {"c": "eA=="},
    "type": "Opaque",
}
POD: Object = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}


def _fields(problems: tuple[Any, ...]) -> set[str]:
    return {problem.field for problem in problems}


def test_string_data_of_a_secret_is_moved() -> None:
    obj = core.default_secret({"stringData": {"a": "ü"}, "data": {"a": "eA==", "b": "eA=="}})
    assert base64.b64decode(obj["data"]["a"]).decode() == "ü"
    assert (obj["data"]["b"], obj["type"], "stringData" in obj) == ("eA==", "Opaque", False)


def test_config_map_rules() -> None:
    assert core.validate_config_map(CONFIG_MAP) == ()
    assert _fields(core.validate_config_map({"data": {"a/b": "x", "..": ""}})) == {"data[a/b]", "data[..]"}
    assert _fields(core.validate_config_map({"data": {"a": ""}, "binaryData": {"a": ""}})) == {"data[a]"}
    assert _fields(core.validate_config_map({"data": {"a": "x" * 1048577}})) == {"data"}
    frozen = {**CONFIG_MAP, "immutable": True}
    assert _fields(core.validate_config_map({**frozen, "data": {}}, frozen)) == {"data"}
    assert core.validate_config_map(frozen, frozen) == ()


def test_a_secrets_type_stays() -> None:
    assert _fields(core.validate_secret({"type": "a"}, {"type": "b"})) == {"type"}


def test_pod_rules() -> None:
    assert core.validate_pod(POD) == ()
    assert _fields(core.validate_pod({"spec": {}})) == {"spec.containers"}
    new: Object = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "c"}]}}
    assert core.validate_pod(new, POD) == ()
    new["spec"]["hostNetwork"] = True
    assert _fields(core.validate_pod(new, POD)) == {"spec"}


def test_a_namespace_is_found_by_its_label() -> None:
    obj = core.default_namespace({"metadata": {"name": "n"}})
    assert obj["metadata"]["labels"] == {"kubernetes.io/metadata.name": "n"}
    assert _fields(core.validate_namespace({"metadata": {"name": "a.b"}})) == {"metadata.name"}


def test_metadata_rules() -> None:
    meta = {
        "labels": {"a_/b": "c", "d": "e f"},
        "annotations": {"Ok/Key": "any text at all", "": "x"},
        "finalizers": ["not ok"],
    }
    fields = {problem.field for problem in metadata_problems(meta)}
    assert fields == {
        "metadata.labels",
        "metadata.labels[d]",
        "metadata.annotations",
        "metadata.finalizers[0]",
    }
    assert list(metadata_problems({"labels": {"example.com/A.b_c": "x-1", "d": ""}})) == []


@given(changed(CONFIG_MAP), changed(SECRET), changed(POD), any_json)
def test_anything_is_answered(config_map: Object, secret: Object, pod: Object, old: Any) -> None:
    before = old if isinstance(old, dict) else None
    core.validate_config_map(config_map, before)
    defaulted = core.default_secret(secret)
    assert core.default_secret(defaulted) == defaulted
    core.validate_secret(defaulted, before)
    core.validate_pod(pod, before)
    core.validate_namespace(core.default_namespace(pod))
    core.validate_named(pod)
