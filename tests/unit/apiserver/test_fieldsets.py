"""Field sets: their JSON form, their text, and the shapes that give them meaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver.fieldsets import FieldSet, decode, encode, in_order, path_text, with_records
from glowplug.apiserver.fieldsets_typed import compare, fields_of, same, without
from glowplug.apiserver.listkeys import OPEN, ShapeError, shape_of

NAMES = st.sampled_from(["a", "b", "c.d/e", 'q"uote', "ä"])
ELEMENTS = st.one_of(
    NAMES.map(lambda name: f"f:{name}"),
    st.sampled_from(['k:{"name":"a"}', 'k:{"containerPort":80,"protocol":"TCP"}', 'v:"x"', "v:3"]),
)
SETS = st.frozensets(st.lists(ELEMENTS, min_size=1, max_size=5).map(tuple), max_size=12)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["x", "y"]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=12,
)
MAPS = st.dictionaries(NAMES, VALUES, max_size=4)
POD = shape_of("v1", "Pod")


@given(SETS)
def test_round_trip(paths: FieldSet) -> None:
    assert decode(encode(paths)) == paths


def test_json_form_is_that_of_managed_fields() -> None:
    paths = frozenset(
        {
            ("f:metadata", "f:labels"),
            ("f:metadata", "f:labels", "f:app"),
            ("f:spec", "f:containers", 'k:{"name":"a"}'),
            ("f:spec", "f:containers", 'k:{"name":"a"}', "f:image"),
            ("f:metadata", "f:finalizers", 'v:"x"'),
        }
    )
    assert encode(paths) == {
        "f:metadata": {"f:finalizers": {'v:"x"': {}}, "f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}}}},
    }


def test_keys_are_equal_whatever_their_order_and_spacing() -> None:
    spaced = {'k:{"protocol": "TCP", "containerPort": 80}': {}}
    assert decode(spaced) == {('k:{"containerPort":80,"protocol":"TCP"}',)}


@pytest.mark.parametrize("broken", [None, [], "f:a", {"a": {}}, {"x:a": {}}, {"k:{": {}}, {"f:a": 3}])
def test_what_is_no_set_is_refused(broken: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(broken)


def test_paths_as_conflicts_write_them() -> None:
    port = ("f:spec", "f:containers", 'k:{"name":"a"}', "f:ports", 'k:{"containerPort":80,"protocol":"TCP"}')
    assert path_text(port) == '.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"]'
    assert path_text(("f:metadata", "f:finalizers", 'v:"x"')) == '.metadata.finalizers[="x"]'


def test_members_of_a_level_come_before_what_is_below() -> None:
    deep, shallow = ("f:a", "f:b"), ("f:z",)
    assert in_order([deep, shallow]) == [shallow, deep]


@given(MAPS, MAPS)
def test_a_comparison_tells_the_two_apart(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = compare(old, new, OPEN)
    assert not (found.added & found.removed) and not (found.written & found.removed)
    assert (found.written | found.removed == frozenset()) == same(old, new)
    back = compare(new, old, OPEN)
    assert (back.added, back.removed, back.modified) == (found.removed, found.added, found.modified)


@given(MAPS)
def test_removing_all_that_is_there_leaves_nothing(obj: dict[str, Any]) -> None:
    assert without(obj, with_records(fields_of(obj, OPEN), OPEN), OPEN) == {}
    assert without(obj, frozenset(), OPEN) == obj


def test_a_list_of_scalars_with_repeats_is_one_value_unless_it_is_a_set() -> None:
    pod = {
        "spec": {"containers": [{"name": "a", "args": ["x", "x"]}]},
        "metadata": {"finalizers": ["p", "q"]},
    }
    assert fields_of(pod, POD) == {
        ("f:metadata", "f:finalizers", 'v:"p"'),
        ("f:metadata", "f:finalizers", 'v:"q"'),
        ("f:spec", "f:containers", 'k:{"name":"a"}'),
        ("f:spec", "f:containers", 'k:{"name":"a"}', "f:args"),
        ("f:spec", "f:containers", 'k:{"name":"a"}', "f:name"),
    }


def test_a_port_without_a_protocol_is_tcp() -> None:
    bare = {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}
    told = {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}
    element = 'k:{"containerPort":80,"protocol":"TCP"}'
    assert any(element in path for path in fields_of(bare, POD))
    assert [path_text(path) for path in compare(bare, told, POD).added] == [
        '.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"].protocol'
    ]


@pytest.mark.parametrize(
    ("api_version", "kind", "path", "keys"),
    [
        ("v1", "Pod", ["spec", "containers"], ("name",)),
        ("v1", "Pod", ["spec", "tolerations"], None),
        ("v1", "Pod", ["status", "conditions"], ("type",)),
        ("v1", "ServiceAccount", ["imagePullSecrets"], None),
        ("batch/v1", "Job", ["status", "conditions"], None),
        ("batch/v1", "Job", ["spec", "template", "spec", "volumes"], ("name",)),
        # KServe's and Knative's CRDs leave lists of containers whole, KServe's also those of volumes.
        ("serving.kserve.io/v1beta1", "InferenceService", ["spec", "predictor", "containers"], None),
        ("serving.kserve.io/v1beta1", "InferenceService", ["spec", "predictor", "volumes"], None),
        ("serving.kserve.io/v1beta1", "InferenceService", ["spec", "predictor", "model", "env"], ("name",)),
        ("serving.kserve.io/v1alpha1", "ServingRuntime", ["spec", "supportedModelFormats"], None),
        ("serving.kserve.io/v1alpha1", "ServingRuntime", ["spec", "builtInAdapter", "env"], None),
        ("serving.knative.dev/v1", "Service", ["spec", "template", "spec", "volumes"], ("name",)),
        ("serving.knative.dev/v1", "Service", ["spec", "template", "spec", "containers"], None),
        ("serving.knative.dev/v1", "Service", ["metadata", "ownerReferences"], ("uid",)),
        ("serving.knative.dev/v1", "Service", ["metadata", "finalizers"], ()),
        ("serving.knative.dev/v1", "Service", ["spec", "template", "metadata", "finalizers"], None),
        ("serving.knative.dev/v1", "Service", ["spec", "traffic"], None),
    ],
)
def test_what_the_lists_of_each_kind_are(
    api_version: str, kind: str, path: list[str], keys: tuple[str, ...] | None
) -> None:
    shape = shape_of(api_version, kind)
    for name in path:
        shape = shape.child(name)
    assert shape.keys == keys


@pytest.mark.parametrize("item", [{"value": "x"}, "E1", None, {"name": None}])
def test_an_item_that_nothing_names_is_refused(item: object) -> None:
    pod = {"spec": {"containers": [{"name": "a", "env": [item]}]}}
    with pytest.raises(ShapeError):
        fields_of(pod, POD)


def test_true_is_not_one() -> None:
    assert same({"a": [1]}, {"a": [1.0]})
    assert not same({"a": [1]}, {"a": [True]})
