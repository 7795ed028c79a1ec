from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.controllers.inferenceservice.merging import (
    PlaceholderError,
    merge_container,
    merge_pod_fields,
    replace_placeholders,
    with_env,
    with_image_tag,
)

ISVC = {
    "metadata": {
        "name": "flights",
        "namespace": "default",
        "uid": "u",
        "labels": {"team": "a", "app.kubernetes.io/part-of": "demo"},
        "annotations": {"kind": "fast"},
    }
}


def test_maps_merge_keyed_lists_merge_other_lists_are_replaced_and_arguments_follow() -> None:
    runtime = {
        "name": "kserve-container",
        "image": "theirs",
        "command": ["serve"],
        "args": ["--a"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
    }
    own = {
        "image": "ours",
        "command": ["run", "it"],
        "args": ["--b"],
        "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
        "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "4"}},
        "ports": [{"containerPort": 8080, "name": "h2c"}, {"containerPort": 9090}],
    }
    assert merge_container(runtime, own) == {
        "name": "kserve-container",
        "image": "ours",
        "command": ["run", "it"],
        "args": ["--a", "--b"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
        "resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "4"}},
        "ports": [{"containerPort": 8080, "protocol": "TCP", "name": "h2c"}, {"containerPort": 9090}],
    }
    assert runtime["args"] == ["--a"], "the runtime is shared and stays as it is"


def test_a_value_and_a_source_of_one_variable_exclude_each_other() -> None:
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    runtime = {"env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": source}]}
    own = {"env": [{"name": "A", "valueFrom": source}, {"name": "B", "value": "2"}]}
    assert merge_container(runtime, own)["env"] == [
        {"name": "A", "valueFrom": source},
        {"name": "B", "value": "2"},
    ]


def test_a_volume_keeps_one_source() -> None:
    runtime = {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]}
    own = {"volumes": [{"name": "v", "configMap": {"name": "c"}}], "serviceAccountName": "robot"}
    assert merge_pod_fields(runtime, own) == {
        "volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "w", "emptyDir": {}}],
        "serviceAccountName": "robot",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--model_name={{.Name}}", "--model_name=flights"),
        ("{{ .Namespace }}/{{.Name}}", "default/flights"),
        ("{{.Labels.team}}", "a"),
        ("{{.Annotations.kind}}", "fast"),
        ('{{index .Labels "app.kubernetes.io/part-of"}}', "demo"),
        ("{{.Labels.absent}}", ""),
        ("plain {x}", "plain {x}"),
    ],
)
def test_placeholders(text: str, expected: str) -> None:
    container = {"args": [text], "env": [{"name": "A", "value": text}]}
    replaced = replace_placeholders(container, ISVC)
    assert replaced == {"args": [expected], "env": [{"name": "A", "value": expected}]}


@pytest.mark.parametrize(
    "text", ["{{.Spec}}", "{{.Labels}}", "{{.Name.x}}", "{{}}", "{{ if .Name }}x{{ end }}"]
)
def test_a_placeholder_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(PlaceholderError, match="is no placeholder"):
        replace_placeholders({"args": [text]}, ISVC)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("x/y", "x/y:2"),
        ("x/y:1", "x/y:2"),
        ("host:5000/x/y", "host:5000/x/y:2"),
        ("y", "y:2"),
        ("x@sha256:abc", "x@sha256:abc"),
    ],
)
def test_the_runtime_version_is_the_image_s_tag(image: str, expected: str) -> None:
    assert with_image_tag({"image": image}, "2") == {"image": expected}
    assert with_image_tag({"image": image}, None) == {"image": image}


def test_a_variable_is_set_in_place_or_added() -> None:
    assert with_env({"env": [{"name": "A", "value": "1"}]}, "A", "2")["env"] == [{"name": "A", "value": "2"}]
    assert with_env({}, "A", "2") == {"env": [{"name": "A", "value": "2"}]}


NAMES = st.sampled_from("ABCD")
CONTAINERS = st.fixed_dictionaries(
    {},
    optional={
        "image": st.text(max_size=3),
        "args": st.lists(st.text(max_size=3), max_size=3),
        "env": st.lists(
            st.fixed_dictionaries({"name": NAMES, "value": st.text(max_size=2)}),
            max_size=4,
            unique_by=lambda e: e["name"],
        ),
        "resources": st.dictionaries(
            st.sampled_from(["requests", "limits"]), st.dictionaries(NAMES, st.text(max_size=2))
        ),
    },
)


@given(CONTAINERS, CONTAINERS)
def test_what_the_inference_service_says_holds_and_nothing_else_is_lost(runtime: Any, own: Any) -> None:
    merged = merge_container(runtime, own)
    values = {entry["name"]: entry["value"] for entry in merged.get("env", ())}
    assert values == {
        **{entry["name"]: entry["value"] for entry in runtime.get("env", ())},
        **{entry["name"]: entry["value"] for entry in own.get("env", ())},
    }
    assert len(values) == len(merged.get("env", ()))
    assert merged.get("args", []) == runtime.get("args", []) + own.get("args", [])
    if "image" in own:
        assert merged["image"] == own["image"]
