"""An in-memory Kubernetes API with the rules that the controllers rely on, and a node whose pods do as they are told.

The API keeps versions, conflicts, generations, the split between spec and status, finalizers, graceful deletion of
pods, and the order of changes; its garbage collector runs when it is asked to. A `Killed` after any write stands for
`kill -9`.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.controllers.knative.scaling import Bounds, Said, Scale, Standing
from glowplug.errors import AlreadyExists, Conflict, NotFound
from glowplug.local.autoscaler_status import says
from glowplug.spec import kinds, names
from glowplug.spec.autoscaling import scaling_of
from glowplug.spec.autoscaling_config import AutoscalerConfig
from glowplug.spec.kinds import Kind

Object = dict[str, Any]
Ref = tuple[Kind, str, str]


class Killed(BaseException):
    """The process is gone, right after a write."""


@dataclass(frozen=True)
class FakeChange:
    type: str
    kind: Kind
    object: Object


def stamp(now: float) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(int(now), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeObjects:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.live: dict[Ref, Object] = {}
        self.changes: deque[FakeChange] = deque()
        self.writes = 0
        self.fuse: int | None = None
        self._version = 0
        self._uids = 0
        self._waiting: asyncio.Event | None = None

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return copy.deepcopy(self.live[kind, namespace, name])
        except KeyError:
            raise NotFound(f"{kind.resource} {namespace}/{name} not found") from None

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        return [
            copy.deepcopy(obj)
            for (live_kind, live_namespace, _), obj in sorted(self.live.items(), key=lambda item: item[0][1:])
            if live_kind == kind
            and namespace in ("", live_namespace)
            and (labels or {}).items() <= (obj["metadata"].get("labels") or {}).items()
        ]

    def create(self, kind: Kind, obj: Object) -> Object:
        obj = json.loads(json.dumps(obj))
        metadata = obj["metadata"]
        ref = (kind, metadata.get("namespace", "") if kind.is_namespaced else "", metadata["name"])
        if ref in self.live:
            raise AlreadyExists(f"{ref} already exists")
        self._uids += 1
        metadata.update(uid=f"uid-{self._uids}", generation=1, creationTimestamp=stamp(self._clock()))
        obj.pop("status", None)
        return self._write("ADDED", ref, obj)

    def update(self, kind: Kind, obj: Object) -> Object:
        ref, live = self._current(kind, obj)
        after = json.loads(json.dumps(obj))
        if "status" in live:
            after["status"] = live["status"]
        else:
            after.pop("status", None)
        for field in ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp"):
            if field in live["metadata"]:
                after["metadata"][field] = live["metadata"][field]
        if after == live:
            return copy.deepcopy(live)
        if _spec(after) != _spec(live):
            after["metadata"]["generation"] += 1
        if "deletionTimestamp" in after["metadata"] and not after["metadata"].get("finalizers"):
            return self._write("DELETED", ref, after)
        return self._write("MODIFIED", ref, after)

    def update_status(self, kind: Kind, obj: Object) -> Object:
        ref, live = self._current(kind, obj)
        after = {**copy.deepcopy(live), "status": json.loads(json.dumps(obj["status"]))}
        if after == live:
            return copy.deepcopy(live)
        return self._write("MODIFIED", ref, after)

    def delete(self, kind: Kind, namespace: str, name: str, grace_period_seconds: int | None = None) -> None:
        obj = self.get(kind, namespace, name)
        ref = (kind, namespace, name)
        if obj["metadata"].get("finalizers") or (kind == kinds.POD and grace_period_seconds != 0):
            if "deletionTimestamp" not in obj["metadata"]:
                obj["metadata"]["deletionTimestamp"] = stamp(self._clock())
                self._write("MODIFIED", ref, obj)
            return
        self._write("DELETED", ref, obj)

    async def watch(self, *watched: Kind) -> AsyncIterator[FakeChange]:
        self._waiting = asyncio.Event()
        for kind in watched:
            for obj in self.list(kind):
                yield FakeChange("ADDED", kind, obj)
        while True:
            while self.changes:
                change = self.changes.popleft()
                if change.kind in watched:
                    yield change
            self._waiting.clear()
            await self._waiting.wait()

    def collect_garbage(self) -> bool:
        """Deletes one generation of objects whose owner is gone; False if there were none."""
        uids = {obj["metadata"]["uid"] for obj in self.live.values()}
        orphans = [
            ref
            for ref, obj in self.live.items()
            if any(owner["uid"] not in uids for owner in obj["metadata"].get("ownerReferences") or ())
            and "deletionTimestamp" not in obj["metadata"]
        ]
        for kind, namespace, name in orphans:
            self.delete(kind, namespace, name)
        return bool(orphans)

    def _current(self, kind: Kind, obj: Object) -> tuple[Ref, Object]:
        metadata = obj["metadata"]
        ref = (kind, metadata.get("namespace", "") if kind.is_namespaced else "", metadata["name"])
        live = self.live.get(ref)
        if live is None:
            raise NotFound(f"{ref} not found")
        if metadata.get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
            raise Conflict(f"{ref} has been modified")
        return ref, live

    def _write(self, type: str, ref: Ref, obj: Object) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        if type == "DELETED":
            del self.live[ref]
        else:
            self.live[ref] = obj
        self.writes += 1
        self.changes.append(FakeChange(type, ref[0], copy.deepcopy(obj)))
        if self._waiting is not None:
            self._waiting.set()
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.fuse = None
                raise Killed
        return copy.deepcopy(obj)


def _spec(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


READY, CRASH, HANG, MISSING, DOWNLOAD_FAILS = "ready", "crash", "hang", "missing", "download-fails"


class FixedAutoscaler:
    """Knows no load: what `desired` says of a revision, else its min-scale, else its initial scale."""

    def __init__(self) -> None:
        self.desired: dict[str, int] = {}
        self.unmeasured = ""

    def bounds(self, annotations: Mapping[str, str]) -> Bounds:
        found = scaling_of(annotations)
        initial = 1 if found.initial_scale is None else found.initial_scale
        return Bounds(found.min_scale or 0, initial)

    def scale(self, standing: Standing, now: float) -> Scale:
        found = self.bounds(standing.annotations)
        wanted = self.desired.get(standing.revision, found.minimum or found.initial)
        most = scaling_of(standing.annotations).max_scale
        pods = max(found.minimum, min(wanted, most) if most else wanted)
        return Scale(pods, "fixed", pods, is_held=standing.ready == 0, unmeasured=self.unmeasured)

    def says(self, standing: Standing, desired: int) -> Said:
        return says(standing, desired, AutoscalerConfig(allow_zero_initial_scale=True))

    def forget(self, revision: str) -> None:
        pass


class FakeNode:
    """Runs pods: what a pod does is decided by the last part of its serving image's name, or by `orders`."""

    def __init__(self, objects: FakeObjects, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._clock = clock
        self.orders: dict[str, str] = {}
        self._port = 40000

    def step(self) -> bool:
        """Brings every pod to where it belongs; False if nothing changed."""
        before = self._objects.writes
        for pod in self._objects.list(kinds.POD):
            metadata = pod["metadata"]
            if "deletionTimestamp" in metadata:
                self._objects.delete(kinds.POD, metadata["namespace"], metadata["name"], 0)
                continue
            self._run(pod, self.orders.get(metadata["name"]) or _order(pod))
        return self._objects.writes != before

    def _run(self, pod: Object, order: str) -> None:
        annotations = pod["metadata"].setdefault("annotations", {})
        if names.ENDPOINT_PORTS not in annotations:
            self._port += 2
            annotations[names.ENDPOINT_PORTS] = json.dumps({"http": self._port, "grpc": self._port + 1})
            pod = self._objects.update(kinds.POD, pod)
        pod["status"] = pod_status(pod, order, stamp(self._clock()))
        self._objects.update_status(kinds.POD, pod)


def pod_status(pod: Object, order: str, time: str) -> Object:
    """A pod's status as the supervisor writes it."""
    is_ready = order == READY
    failed = {
        "exitCode": 1,
        "reason": "Error",
        "message": "boom: no such model",
        "finishedAt": "2026-01-01T00:00:00Z",
    }
    state: Object = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    last: Object = {}
    status: Object = {"phase": "Running", "podIP": "127.0.0.1"}
    if order == CRASH:
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        last = {"terminated": failed}
    elif order == MISSING:
        status["phase"] = "Pending"
        state = {"waiting": {"reason": "ErrImagePull", "message": "no unit declares it"}}
    elif order == DOWNLOAD_FAILS:
        status["phase"] = "Pending"
        state = {"waiting": {"reason": "PodInitializing"}}
        status["initContainerStatuses"] = [
            {
                "name": names.STORAGE_INITIALIZER,
                "state": {"terminated": failed},
                "lastState": {},
                "ready": False,
            }
        ]
    elif order == "failed":
        status["phase"] = "Failed"
    condition: Object = {"type": "Ready", "status": "True" if is_ready else "False"}
    if not is_ready:
        condition["message"] = "readiness probe failed: connection refused"
    status["conditions"] = [condition]
    status["containerStatuses"] = [
        {"name": c["name"], "image": c.get("image", ""), "state": state, "lastState": last, "ready": is_ready}
        for c in pod["spec"]["containers"]
    ]
    return status


def _order(pod: Object) -> str:
    for container in pod["spec"]["containers"]:
        for order in (CRASH, HANG, MISSING, DOWNLOAD_FAILS):
            if container.get("image", "").endswith(f"-{order}"):
                return order
    return READY
