"""JSON patch and merge patch."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.apiserver.fieldsets_typed import same
from glowplug.apiserver.patch import json_patch, merge_patch
from glowplug.errors import BadRequest, Invalid, TooLarge

Object = dict[str, Any]

KEYS = st.sampled_from(["a", "b", "c/d", "e~f", ""])
SCALARS = st.one_of(st.booleans(), st.integers(-3, 3), st.text("xy", max_size=2))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=10,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
WITH_NULLS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), SCALARS), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=10
)
PATCHES = st.dictionaries(KEYS, WITH_NULLS, max_size=4)


@pytest.mark.parametrize(
    ("before", "ops", "after"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/-1", "value": 3}], {"a": [1, 3]}),
        ({"a": {"b": 1}}, [{"op": "remove", "path": "/a/b"}], {"a": {}}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}], {}),
        ({"~1": 1}, [{"op": "test", "path": "/~01", "value": 1}], {"~1": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
        ({"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
        ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
        ({"a": 1}, [], {"a": 1}),
    ],
)
def test_json_patch(before: Object, ops: list[Object], after: Object) -> None:
    given_before = copy.deepcopy(before)
    assert json_patch(before, ops) == after
    assert before == given_before


@pytest.mark.parametrize(
    "op",
    [
        {"op": "remove", "path": "/nothing"},
        {"op": "replace", "path": "/nothing", "value": 1},
        {"op": "add", "path": "/nothing/inside", "value": 1},
        {"op": "add", "path": "/scalar/inside", "value": 1},
        {"op": "add", "path": "/list/3", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "/list/x", "value": 1},
        {"op": "remove", "path": "/list/2"},
        {"op": "remove", "path": "/list/-"},
        {"op": "remove", "path": ""},
        {"op": "move", "from": "/nothing", "path": "/a"},
        {"op": "move", "from": "/map", "path": "/map/inside"},
        {"op": "test", "path": "/scalar", "value": "2"},
        {"op": "test", "path": "/scalar", "value": True},
        {"op": "test", "path": "/nothing", "value": 1},
        {"op": "replace", "path": "", "value": [1]},
        {"op": "add", "path": "/list/" + "9" * 5000, "value": 1},
    ],
)
def test_json_patch_that_does_not_fit_is_invalid(op: Object) -> None:
    obj = {"scalar": 1, "list": [1, 2], "map": {}}
    with pytest.raises(Invalid) as caught:
        json_patch(obj, [{"op": "add", "path": "/first", "value": 1}, op])
    assert obj == {"scalar": 1, "list": [1, 2], "map": {}}
    if caught.value.causes:
        assert caught.value.causes[0].field == "patch[1]"
        assert op["path"] in caught.value.causes[0].message


@pytest.mark.parametrize(
    "ops",
    [
        {"op": "add"},
        "x",
        None,
        [1],
        [{}],
        [{"op": "steal", "path": "/a"}],
        [{"op": "add", "path": "/a"}],
        [{"op": "add", "value": 1}],
        [{"op": "remove", "path": "a"}],
        [{"op": "remove", "path": 3}],
        [{"op": "copy", "path": "/a"}],
        [{"op": ["add"], "path": "/a", "value": 1}],
    ],
)
def test_what_is_no_json_patch_is_a_bad_request(ops: object) -> None:
    with pytest.raises(BadRequest):
        json_patch({"a": 1}, ops)


def test_endless_json_patches_are_refused() -> None:
    with pytest.raises(TooLarge):
        json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)


def test_copies_of_copies_are_refused_before_they_are_made() -> None:
    with pytest.raises(Invalid, match="copies together"):
        json_patch({"a": {"b": "c"}}, [{"op": "copy", "from": "/a", "path": f"/a/{n}"} for n in range(100)])


def diff(old: Any, new: Any, path: str = "") -> list[Object]:
    """A patch that turns one value into another, as a client would write it."""
    if isinstance(old, dict) and isinstance(new, dict):
        ops: list[Object] = []
        for key in sorted(old.keys() | new.keys()):
            below = path + "/" + key.replace("~", "~0").replace("/", "~1")
            if key not in new:
                ops.append({"op": "remove", "path": below})
            elif key not in old:
                ops.append({"op": "add", "path": below, "value": new[key]})
            else:
                ops += diff(old[key], new[key], below)
        return ops
    return [] if same(old, new) else [{"op": "replace", "path": path, "value": new}]


@given(OBJECTS, OBJECTS)
def test_json_patch_leads_from_any_object_to_any_other(old: Object, new: Object) -> None:
    assert same(json_patch(old, diff(old, new)), new)


@given(OBJECTS, KEYS, VALUES)
def test_add_then_remove_restores(obj: Object, key: str, value: Any) -> None:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    ops = [{"op": "add", "path": pointer, "value": value}, {"op": "test", "path": pointer, "value": value}]
    added = json_patch(obj, ops)
    assert same(added[key], value)
    back = (
        [{"op": "replace", "path": pointer, "value": obj[key]}]
        if key in obj
        else [{"op": "remove", "path": pointer}]
    )
    assert same(json_patch(added, back), obj)


def test_managed_fields_can_be_patched() -> None:
    obj = {"metadata": {"managedFields": [{"manager": "kubectl-client-side-apply", "operation": "Update"}]}}
    ops = [
        {"op": "test", "path": "/metadata/managedFields/0/manager", "value": "kubectl-client-side-apply"},
        {"op": "replace", "path": "/metadata/managedFields", "value": [{}]},
    ]
    assert json_patch(obj, ops) == {"metadata": {"managedFields": [{}]}}


# The examples of RFC 7386, those of them that patch an object by an object.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Object, patch: Object, result: Object) -> None:
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize("patch", [None, [], "x", 3, True])
def test_a_merge_patch_must_be_an_object(patch: object) -> None:
    with pytest.raises(BadRequest):
        merge_patch({"a": 1}, patch)


@given(OBJECTS, PATCHES)
def test_merging_twice_is_merging_once(obj: Object, patch: Object) -> None:
    before = json.dumps([obj, patch])
    once = merge_patch(obj, patch)
    assert merge_patch(once, patch) == once
    assert json.dumps([obj, patch]) == before


@given(OBJECTS, OBJECTS)
def test_a_patch_without_nulls_is_in_the_result(obj: Object, patch: Object) -> None:
    merged = merge_patch(obj, patch)
    assert merge_patch(merged, {}) == merged
    assert merge_patch({}, patch) == patch
    for key, value in patch.items():
        assert isinstance(value, dict) or merged[key] == value


@given(OBJECTS)
def test_nulls_for_every_key_leave_nothing(obj: Object) -> None:
    assert merge_patch(obj, dict.fromkeys(obj)) == {}
