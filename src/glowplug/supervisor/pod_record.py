"""What is written down of a pod: its status, and where its serving container listens.

Everything that changes in one turn of the loop is one write. A write that fails (a full disk) is tried again; the
processes do not notice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import anyio
import anyio.lowlevel

from glowplug.errors import ApiError, Conflict, NotFound
from glowplug.spec import names
from glowplug.spec.kinds import POD, Kind
from glowplug.supervisor.localize import Endpoint
from glowplug.supervisor.status import Object, PodView, pod_status

_LOG = logging.getLogger(__name__)
_WRITE_TRIES = 3
_RETRY_S = 1.0


class Objects(Protocol):
    """The part of the in-process API that a pod needs."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object: ...
    def update(self, kind: Kind, obj: Object) -> Object: ...
    def update_status(self, kind: Kind, obj: Object) -> Object: ...
    def delete(
        self, kind: Kind, namespace: str, name: str, grace_period_seconds: int | None = None
    ) -> None: ...


class PodRecord:
    """Writes one pod's object; `touch` says that there is something to write."""

    def __init__(self, objects: Objects, namespace: str, name: str, uid: str) -> None:
        self._objects = objects
        self._namespace = namespace
        self._name = name
        self._uid = uid
        self._dirty = anyio.Event()

    def touch(self) -> None:
        """The view has changed."""
        self._dirty.set()

    async def keep(
        self,
        view: Callable[[], PodView],
        where: Callable[[], Endpoint | None],
        timeline: Callable[[], str | None],
    ) -> None:
        """Write whenever touched, until cancelled."""
        while True:
            await self._dirty.wait()
            await anyio.lowlevel.checkpoint()
            self._dirty = anyio.Event()
            try:
                self.write(view(), where(), timeline())
            except ApiError as error:
                _LOG.warning("status of pod %s/%s not written: %s", self._namespace, self._name, error)
                await anyio.sleep(_RETRY_S)
                self.touch()

    def write(self, view: PodView, where: Endpoint | None, timeline: str | None) -> None:
        """Bring the object up to date; nothing is written if it is, or if it is gone."""
        for _ in range(_WRITE_TRIES):
            try:
                self._write(view, where, timeline)
            except NotFound:
                return
            except Conflict:
                continue
            return

    async def finish(self) -> None:
        """The processes are gone: delete the object, however long the disk stays full."""
        while True:
            try:
                finish_deletion(self._objects, self._namespace, self._name, self._uid)
                return
            except ApiError as error:
                _LOG.warning("pod %s/%s not deleted: %s", self._namespace, self._name, error)
            await anyio.sleep(_RETRY_S)

    def _write(self, view: PodView, where: Endpoint | None, timeline: str | None) -> None:
        live = self._objects.get(POD, self._namespace, self._name)
        if live["metadata"]["uid"] != self._uid:
            return
        annotations = {} if timeline is None else {names.COLD_START: timeline}
        if where is not None:
            annotations[names.ENDPOINT_PORTS] = json.dumps({"http": where.http, "grpc": where.grpc})
        live = self._annotated(live, annotations)
        live["status"] = pod_status(view, live.get("status") or {}, time.time())
        self._objects.update_status(POD, live)

    def _annotated(self, live: Object, annotations: Mapping[str, str]) -> Object:
        before = live["metadata"].get("annotations") or {}
        if annotations.items() <= before.items():
            return live
        live["metadata"]["annotations"] = {**before, **annotations}
        return self._objects.update(POD, live)


def finish_deletion(objects: Objects, namespace: str, name: str, uid: str) -> None:
    """The processes are gone: now the object goes; not another one that has its name by now."""
    with contextlib.suppress(NotFound):
        if objects.get(POD, namespace, name)["metadata"]["uid"] == uid:
            objects.delete(POD, namespace, name, grace_period_seconds=0)
