"""Garbage collection: cascades in the three orders, namespaces, what a crash left, a full disk in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from unit.apiserver.world import World, owned_by, thing, until

from glowplug.apiserver import gc
from glowplug.apiserver.changes import Ref
from glowplug.apiserver.events import EventRecorder
from glowplug.apiserver.finalizers import DeleteOptions
from glowplug.apiserver.gc import GarbageCollector
from glowplug.spec.kinds import (
    CLUSTER_SERVING_RUNTIME,
    CONFIG_MAP,
    CONFIGURATION,
    EVENT,
    NAMESPACE,
    POD,
    REVISION,
    SECRET,
    Kind,
)


@asynccontextmanager
async def collecting(world: World) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(GarbageCollector(world.objects).run, name="garbage collector")
        yield
        group.cancel_scope.cancel()


def make(world: World, kind: Kind, name: str, *owners: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    if owners:
        metadata["ownerReferences"] = owned_by(*owners)
    return world.objects.create(kind, thing(name, metadata.pop("namespace", "default"), **metadata))


def remove(world: World, kind: Kind, name: str, propagation: str) -> None:
    world.objects.remove(Ref(kind, "default", name), DeleteOptions(propagation=propagation))


def total(world: World, namespace: str = "default") -> int:
    return sum(
        world.objects.count(kind, namespace) for kind in (CONFIGURATION, REVISION, POD, CONFIG_MAP, SECRET)
    )


async def test_dependents_follow_through_every_level(world: World) -> None:
    async with collecting(world):
        top = make(world, CONFIGURATION, "top")
        middle = make(world, REVISION, "middle", top)
        for number in range(5):
            make(world, CONFIG_MAP, f"leaf{number}", middle)
        make(world, CONFIG_MAP, "stranger")
        world.objects.delete(CONFIGURATION, "default", "top")
        await until(lambda: total(world) == 1)
        assert world.objects.get(CONFIG_MAP, "default", "stranger")


async def test_dependent_stays_while_one_owner_lives(world: World) -> None:
    async with collecting(world):
        one, two = make(world, CONFIGURATION, "one"), make(world, CONFIGURATION, "two")
        make(world, CONFIG_MAP, "shared", one, two)
        make(world, CONFIG_MAP, "own", one)
        world.objects.delete(CONFIGURATION, "default", "one")
        await until(lambda: world.objects.count(CONFIG_MAP) == 1)
        assert world.objects.get(CONFIG_MAP, "default", "shared")
        world.objects.delete(CONFIGURATION, "default", "two")
        await until(lambda: total(world) == 0)


async def test_owner_of_the_same_name_is_not_the_owner(world: World) -> None:
    async with collecting(world):
        first = make(world, CONFIGURATION, "c")
        make(world, CONFIG_MAP, "leaf", first)
        world.objects.delete(CONFIGURATION, "default", "c")
        make(world, CONFIGURATION, "c")
        await until(lambda: world.objects.count(CONFIG_MAP) == 0)
        late = make(world, CONFIG_MAP, "late", first)
        assert late
        await until(lambda: world.objects.count(CONFIG_MAP) == 0)
        assert world.objects.count(CONFIGURATION) == 1


async def test_foreground_waits_for_the_dependents(world: World) -> None:
    async with collecting(world):
        top = make(world, CONFIGURATION, "top")
        middle = make(world, REVISION, "middle", top)
        make(world, POD, "leaf", middle)
        remove(world, CONFIGURATION, "top", "Foreground")
        assert world.objects.get(CONFIGURATION, "default", "top")["metadata"]["finalizers"] == [
            "foregroundDeletion"
        ]
        await until(lambda: "deletionTimestamp" in world.objects.get(POD, "default", "leaf")["metadata"])
        assert total(world) == 3, "the pod has its grace, so both owners wait"
        world.objects.delete(POD, "default", "leaf", grace_period_seconds=0)
        await until(lambda: total(world) == 0)


async def test_foreground_does_not_wait_for_those_that_do_not_block(world: World) -> None:
    async with collecting(world):
        top = make(world, CONFIGURATION, "top")
        world.objects.create(POD, thing("p", ownerReferences=owned_by(top, blocks=False)))
        remove(world, CONFIGURATION, "top", "Foreground")
        await until(lambda: world.objects.count(CONFIGURATION) == 0)
        assert "deletionTimestamp" in world.objects.get(POD, "default", "p")["metadata"]


async def test_orphans_are_cut_loose(world: World) -> None:
    async with collecting(world):
        top, other = make(world, CONFIGURATION, "top"), make(world, CONFIGURATION, "other")
        make(world, CONFIG_MAP, "one", top)
        make(world, CONFIG_MAP, "two", top, other)
        remove(world, CONFIGURATION, "top", "Orphan")
        await until(lambda: world.objects.count(CONFIGURATION) == 1)
        assert "ownerReferences" not in world.objects.get(CONFIG_MAP, "default", "one")["metadata"]
        left = world.objects.get(CONFIG_MAP, "default", "two")["metadata"]["ownerReferences"]
        assert [one["name"] for one in left] == ["other"]


async def test_owner_that_is_not_served_here_keeps_its_dependents(world: World) -> None:
    foreign = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u"}
    broken = [{"kind": "Deployment"}, "nonsense"]
    async with collecting(world):
        world.objects.create(CONFIG_MAP, thing("a", ownerReferences=[foreign]))
        world.objects.create(CONFIG_MAP, thing("b", ownerReferences=broken))
        doomed = make(world, CONFIG_MAP, "c", make(world, CONFIGURATION, "top"))
        assert doomed
        world.objects.delete(CONFIGURATION, "default", "top")
        await until(lambda: world.objects.count(CONFIG_MAP) == 2)


async def test_cluster_scoped_owner(world: World) -> None:
    async with collecting(world):
        runtime = world.objects.create(CLUSTER_SERVING_RUNTIME, {"metadata": {"name": "rt"}})
        make(world, CONFIG_MAP, "leaf", runtime)
        world.objects.delete(CLUSTER_SERVING_RUNTIME, "", "rt")
        await until(lambda: world.objects.count(CONFIG_MAP) == 0)


async def test_namespace_is_emptied_then_goes(world: World) -> None:
    async with collecting(world):
        world.objects.create(NAMESPACE, {"metadata": {"name": "lab"}})
        top = make(world, CONFIGURATION, "top", namespace="lab")
        make(world, REVISION, "r", top, namespace="lab")
        make(world, CONFIG_MAP, "held", namespace="lab", finalizers=["a/b"])
        pod = make(world, POD, "p", namespace="lab")
        EventRecorder(world.objects)(pod, "Normal", "Started", "it runs")
        world.objects.delete(NAMESPACE, "", "lab")
        await until(lambda: total(world, "lab") == 2)
        assert world.objects.get(NAMESPACE, "", "lab")["status"]["phase"] == "Terminating"
        world.objects.delete(POD, "lab", "p", grace_period_seconds=0)
        held = world.objects.get(CONFIG_MAP, "lab", "held")
        held["metadata"]["finalizers"] = []
        world.objects.update(CONFIG_MAP, held)
        await until(lambda: world.objects.count(NAMESPACE) == 1)
        assert world.objects.count(EVENT) == 0


async def test_empty_namespace_goes_at_once(world: World) -> None:
    async with collecting(world):
        world.objects.create(NAMESPACE, {"metadata": {"name": "lab"}})
        world.objects.delete(NAMESPACE, "", "lab")
        await until(lambda: world.objects.count(NAMESPACE) == 1)


async def test_start_finishes_what_a_crash_left(world: World) -> None:
    top = make(world, CONFIGURATION, "top")
    make(world, CONFIG_MAP, "leaf", top)
    waiting = make(world, CONFIGURATION, "waiting")
    make(world, REVISION, "blocking", waiting)
    remove(world, CONFIGURATION, "waiting", "Foreground")
    world.objects.create(NAMESPACE, {"metadata": {"name": "lab"}})
    make(world, SECRET, "s", namespace="lab")
    world.objects.delete(NAMESPACE, "", "lab")
    world.objects.delete(CONFIGURATION, "default", "top")
    async with collecting(world):
        await until(lambda: total(world) == 0 and world.objects.count(NAMESPACE) == 1)


async def test_full_disk_delays_and_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_FIRST_RETRY_S", 0.01)
    top = make(world, CONFIGURATION, "top")
    for number in range(3):
        make(world, CONFIG_MAP, f"leaf{number}", top)
    async with collecting(world):
        world.objects.delete(CONFIGURATION, "default", "top")
        # Nothing can be written from here on, as on a full disk: SQLite itself refuses.
        world.store._database.execute("PRAGMA query_only = 1")
        world.store._write_error = lambda error: _full(error)  # type: ignore[method-assign]
        await anyio.sleep(0.05)
        assert world.objects.count(CONFIG_MAP) == 3
        world.store._database.execute("PRAGMA query_only = 0")
        await until(lambda: world.objects.count(CONFIG_MAP) == 0)


def _full(error: Exception) -> Exception:
    from glowplug.errors import StoreFull

    return StoreFull(str(error))


async def test_many_deletions_do_not_starve_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    top = make(world, CONFIGURATION, "top")
    for number in range(200):
        make(world, CONFIG_MAP, f"leaf{number}", top)
    turns = 0
    async with collecting(world):
        world.objects.delete(CONFIGURATION, "default", "top")
        while world.objects.count(CONFIG_MAP):
            await anyio.lowlevel.checkpoint()
            turns += 1
    assert turns > 50
    world.close()
