"""The hub: positions in the window, compaction, subscriptions that lose nothing."""

from __future__ import annotations

import gc as memory
from pathlib import Path

import anyio
import pytest
from unit.apiserver.world import World, thing

from glowplug.apiserver.watch import Window
from glowplug.errors import Gone
from glowplug.spec.kinds import CONFIG_MAP, POD, SECRET


def put(world: World, name: str, value: str = "1") -> int:
    try:
        world.objects.update(CONFIG_MAP, {**thing(name), "data": {"v": value}})
    except Exception:
        world.objects.create(CONFIG_MAP, {**thing(name), "data": {"v": value}})
    return world.store.revision


async def test_watch_from_a_revision_tells_what_came_after(world: World) -> None:
    put(world, "a")
    revision = put(world, "b")
    put(world, "c")
    world.objects.delete(CONFIG_MAP, "default", "a")
    watcher = world.hub.watch(CONFIG_MAP, revision)
    await watcher.wait()
    assert [(one.type, one.ref.name) for one in watcher.take()] == [("ADDED", "c"), ("DELETED", "a")]
    with anyio.move_on_after(0.01) as scope:
        await watcher.wait()
    assert scope.cancelled_caught, "nothing more has happened"


async def test_deletion_has_a_revision_of_its_own(world: World) -> None:
    put(world, "a")
    watcher = world.hub.watch(CONFIG_MAP)
    world.objects.delete(CONFIG_MAP, "default", "a")
    (change,) = watcher.take()
    assert change.object["metadata"]["resourceVersion"] == str(world.store.revision) == str(change.revision)


async def test_other_kinds_do_not_wake_a_watcher(world: World) -> None:
    watcher = world.hub.watch(SECRET)
    put(world, "a")
    assert list(watcher.take()) == []


def test_compacted_and_future_revisions_are_gone(world: World) -> None:
    revision = put(world, "a")
    put(world, "b")
    world.hub.compact(world.store.revision - 0)
    with pytest.raises(Gone, match=f"too old resource version: {revision}"):
        world.hub.watch(CONFIG_MAP, revision)
    with pytest.raises(Gone):
        world.hub.watch(CONFIG_MAP, world.store.revision + 1)
    world.hub.watch(CONFIG_MAP, world.store.revision)


async def test_restart_forgets_history_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    revision = put(world, "a")
    put(world, "b")
    world.close()
    again = World(tmp_path)
    with pytest.raises(Gone):
        again.hub.watch(CONFIG_MAP, revision)
    again.hub.watch(CONFIG_MAP, again.store.revision)
    again.close()


@pytest.mark.parametrize("window", [Window(events=8), Window(size_bytes=4096)])
async def test_slow_watcher_is_told_gone_and_costs_nothing(tmp_path: Path, window: Window) -> None:
    world = World(tmp_path, window)
    slow, quick = world.hub.watch(CONFIG_MAP), world.hub.watch(CONFIG_MAP)
    for number in range(100):
        put(world, "a", str(number))
        assert len(quick.take()) == 1
    with pytest.raises(Gone, match="slower"):
        slow.take()
    log = world.hub._logs[CONFIG_MAP.resource]
    assert len(log.since(log.base)) <= 2 * window.events
    assert log._size <= 2 * window.size_bytes + 1000
    world.close()


def test_forgetting_keeps_the_latest_period(world: World) -> None:
    first = put(world, "a")
    world.hub.forget_read()
    second = put(world, "b")
    put(world, "c")
    world.hub.forget_read()
    with pytest.raises(Gone):
        world.hub.watch(CONFIG_MAP, first - 1)
    assert len(world.hub.watch(CONFIG_MAP, second).take()) == 1


async def test_leaving_frees_the_place(world: World) -> None:
    watcher = world.hub.watch(CONFIG_MAP)
    assert world.hub.watcher_count == 1
    world.hub.leave(watcher)
    assert world.hub.watcher_count == 0
    assert not world.hub._logs[CONFIG_MAP.resource].wakers


async def test_subscription_tells_what_is_then_what_happens_in_order(tmp_path: Path) -> None:
    world = World(tmp_path, Window(events=4))
    put(world, "a")
    world.objects.create(POD, thing("p"))
    changes = world.objects.watch(POD, CONFIG_MAP)
    for number in range(50):
        put(world, "a", f"later {number}")
    world.objects.delete(POD, "default", "p", grace_period_seconds=0)
    seen = [await anext(changes) for _ in range(53)]
    assert [(one.type, one.ref.name) for one in seen[:2]] == [("ADDED", "p"), ("ADDED", "a")]
    assert [one.object["data"]["v"] for one in seen[2:52]] == [f"later {number}" for number in range(50)]
    assert (seen[52].type, seen[52].kind) == ("DELETED", POD)
    world.close()
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


def test_dropped_subscription_is_forgotten(world: World) -> None:
    changes = world.objects.watch(CONFIG_MAP)
    assert len(world.hub._subscriptions) == 1
    del changes
    memory.collect()
    assert len(world.hub._subscriptions) == 0


async def test_closing_wakes_every_watcher(world: World) -> None:
    watcher = world.hub.watch(CONFIG_MAP)
    world.hub.close()
    with anyio.fail_after(1):
        await watcher.wait()
    assert watcher.is_closed
