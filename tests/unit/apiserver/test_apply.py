"""Server-side apply and field managers.

The expected objects and managedFields of the literal cases are what Kubernetes' own field manager gives for them.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glowplug.apiserver.apply import LAST_APPLIED, server_side_apply, track_update
from glowplug.apiserver.fieldsets import FieldSet, decode
from glowplug.apiserver.fieldsets_typed import compare, fields_of
from glowplug.apiserver.listkeys import shape_of
from glowplug.errors import BadRequest, Conflict

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
LATER = NOW + timedelta(minutes=5)
FIRST, SECOND = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"


def config_map(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def pod(*containers: Object, **metadata: Any) -> Object:
    named = {"name": "p", **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": {"containers": list(containers)}}


def isvc(**predictor: Any) -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "i"},
        "spec": {"predictor": predictor},
    }


def apply(live: Object | None, obj: Object, manager: str = "a", force: bool = False, **more: Any) -> Object:
    return server_side_apply(live, obj, manager=manager, force=force, now=more.pop("now", NOW), **more)


def update(live: Object | None, obj: Object, manager: str = "u", **more: Any) -> Object:
    return track_update(live, obj, manager=manager, now=more.pop("now", NOW), **more)


def entries(obj: Object) -> dict[tuple[str, str], Object]:
    return {
        (entry["manager"], entry["operation"]): entry for entry in obj["metadata"].get("managedFields", [])
    }


def owned(obj: Object, manager: str, operation: str = "Apply") -> FieldSet:
    return decode(entries(obj)[manager, operation]["fieldsV1"])


def bare(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def test_apply_creates_and_owns_just_what_it_says() -> None:
    made = apply(None, isvc(minReplicas=1, model={"env": [{"name": "E", "value": "x"}]}))
    assert bare(made) == isvc(minReplicas=1, model={"env": [{"name": "E", "value": "x"}]})
    assert made["metadata"]["managedFields"] == [
        {
            "manager": "a",
            "operation": "Apply",
            "apiVersion": "serving.kserve.io/v1beta1",
            "time": FIRST,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:spec": {
                    "f:predictor": {
                        "f:minReplicas": {},
                        "f:model": {"f:env": {'k:{"name":"E"}': {".": {}, "f:name": {}, "f:value": {}}}},
                    }
                }
            },
        }
    ]


def test_names_and_what_the_server_writes_are_never_owned() -> None:
    obj = config_map(k="v")
    obj["metadata"] |= {
        "namespace": "n", "uid": "1", "resourceVersion": "3", "generation": 2, "creationTimestamp": FIRST,
        "selfLink": "/x", "labels": {"a": "b"},
    }  # fmt: skip
    expected = {("f:data", "f:k"), ("f:metadata", "f:labels", "f:a")}
    assert owned(apply(None, obj), "a") == expected
    assert owned(update(None, obj), "u", "Update") == expected | {("f:data",), ("f:metadata", "f:labels")}


def test_the_same_again_writes_nothing() -> None:
    made = apply(None, config_map(k="v"))
    assert apply(made, config_map(k="v"), now=LATER) == made


def test_a_field_given_up_by_its_only_owner_goes() -> None:
    made = apply(None, config_map(k="v", other="w"))
    left = apply(made, config_map(k="v"), now=LATER)
    assert left["data"] == {"k": "v"}
    assert entries(left)["a", "Apply"]["time"] == SECOND
    gone = apply(left, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}})
    assert "data" not in gone
    assert "managedFields" not in gone["metadata"]


def test_a_field_given_up_stays_while_another_owns_it() -> None:
    shared = apply(apply(None, config_map(k="v")), config_map(k="v"), "b")
    left = apply(shared, config_map(), "a")
    assert left["data"] == {"k": "v"}
    assert owned(left, "b") == {("f:data", "f:k")}


def test_what_another_owns_inside_keeps_its_records_in_being() -> None:
    made = apply(None, isvc(minReplicas=1, model={"storageUri": "gs://x"}))
    both = apply(made, isvc(maxReplicas=3), "b")
    left = apply(both, {**isvc(), "spec": {}}, "a")
    assert left["spec"] == {"predictor": {"maxReplicas": 3}}


def test_conflict_names_every_field_and_its_owner() -> None:
    made = apply(None, config_map(k="v"))
    with pytest.raises(Conflict) as caught:
        apply(made, config_map(k="w"), "b")
    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "a": .data.k'
    cause = caught.value.causes[0]
    assert (cause.reason, cause.field) == ("FieldManagerConflict", ".data.k")
    assert cause.message == 'conflict with "a"'


def test_conflicts_with_writers_tell_their_version() -> None:
    live = update(None, config_map(x="1", y="2", z="3"), "kubectl")
    live = update(live, {**bare(live), "data": {"x": "1", "y": "2", "z": "4"}}, "ed")
    with pytest.raises(Conflict) as caught:
        apply(live, config_map(x="7", y="8", z="9"))
    assert caught.value.message == (
        'Apply failed with 3 conflicts: conflicts with "ed" using v1:\n- .data.z\n'
        'conflicts with "kubectl" using v1:\n- .data.x\n- .data.y'
    )
    assert [cause.field for cause in caught.value.causes] == [".data.z", ".data.x", ".data.y"]


def test_a_conflict_on_status_tells_the_subresource() -> None:
    live = update(None, isvc())
    live = update(live, {**bare(live), "status": {"url": "x"}}, "controller", subresource="status")
    with pytest.raises(Conflict, match='conflict with "controller" with subresource "status" using'):
        apply(live, {**isvc(), "status": {"url": "y"}}, subresource="status")


def test_force_takes_the_field_from_its_owner() -> None:
    taken = apply(apply(None, config_map(k="v", l="m")), config_map(k="w"), "b", force=True)
    assert taken["data"] == {"k": "w", "l": "m"}
    assert owned(taken, "a") == {("f:data", "f:l")}
    assert owned(taken, "b") == {("f:data", "f:k")}


def test_equal_values_are_shared() -> None:
    shared = apply(apply(None, config_map(k="v")), config_map(k="v"), "b", now=LATER)
    assert owned(shared, "a") == owned(shared, "b") == {("f:data", "f:k")}
    assert (entries(shared)["a", "Apply"]["time"], entries(shared)["b", "Apply"]["time"]) == (FIRST, SECOND)


def test_an_update_takes_what_it_changes_and_leaves_the_rest() -> None:
    live = apply(None, config_map(k="v", l="m"))
    changed = update(live, {**live, "data": {"k": "w", "l": "m", "n": "o"}}, now=LATER)
    assert owned(changed, "a") == {("f:data", "f:l")}
    assert owned(changed, "u", "Update") == {("f:data", "f:k"), ("f:data", "f:n")}
    assert entries(changed)["u", "Update"]["time"] == SECOND


def test_an_update_that_changes_nothing_writes_nothing() -> None:
    live = update(apply(None, config_map(k="v")), config_map(k="w"))
    assert update(live, copy.deepcopy(live), "other", now=LATER) == live


def test_what_an_update_removes_nobody_owns() -> None:
    live = apply(None, config_map(k="v"))
    left = update(live, {**live, "data": {}})
    assert "managedFields" not in left["metadata"]


def test_applying_after_an_update_takes_an_equal_value_over_and_conflicts_on_others() -> None:
    live = update(None, config_map(k="v", l="m"))
    taken = apply(live, config_map(k="v"))
    assert owned(taken, "a") == {("f:data", "f:k")}
    assert ("f:data", "f:k") in owned(taken, "u", "Update")
    with pytest.raises(Conflict):
        apply(live, config_map(l="n"))


def test_objects_from_before_belong_to_before_first_apply() -> None:
    live = config_map(k="v")
    live["metadata"]["uid"] = "1"
    applied = apply(live, config_map(l="m"))
    assert owned(applied, "before-first-apply", "Update") == {("f:data",), ("f:data", "f:k")}
    with pytest.raises(Conflict, match="before-first-apply"):
        apply(live, config_map(k="w"))


def test_untracked_objects_stay_untracked_on_update() -> None:
    live = config_map(k="v")
    live["metadata"]["uid"] = "1"
    assert "managedFields" not in update(live, {**live, "data": {"k": "w"}})["metadata"]


@pytest.mark.parametrize("reset", [[], [{}]])
def test_managers_can_be_forgotten(reset: list[Object]) -> None:
    live = apply(None, config_map(k="v"))
    live["metadata"]["uid"] = "1"
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = reset
    assert "managedFields" not in update(live, new)["metadata"]


def test_managed_fields_sent_by_a_writer_replace_the_live_ones() -> None:
    live = update(None, config_map(k="v"), "kubectl-client-side-apply")
    new = copy.deepcopy(live)
    migrated = new["metadata"]["managedFields"]
    migrated[0] |= {"manager": "kubectl", "operation": "Apply"}
    assert update(live, new)["metadata"]["managedFields"] == migrated


@pytest.mark.parametrize(
    "broken", [[{"manager": "x"}], "x", [{"manager": "x", "operation": "Steal", "apiVersion": "v1"}], None]
)
def test_managed_fields_that_make_no_sense_are_ignored(broken: object) -> None:
    live = apply(None, config_map(k="v"))
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = broken
    assert update(live, new) == live


def test_status_and_the_rest_have_managers_of_their_own() -> None:
    live = apply(None, {**isvc(minReplicas=1), "status": {"url": "ignored"}})
    assert "status" not in live
    told = update(live, {**live, "status": {"url": "x"}}, "controller", subresource="status")
    assert owned(told, "controller", "Update") == {("f:status",), ("f:status", "f:url")}
    assert entries(told)["controller", "Update"]["subresource"] == "status"
    assert "status" not in str(owned(update(told, {**told, "status": {"url": "y"}}), "a"))
    applied = apply(told, {**isvc(maxReplicas=9), "status": {"conditions": []}}, "s", subresource="status")
    assert applied["spec"] == live["spec"]
    assert applied["status"] == {"url": "x", "conditions": []}


def test_kubectl_takes_over_from_its_own_client_side_apply() -> None:
    first = config_map(k="v")
    first["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(config_map(k="v"))}
    live = update(None, first, "kubectl-client-side-apply")
    with pytest.raises(Conflict):
        apply(live, config_map(k="w"), "somebody")
    taken = apply(live, config_map(k="w"), "kubectl")
    assert taken["data"] == {"k": "w"}
    assert json.loads(taken["metadata"]["annotations"][LAST_APPLIED]) == config_map(k="w")


def test_kubectl_does_not_take_what_others_changed_since() -> None:
    first = config_map(k="v", l="m")
    first["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(config_map(k="v", l="m"))}
    live = update(None, first, "kubectl-client-side-apply")
    live = update(live, {**live, "data": {"k": "changed", "l": "m"}}, "ed")
    with pytest.raises(Conflict) as caught:
        apply(live, config_map(k="w", l="n"), "kubectl")
    assert [cause.field for cause in caught.value.causes] == [".data.k"]


def test_more_than_ten_writers_share_an_entry() -> None:
    live = update(None, config_map(k0="v"), "m0")
    for number in range(1, 15):
        data = {**live["data"], f"k{number}": "v"}
        live = update(live, {**live, "data": data}, f"m{number}", now=NOW + timedelta(seconds=number))
    managers = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(managers) == 10
    assert managers[0] == "ancient-changes"
    assert {("f:data", f"f:k{number}") for number in range(6)} <= owned(live, "ancient-changes", "Update")


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("abc", "cba", "cba"),
        ("abc", "xb", "axbc"),
        ("abcd", "dxa", "bcdxa"),
        ("ab", "xyb", "axyb"),
        ("", "ba", "ba"),
    ],
)
def test_order_of_keyed_lists(live: str, applied: str, merged: str) -> None:
    before = update(None, pod(*({"name": name} for name in live)))
    after = apply(before, pod(*({"name": name} for name in applied)))
    assert "".join(item["name"] for item in after["spec"]["containers"]) == merged


def test_two_managers_of_one_pod_each_own_their_container() -> None:
    live = apply(None, pod({"name": "a", "image": "x"}))
    live = apply(live, pod({"name": "b", "image": "y"}), "b")
    live = apply(live, pod({"name": "a", "image": "x2"}))
    assert live["spec"]["containers"] == [{"name": "a", "image": "x2"}, {"name": "b", "image": "y"}]
    assert apply(live, pod(), "b")["spec"]["containers"] == [{"name": "a", "image": "x2"}]


def test_containers_of_an_inference_service_are_one_value() -> None:
    live = apply(None, isvc(containers=[{"name": "a", "image": "x"}]))
    with pytest.raises(Conflict, match=r"\.spec\.predictor\.containers$"):
        apply(live, isvc(containers=[{"name": "b"}]), "b")


def test_repeated_items_of_old_writes_count_as_one_value() -> None:
    live = update(None, pod({"name": "a", "env": [{"name": "E", "value": "1"}, {"name": "E", "value": "2"}]}))
    env = 'k:{"name":"a"}', "f:env", 'k:{"name":"E"}'
    assert ("f:spec", "f:containers", *env) in owned(live, "u", "Update")
    assert ("f:spec", "f:containers", *env, "f:value") not in owned(live, "u", "Update")
    taken = apply(live, pod({"name": "a", "env": [{"name": "E", "value": "3"}]}), force=True)
    assert taken["spec"]["containers"][0]["env"] == [{"name": "E", "value": "3"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"name": "p", "managedFields": []}}, "metadata.managedFields must be nil"),
        ({"kind": "ConfigMap"}, "invalid object type"),
        ({"kind": None}, "kind must be set"),
        ({"metadata": 3}, "metadata must be an object"),
        (
            {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}},
            r'/p; v1, Kind=Pod\): .spec.containers: duplicate entries for key \[name="a"\]',
        ),
        ({"spec": {"containers": [{"image": "a"}]}}, r'omits all key fields \["name"\]'),
    ],
)
def test_what_cannot_be_applied(change: Object, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        apply(apply(None, pod({"name": "z"})), {**pod(), **change})


# Properties, on pods of two containers with a few fields each: keyed lists, sets, atomic lists, maps and scalars.
VALUES = st.sampled_from(["x", "y"])
ENV = st.sets(st.sampled_from(["E1", "E2"])).flatmap(
    lambda names: st.tuples(
        *(st.builds(lambda v, n=name: {"name": n, "value": v}, VALUES) for name in sorted(names))
    )
)
CONTAINERS = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.fixed_dictionaries(
        {}, optional={"image": VALUES, "args": st.lists(VALUES, max_size=2), "env": ENV.map(list)}
    ),
).map(lambda named: [{"name": name, **container} for name, container in named.items()])
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.dictionaries(st.sampled_from(["l", "m"]), VALUES, min_size=1),
        "finalizers": st.lists(VALUES, unique=True, min_size=1),
    },
)
PODS = st.builds(lambda containers, metadata: pod(*containers, **metadata), CONTAINERS, METADATA)
STEPS = st.lists(
    st.tuples(st.sampled_from(["apply", "update"]), st.sampled_from(["a", "b"]), PODS), min_size=1, max_size=5
)
POD = shape_of("v1", "Pod")


def history(steps: list[tuple[str, str, Object]]) -> Object:
    live: Object | None = None
    for operation, manager, obj in steps:
        live = apply(live, obj, manager, force=True) if operation == "apply" else update(live, obj, manager)
    assert live is not None
    return live


@given(STEPS, PODS)
def test_apply_twice_is_apply_once(steps: list[tuple[str, str, Object]], obj: Object) -> None:
    once = apply(history(steps), obj, "c", force=True)
    # An object that nobody manages any more counts, as in Kubernetes, as one from before managers were tracked.
    assume("managedFields" in once["metadata"])
    assert apply(once, obj, "c", now=LATER) == once


@given(STEPS, PODS)
def test_what_is_applied_is_there_and_owned(steps: list[tuple[str, str, Object]], obj: Object) -> None:
    applied = apply(history(steps), obj, "c", force=True)
    assert not compare(applied, obj, POD).modified
    assert not compare(applied, obj, POD).added
    wanted = fields_of(obj, POD) - {("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name")}
    assert (owned(applied, "c") if ("c", "Apply") in entries(applied) else frozenset()) == wanted


@given(STEPS)
def test_owned_fields_are_there(steps: list[tuple[str, str, Object]]) -> None:
    live = history(steps)
    everything = compare({}, bare(live), POD).added
    for entry in live["metadata"].get("managedFields", []):
        assert decode(entry["fieldsV1"]) <= everything


@given(PODS)
def test_every_field_of_a_created_object_is_owned(obj: Object) -> None:
    made = update(None, obj)
    expected = compare({}, obj, POD).added - {
        ("f:apiVersion",), ("f:kind",), ("f:metadata",), ("f:metadata", "f:name")
    }  # fmt: skip
    assert owned(made, "u", "Update") == expected


@given(STEPS, st.sampled_from(["x", "y"]))
def test_adding_a_field_and_giving_it_up_restores_its_absence(
    steps: list[tuple[str, str, Object]], value: str
) -> None:
    live = history(steps)
    mine = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "annotations": {"mine": value}}}
    nothing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    assert bare(apply(apply(live, mine, "c"), nothing, "c")) == bare(live)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES),
    st.dictionaries(st.sampled_from(["d", "e", "f"]), VALUES),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES),
)
def test_managers_of_different_fields_never_conflict(
    ones: dict[str, str], others: dict[str, str], again: dict[str, str]
) -> None:
    live = apply(apply(None, config_map(**ones)), config_map(**others), "b")
    assert apply(live, config_map(**again))["data"] == {**again, **others}


@given(STEPS, PODS)
def test_nothing_given_is_changed_or_shared(steps: list[tuple[str, str, Object]], obj: Object) -> None:
    live = history(steps)
    before = copy.deepcopy((live, obj))
    result = apply(live, obj, "c", force=True)
    result["spec"]["containers"].append({"name": "later"})
    result["metadata"].setdefault("labels", {})["l"] = "later"
    for container in result["spec"]["containers"]:
        container.setdefault("env", []).append({"name": "later"})
    assert (live, obj) == before
