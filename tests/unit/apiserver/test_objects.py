"""The in-process API: metadata, generations, conflicts, deletion."""

from __future__ import annotations

import re

import pytest
from unit.apiserver.world import World, thing

from glowplug.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
)
from glowplug.spec.kinds import (
    CLUSTER_SERVING_RUNTIME,
    CONFIG_MAP,
    INFERENCE_SERVICE,
    NAMESPACE,
    POD,
    REVISION,
)


def test_create_fills_in_what_is_the_servers(world: World) -> None:
    wish = {**thing("flights"), "spec": {"predictor": {}}, "status": {"url": "mine"}}
    wish["metadata"].update(resourceVersion="7", uid="mine", generation=9, creationTimestamp="then")
    made = world.objects.create(INFERENCE_SERVICE, wish)
    meta = made["metadata"]
    assert made["apiVersion"] == "serving.kserve.io/v1beta1"
    assert made["kind"] == "InferenceService"
    assert re.fullmatch(r"[0-9a-f-]{36}", meta["uid"])
    assert meta["creationTimestamp"] == "2026-01-02T03:04:05Z"
    assert meta["generation"] == 1
    assert meta["resourceVersion"] == str(world.store.revision)
    assert "status" not in made
    assert wish["metadata"]["uid"] == "mine", "the caller's object is not touched"
    assert world.objects.get(INFERENCE_SERVICE, "default", "flights") == made


def test_bags_of_data_have_no_generation(world: World) -> None:
    made = world.objects.create(CONFIG_MAP, {**thing("c"), "data": {"a": "1"}})
    made["data"]["a"] = "2"
    assert "generation" not in made["metadata"]
    assert "generation" not in world.objects.update(CONFIG_MAP, made)["metadata"]


def test_generation_follows_the_spec_only(world: World) -> None:
    obj = world.objects.create(REVISION, {**thing("r"), "spec": {"a": 1}})
    obj["metadata"]["labels"] = {"x": "y"}
    obj = world.objects.update(REVISION, obj)
    assert obj["metadata"]["generation"] == 1
    obj["status"] = {"ready": True}
    obj = world.objects.update_status(REVISION, obj)
    assert (obj["metadata"]["generation"], obj["status"]) == (1, {"ready": True})
    obj["spec"]["a"] = 2
    obj["status"] = {"ready": False}
    obj = world.objects.update(REVISION, obj)
    assert (obj["metadata"]["generation"], obj["status"]) == (2, {"ready": True})
    obj["spec"]["a"] = 3
    obj["status"] = {"ready": "soon"}
    obj = world.objects.update_status(REVISION, obj)
    assert (obj["spec"], obj["status"]) == ({"a": 2}, {"ready": "soon"})


def test_equal_object_is_not_written_again(world: World) -> None:
    obj = world.objects.create(REVISION, {**thing("r"), "spec": {"a": 1}})
    revision = world.store.revision
    assert world.objects.update(REVISION, obj) == obj
    assert world.objects.update_status(REVISION, obj) == obj
    assert world.store.revision == revision


def test_field_manager_time_alone_is_no_change(world: World) -> None:
    obj = thing("c", managedFields=[{"manager": "me", "time": "2026-01-01T00:00:00Z"}])
    obj = world.objects.create(CONFIG_MAP, obj)
    revision = world.store.revision
    obj["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:09Z"
    world.objects.update(CONFIG_MAP, obj)
    assert world.store.revision == revision
    del obj["metadata"]["managedFields"]
    obj["data"] = {"a": "b"}
    assert world.objects.update(CONFIG_MAP, obj)["metadata"]["managedFields"][0]["manager"] == "me"


def test_stale_write_is_a_conflict(world: World) -> None:
    old = world.objects.create(CONFIG_MAP, thing("c"))
    world.objects.update(
        CONFIG_MAP, {**thing("c", resourceVersion=old["metadata"]["resourceVersion"]), "data": {}}
    )
    with pytest.raises(
        Conflict,
        match='Operation cannot be fulfilled on configmaps "c": the object has been modified; '
        "please apply your changes to the latest version and try again",
    ):
        world.objects.update(CONFIG_MAP, old)
    with pytest.raises(Conflict, match="UID in precondition: other"):
        world.objects.update(CONFIG_MAP, thing("c", uid="other"))
    world.objects.update(CONFIG_MAP, {**thing("c"), "data": {"unconditional": "yes"}})


def test_names_and_namespaces_are_checked(world: World) -> None:
    objects = world.objects
    with pytest.raises(Invalid, match="RFC 1123 subdomain"):
        objects.create(CONFIG_MAP, thing("Not_A_Name"))
    with pytest.raises(Invalid, match="name or generateName is required"):
        objects.create(CONFIG_MAP, {"metadata": {"namespace": "default"}})
    with pytest.raises(Invalid, match="no more than 63"):
        objects.create(NAMESPACE, {"metadata": {"name": "n" * 64}})
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        objects.create(CONFIG_MAP, thing("c", "nowhere"))
    with pytest.raises(NotFound, match=r'inferenceservices\.serving\.kserve\.io "x" not found'):
        objects.get(INFERENCE_SERVICE, "default", "x")
    objects.create(CONFIG_MAP, thing("c"))
    with pytest.raises(AlreadyExists, match='configmaps "c" already exists'):
        objects.create(CONFIG_MAP, thing("c"))
    made = objects.create(CLUSTER_SERVING_RUNTIME, thing("rt", "ignored"))
    assert "namespace" not in made["metadata"]
    with pytest.raises(MethodNotAllowed):
        objects.update_status(CONFIG_MAP, thing("c"))
    with pytest.raises(BadRequest, match="JSON"):
        objects.create(CONFIG_MAP, {**thing("huge"), "data": {"n": 2**70}})
    assert len(objects.list(CONFIG_MAP)) == 1


def test_generated_names_are_distinct_and_short(world: World) -> None:
    names = set()
    for _ in range(20):
        made = world.objects.create(
            CONFIG_MAP, {"metadata": {"generateName": "g" * 70, "namespace": "default"}}
        )
        names.add(made["metadata"]["name"])
    assert len(names) == 20
    assert all(re.fullmatch(r"g{58}[bcdfghjklmnpqrstvwxz2456789]{5}", name) for name in names)


def test_list_by_namespace_and_labels(world: World) -> None:
    world.objects.create(NAMESPACE, {"metadata": {"name": "other"}})
    for name, namespace, labels in (
        ("a", "default", {"x": "1"}),
        ("b", "default", {"x": "2"}),
        ("a", "other", {"x": "1"}),
    ):
        world.objects.create(CONFIG_MAP, thing(name, namespace, labels=labels))
    listed = world.objects.list(CONFIG_MAP, labels={"x": "1"})
    assert [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in listed] == [
        ("default", "a"),
        ("other", "a"),
    ]
    assert [one["metadata"]["name"] for one in world.objects.list(CONFIG_MAP, "default")] == ["a", "b"]
    listed[0]["metadata"]["labels"]["x"] = "9"
    assert world.objects.get(CONFIG_MAP, "default", "a")["metadata"]["labels"] == {"x": "1"}


def test_deletion_is_at_once_without_finalizers(world: World) -> None:
    world.objects.create(CONFIG_MAP, thing("c"))
    world.objects.delete(CONFIG_MAP, "default", "c")
    with pytest.raises(NotFound):
        world.objects.get(CONFIG_MAP, "default", "c")
    with pytest.raises(NotFound):
        world.objects.delete(CONFIG_MAP, "default", "c")


def test_finalizers_hold_an_object_until_the_last_is_removed(world: World) -> None:
    world.objects.create(REVISION, thing("r", finalizers=["a/b", "c/d"]))
    world.objects.delete(REVISION, "default", "r")
    obj = world.objects.get(REVISION, "default", "r")
    assert obj["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:05Z"
    assert obj["metadata"]["generation"] == 2
    revision = world.store.revision
    world.objects.delete(REVISION, "default", "r")
    assert world.store.revision == revision, "deleting twice is no change"

    obj["metadata"]["finalizers"] = ["a/b", "late/one"]
    with pytest.raises(Invalid, match="no new finalizers"):
        world.objects.update(REVISION, obj)
    obj["metadata"]["finalizers"] = ["a/b"]
    obj = world.objects.update(REVISION, obj)
    obj["metadata"]["finalizers"] = []
    world.objects.update(REVISION, obj)
    assert world.objects.list(REVISION) == []


def test_nobody_undoes_a_deletion(world: World) -> None:
    obj = world.objects.create(REVISION, thing("r", finalizers=["a/b"]))
    world.objects.delete(REVISION, "default", "r")
    updated = world.objects.update(REVISION, {**thing("r", finalizers=["a/b"]), "spec": {"x": 1}})
    assert "deletionTimestamp" in updated["metadata"]
    assert updated["metadata"]["uid"] == obj["metadata"]["uid"]


def test_pod_gets_its_grace_and_goes_when_it_is_zero(world: World) -> None:
    world.objects.create(POD, {**thing("p"), "spec": {"terminationGracePeriodSeconds": 300}})
    world.objects.delete(POD, "default", "p")
    pod = world.objects.get(POD, "default", "p")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 300
    assert pod["metadata"]["deletionTimestamp"] == "2026-01-02T03:09:05Z"
    world.objects.delete(POD, "default", "p", grace_period_seconds=10)
    pod = world.objects.get(POD, "default", "p")
    assert pod["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:15Z"
    world.objects.delete(POD, "default", "p", grace_period_seconds=60)
    assert world.objects.get(POD, "default", "p") == pod, "grace is never lengthened"
    world.objects.delete(POD, "default", "p", grace_period_seconds=0)
    assert world.objects.list(POD) == []


def test_pod_begins_pending_and_has_a_default_grace(world: World) -> None:
    made = world.objects.create(POD, thing("p"))
    assert made["status"] == {"phase": "Pending"}
    world.objects.delete(POD, "default", "p")
    assert world.objects.get(POD, "default", "p")["metadata"]["deletionGracePeriodSeconds"] == 30


def test_ending_namespace_takes_nothing_new(world: World) -> None:
    made = world.objects.create(NAMESPACE, {"metadata": {"name": "lab"}})
    assert made["status"] == {"phase": "Active"}
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "lab"}
    world.objects.delete(NAMESPACE, "", "lab")
    assert world.objects.get(NAMESPACE, "", "lab")["status"] == {"phase": "Terminating"}
    with pytest.raises(Forbidden, match="because it is being terminated") as caught:
        world.objects.create(CONFIG_MAP, thing("c", "lab"))
    assert caught.value.causes[0].reason == "NamespaceTerminating"


def test_default_namespace_stays(world: World) -> None:
    with pytest.raises(
        Forbidden, match='namespaces "default" is forbidden: this namespace may not be deleted'
    ):
        world.objects.delete(NAMESPACE, "", "default")


def test_dry_run_answers_and_writes_nothing(world: World) -> None:
    revision = world.store.revision
    made = world.objects.create(CONFIG_MAP, thing("c"), is_dry_run=True)
    assert made["metadata"]["uid"]
    assert world.objects.list(CONFIG_MAP) == []
    assert world.store.revision == revision
