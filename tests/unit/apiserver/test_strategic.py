"""Strategic merge patch. Expected results are those of Kubernetes' own library for the same patches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver.patch import strategic_merge_patch
from glowplug.errors import BadRequest

Object = dict[str, Any]


def pod(**spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": spec}


def names(obj: Object) -> str:
    return "".join(item["name"] for item in obj["spec"]["containers"])


ABC = pod(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "y"}, {"name": "c", "image": "z"}])


def test_lists_merge_by_key() -> None:
    patch = {"spec": {"containers": [{"name": "b", "image": "new"}, {"name": "d"}]}}
    assert strategic_merge_patch(ABC, patch)["spec"]["containers"] == [
        {"name": "a", "image": "x"},
        {"name": "b", "image": "new"},
        {"name": "d"},
        {"name": "c", "image": "z"},
    ]


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ([{"$patch": "delete", "name": "b"}], "ac"),
        ([{"$patch": "delete", "name": "nobody"}], "abc"),
        ([{"$patch": "replace"}, {"name": "d"}], "d"),
        ([{"$patch": "replace"}], ""),
        ([], "abc"),
        ([{"name": "d"}, {"$patch": "delete", "name": "a"}], "dbc"),
    ],
)
def test_directives_in_lists(patch: list[Object], result: str) -> None:
    assert names(strategic_merge_patch(ABC, {"spec": {"containers": patch}})) == result


@pytest.mark.parametrize(
    ("order", "patch", "result"),
    [
        ("cba", [], "cba"),
        ("ca", [], "bca"),
        ("dcba", [{"name": "d"}], "dcba"),
        ("cd", [{"name": "d"}], "abcd"),
    ],
)
def test_set_element_order(order: str, patch: list[Object], result: str) -> None:
    spec: Object = {"$setElementOrder/containers": [{"name": name} for name in order], "containers": patch}
    patched = strategic_merge_patch(ABC, {"spec": spec})
    assert names(patched) == result
    assert "$setElementOrder/containers" not in patched["spec"]


def test_order_without_a_list_only_reorders() -> None:
    spec = {"$setElementOrder/containers": [{"name": name} for name in "cba"]}
    assert names(strategic_merge_patch(ABC, {"spec": spec})) == "cba"


def test_directives_in_maps() -> None:
    obj = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    replaced = strategic_merge_patch(obj, {"metadata": {"labels": {"$patch": "replace", "c": "3"}}})
    assert replaced == {"metadata": {"labels": {"c": "3"}}}
    deleted = strategic_merge_patch(obj, {"metadata": {"labels": {"$patch": "delete"}}})
    assert deleted == {"metadata": {"labels": {}}}


def test_sets_of_scalars_merge_and_lose_members() -> None:
    obj = {"metadata": {"finalizers": ["a", "b"]}}
    patch: Object = {"metadata": {"finalizers": ["b", "c"]}}
    assert strategic_merge_patch(obj, patch)["metadata"]["finalizers"] == ["a", "b", "c"]
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "z"]}}
    assert strategic_merge_patch(obj, patch)["metadata"] == {"finalizers": ["b"]}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic_merge_patch({"metadata": {}}, patch) == {"metadata": {}}


def test_retain_keys_drops_every_other_key() -> None:
    obj = pod(volumes=[{"name": "v", "emptyDir": {}}])
    patch = {
        "spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}, "$retainKeys": ["name", "configMap"]}]}
    }
    assert strategic_merge_patch(obj, patch) == pod(volumes=[{"name": "v", "configMap": {"name": "c"}}])


def test_lists_that_have_no_key_are_replaced() -> None:
    obj = pod(tolerations=[{"key": "a"}], containers=[{"name": "a", "args": ["x", "y"]}])
    patch = {"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["z"]}]}}
    assert strategic_merge_patch(obj, patch) == pod(
        tolerations=[{"key": "b"}], containers=[{"name": "a", "args": ["z"]}]
    )


def test_ports_merge_by_number_alone() -> None:
    obj = pod(containers=[{"name": "a", "ports": [{"containerPort": 80}]}])
    patch = {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}]}]}}
    ports = strategic_merge_patch(obj, patch)["spec"]["containers"][0]["ports"]
    assert ports == [{"containerPort": 80, "protocol": "UDP"}]


def test_null_removes_and_leaves_no_trace_in_what_is_new() -> None:
    patch = {
        "spec": {"containers": [{"name": "a", "image": None}, {"name": "d", "image": None}], "x": {"y": None}}
    }
    patched = strategic_merge_patch(ABC, patch)
    assert patched["spec"]["containers"][0] == {"name": "a"}
    assert patched["spec"]["containers"][1] == {"name": "d"}
    assert patched["spec"]["x"] == {}


def test_no_directive_ends_up_in_an_object() -> None:
    patch = {
        "spec": {
            "volumes": [{"name": "v", "$retainKeys": ["name"]}, {"$patch": "delete", "name": "w"}],
            "securityContext": {"$patch": "delete"},
            "$setElementOrder/volumes": [{"name": "v"}],
        }
    }
    assert strategic_merge_patch({"metadata": {"name": "p"}}, patch) == pod(volumes=[{"name": "v"}])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"containers": [{"image": "x"}]}, "does not contain declared merge key: name"),
        ({"containers": ["x"]}, "must be objects"),
        ({"containers": [{"$patch": "merge", "name": "a"}]}, "unknown patch type"),
        ({"nodeSelector": {"$patch": "steal"}}, "unknown patch type"),
        ({"$setElementOrder/containers": "x"}, "must be a list"),
        ({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}, "doesn't match"),
        ({"$deleteFromPrimitiveList/args": "x"}, "must be a list"),
        ({"$retainKeys": "x"}, "must be a list"),
        ({"$retainKeys": ["x"], "containers": []}, "must name every key"),
    ],
)
def test_patches_that_make_no_sense(spec: Object, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        strategic_merge_patch({**ABC, "spec": {**ABC["spec"], "nodeSelector": {"a": "b"}}}, {"spec": spec})


@pytest.mark.parametrize("patch", [None, [], "x"])
def test_a_patch_must_be_an_object(patch: object) -> None:
    with pytest.raises(BadRequest):
        strategic_merge_patch(ABC, patch)


IMAGES = st.sampled_from(["x", "y"])
CONTAINERS = st.dictionaries(st.sampled_from("abcd"), st.fixed_dictionaries({"image": IMAGES})).map(
    lambda named: [{"name": name, **container} for name, container in named.items()]
)


@given(CONTAINERS, CONTAINERS)
def test_merging_twice_is_merging_once(old: list[Object], new: list[Object]) -> None:
    obj, patch = pod(containers=old), pod(containers=new)
    before = copy.deepcopy((obj, patch))
    once = strategic_merge_patch(obj, patch)
    assert strategic_merge_patch(once, patch) == once
    assert (obj, patch) == before
    merged = {item["name"]: item["image"] for item in once["spec"]["containers"]}
    assert merged == {
        **{item["name"]: item["image"] for item in old},
        **{item["name"]: item["image"] for item in new},
    }


@given(CONTAINERS, CONTAINERS)
def test_replace_and_order_give_exactly_what_is_wanted(old: list[Object], new: list[Object]) -> None:
    spec = {
        "containers": [{"$patch": "replace"}, *new],
        "$setElementOrder/containers": [{"name": item["name"]} for item in new],
    }
    assert strategic_merge_patch(pod(containers=old), {"spec": spec}) == pod(containers=new)
