"""Events: one per happening, counted when it repeats, gone after their time."""

from __future__ import annotations

import anyio
import pytest
from unit.apiserver.world import World, thing, until

from glowplug.apiserver import events
from glowplug.apiserver.events import EventRecorder, last_seen, prune, prune_events
from glowplug.errors import StoreFull
from glowplug.spec.kinds import EVENT, NAMESPACE, POD


def test_event_tells_of_its_object(world: World) -> None:
    pod = world.objects.create(POD, thing("p"))
    EventRecorder(world.objects)(pod, "Warning", "BackOff", "restarting")
    (event,) = world.objects.list(EVENT)
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "default",
        "name": "p",
        "uid": pod["metadata"]["uid"],
        "resourceVersion": pod["metadata"]["resourceVersion"],
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "BackOff", "restarting")
    assert (event["count"], event["firstTimestamp"]) == (1, "2026-01-02T03:04:05Z")
    assert event["source"] == {"component": "glowplug"}


def test_repetition_is_counted(world: World) -> None:
    pod = world.objects.create(POD, thing("p"))
    record = EventRecorder(world.objects)
    for _ in range(3):
        record(pod, "Warning", "BackOff", "restarting")
        world.pass_time(60)
    record(pod, "Warning", "BackOff", "another message")
    first, second = sorted(world.objects.list(EVENT), key=lambda event: -event["count"])
    assert (first["count"], second["count"]) == (3, 1)
    assert (first["firstTimestamp"], first["lastTimestamp"]) == (
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:06:05Z",
    )


def test_counting_starts_again_when_the_event_has_gone(world: World) -> None:
    pod = world.objects.create(POD, thing("p"))
    record = EventRecorder(world.objects)
    record(pod, "Normal", "Started", "ok")
    world.objects.delete(EVENT, "default", world.objects.list(EVENT)[0]["metadata"]["name"])
    record(pod, "Normal", "Started", "ok")
    assert [event["count"] for event in world.objects.list(EVENT)] == [1]


def test_memory_of_repetitions_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_REMEMBERED", 3)
    pod = world.objects.create(POD, thing("p"))
    record = EventRecorder(world.objects)
    for number in range(6):
        record(pod, "Normal", "Step", str(number))
    assert len(record._names) == 3


def test_cluster_scoped_objects_tell_in_default(world: World) -> None:
    namespace = world.objects.get(NAMESPACE, "", "default")
    EventRecorder(world.objects)(namespace, "Normal", "Seen", "hello")
    assert world.objects.list(EVENT, "default")[0]["involvedObject"]["kind"] == "Namespace"


def test_event_that_cannot_be_written_is_lost_quietly(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pod = world.objects.create(POD, thing("p"))

    def full(*_: object) -> None:
        raise StoreFull("no room")

    monkeypatch.setattr(world.objects, "create", full)
    EventRecorder(world.objects)(pod, "Normal", "Started", "ok")
    assert "no room" in caplog.text


def test_old_events_are_pruned_by_their_last_time(world: World) -> None:
    pod = world.objects.create(POD, thing("p"))
    record = EventRecorder(world.objects)
    record(pod, "Normal", "Old", "x")
    record(pod, "Normal", "Repeated", "x")
    world.pass_time(3000)
    record(pod, "Normal", "Repeated", "x")
    world.pass_time(700)
    oldest = prune(world.objects, 3600)
    assert [event["reason"] for event in world.objects.list(EVENT)] == ["Repeated"]
    assert oldest is not None
    assert (world.now - oldest).total_seconds() == 700


def test_time_of_an_event_of_others() -> None:
    assert last_seen({"metadata": {}, "lastTimestamp": None}) is None
    found = last_seen({"metadata": {}, "lastTimestamp": None, "eventTime": "2026-01-02T03:04:05.123456Z"})
    assert found is not None
    assert found.microsecond == 123456
    assert last_seen({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}, "eventTime": "nonsense"})


async def test_pruning_goes_on_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_SHORTEST_NAP_S", 0.01)
    pod = world.objects.create(POD, thing("p"))
    EventRecorder(world.objects)(pod, "Normal", "Old", "x")
    async with anyio.create_task_group() as group:
        group.start_soon(prune_events, world.objects, 0.02, name="prune")
        world.pass_time(1)
        await until(lambda: world.objects.count(EVENT) == 0)
        group.cancel_scope.cancel()
