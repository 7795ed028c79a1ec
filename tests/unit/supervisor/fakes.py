"""An in-memory stand-in for the in-process API: versions, conflicts, graceful deletion of pods, and watches."""

from __future__ import annotations

import asyncio
import copy
import itertools
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.errors import AlreadyExists, Conflict, NotFound
from glowplug.spec.kinds import POD, Kind

Object = dict[str, Any]


@dataclass(frozen=True)
class FakeChange:
    type: str
    kind: Kind
    object: Object


class FakeObjects:
    def __init__(self) -> None:
        self._live: dict[tuple[str, str, str], Object] = {}
        self._queues: list[tuple[tuple[Kind, ...], asyncio.Queue[FakeChange]]] = []
        self._versions = itertools.count(1)
        self.writes = 0
        # What every write raises, if anything: a full disk.
        self.fault: Exception | None = None

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return copy.deepcopy(self._live[kind.plural, namespace, name])
        except KeyError:
            raise NotFound(f'{kind.resource} "{name}" not found') from None

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        return [
            copy.deepcopy(each)
            for (plural, ns, _), each in self._live.items()
            if plural == kind.plural
            and namespace in ("", ns)
            and (labels or {}).items() <= (each["metadata"].get("labels") or {}).items()
        ]

    def create(self, kind: Kind, obj: Object) -> Object:
        obj = copy.deepcopy(obj)
        metadata = obj["metadata"]
        metadata.setdefault("namespace", "default")
        key = (kind.plural, metadata["namespace"], metadata["name"])
        if key in self._live:
            raise AlreadyExists(f'{kind.resource} "{metadata["name"]}" already exists')
        version = next(self._versions)
        # Processes are found, and killed, by their pod's uid: tests beside this one must not have the same.
        metadata.update(resourceVersion=str(version), uid=str(uuid.uuid4()), generation=1)
        return self._keep(kind, key, obj, "ADDED")

    def update(self, kind: Kind, obj: Object) -> Object:
        key, live = self._current(kind, obj)
        after = copy.deepcopy(obj)
        if "status" in live:
            after["status"] = live["status"]
        return self._changed(kind, key, live, after)

    def update_status(self, kind: Kind, obj: Object) -> Object:
        key, live = self._current(kind, obj)
        return self._changed(kind, key, live, {**live, "status": copy.deepcopy(obj["status"])})

    def delete(self, kind: Kind, namespace: str, name: str, grace_period_seconds: int | None = None) -> None:
        key = (kind.plural, namespace, name)
        obj = self.get(kind, namespace, name)
        if kind == POD and grace_period_seconds != 0:
            default = obj["spec"].get("terminationGracePeriodSeconds", 30)
            obj["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
            obj["metadata"]["deletionGracePeriodSeconds"] = (
                default if grace_period_seconds is None else grace_period_seconds
            )
            self._bump(obj)
            self._keep(kind, key, obj, "MODIFIED")
            return
        if self.fault is not None:
            raise self.fault
        del self._live[key]
        self._tell(FakeChange("DELETED", kind, obj))

    async def watch(self, *kinds: Kind) -> AsyncIterator[FakeChange]:
        queue: asyncio.Queue[FakeChange] = asyncio.Queue()
        for kind in kinds:
            for each in self.list(kind):
                queue.put_nowait(FakeChange("ADDED", kind, each))
        self._queues.append((kinds, queue))
        while True:
            yield await queue.get()

    def _current(self, kind: Kind, obj: Object) -> tuple[tuple[str, str, str], Object]:
        metadata = obj["metadata"]
        live = self.get(kind, metadata["namespace"], metadata["name"])
        if metadata.get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
            raise Conflict("the object has been modified")
        return (kind.plural, metadata["namespace"], metadata["name"]), live

    def _changed(self, kind: Kind, key: tuple[str, str, str], live: Object, after: Object) -> Object:
        if after == live:
            return copy.deepcopy(live)
        self._bump(after)
        return self._keep(kind, key, after, "MODIFIED")

    def _bump(self, obj: Object) -> None:
        obj["metadata"]["resourceVersion"] = str(next(self._versions))

    def _keep(self, kind: Kind, key: tuple[str, str, str], obj: Object, type: str) -> Object:
        if self.fault is not None:
            raise self.fault
        self.writes += 1
        self._live[key] = obj
        self._tell(FakeChange(type, kind, copy.deepcopy(obj)))
        return copy.deepcopy(obj)

    def _tell(self, change: FakeChange) -> None:
        for kinds, queue in self._queues:
            if change.kind in kinds:
                queue.put_nowait(change)
