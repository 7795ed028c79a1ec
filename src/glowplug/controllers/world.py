"""What a reconciler may do: read and write objects, record events, ask for a later call, keep the route book.

Every write goes through here, so that the index and the queue know of it at once and the echo of it in the watch
costs nothing. An object that is gone reads as None: to a control loop that is a state, not an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from glowplug.errors import NotFound
from glowplug.spec.kinds import Kind

from .config import ControllersConfig
from .eventing.engine import Engine
from .eventing.schedule import Schedules
from .keys import RECONCILED, Index, Key, Relation
from .knative.scaling import Autoscaler
from .metadata import Object, is_controlled_by, name_of, namespace_of
from .queue import WorkQueue
from .table import RouteBook


class Change(Protocol):
    """One step of a watch; `type` is ADDED, MODIFIED or DELETED."""

    @property
    def type(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def object(self) -> Object: ...


class Objects(Protocol):
    """The in-process Kubernetes API, as far as the controllers use it."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object: ...
    def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> list[Object]: ...
    def create(self, kind: Kind, obj: Object) -> Object: ...
    def update(self, kind: Kind, obj: Object) -> Object: ...
    def update_status(self, kind: Kind, obj: Object) -> Object: ...
    def delete(
        self, kind: Kind, namespace: str, name: str, grace_period_seconds: int | None = None
    ) -> None: ...
    def watch(self, *kinds: Kind) -> AsyncIterator[Change]: ...


class EventRecorder(Protocol):
    """Records a Kubernetes Event; `type` is Normal or Warning."""

    def __call__(self, regarding: Object, type: str, reason: str, message: str) -> None: ...


class World:
    """The store, seen through the index."""

    def __init__(
        self,
        objects: Objects,
        record: EventRecorder,
        config: ControllersConfig,
        token: Callable[[], str],
        autoscaler: Autoscaler,
        is_waited_for: Callable[[str], bool],
        engine: Engine | None = None,
    ) -> None:
        self.autoscaler = autoscaler
        # None: events go nowhere, and the eventing kinds stay as they are.
        self.engine = engine
        self.schedules = Schedules()
        self.is_waited_for = is_waited_for
        self.record = record
        self.config = config
        self.token = token
        self.index = Index()
        self.queue = WorkQueue(config.retry_base_s, config.retry_max_s)
        self.book = RouteBook(config)
        # Deadlines do not run while the machine is down.
        self.started_at = 0.0
        self._objects = objects

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            return self._objects.get(kind, namespace, name)
        except NotFound:
            return None

    def related(self, kind: Kind, by: str, namespace: str, value: str) -> list[Object]:
        """The objects of `kind` that are related to `value`, by name; what has just gone is left out."""
        found = (
            self.get(kind, namespace, name)
            for name in self.index.members(Relation(kind, by, namespace, value))
        )
        return [obj for obj in found if obj is not None]

    def owned(self, kind: Kind, by: str, owner: Object) -> list[Object]:
        """Those of `related` that `owner` controls."""
        found = self.related(kind, by, namespace_of(owner), name_of(owner))
        return [obj for obj in found if is_controlled_by(obj, owner)]

    def list(self, kind: Kind, namespace: str = "") -> list[Object]:
        return self._objects.list(kind, namespace)

    def create(self, kind: Kind, obj: Object) -> Object:
        """Raises AlreadyExists, Invalid."""
        created = self._objects.create(kind, obj)
        self._take_note(kind, created)
        return created

    def update(self, kind: Kind, obj: Object) -> Object:
        """Raises Conflict, NotFound, Invalid."""
        updated = self._objects.update(kind, obj)
        self._take_note(kind, updated)
        return updated

    def update_status(self, kind: Kind, obj: Object, status: Object) -> Object:
        """Writes `status` if it differs from that of `obj`. Raises Conflict, NotFound."""
        if obj.get("status") == status:
            return obj
        updated = self._objects.update_status(kind, {**obj, "status": status})
        # Whoever writes a status has just looked at its object: only the others are concerned.
        if self.index.put(kind, updated):
            self._wake_concerned(kind, updated)
        return updated

    def delete(self, kind: Kind, obj: Object) -> None:
        """Deletes, unless it is gone already."""
        try:
            self._objects.delete(kind, namespace_of(obj), name_of(obj))
        except NotFound:
            return

    def observe(self, change: Change) -> None:
        """Takes a step of the watch in, and wakes what it concerns."""
        if change.type == "DELETED":
            self.index.drop(Key(change.kind, namespace_of(change.object), name_of(change.object)))
            self._wake(change.kind, change.object)
        else:
            self._take_note(change.kind, change.object)

    def _take_note(self, kind: Kind, obj: Object) -> None:
        # The echo of a write in the watch is a version that is known.
        if self.index.put(kind, obj):
            self._wake(kind, obj)

    def _wake(self, kind: Kind, obj: Object) -> None:
        if kind in RECONCILED:
            self.queue.add(Key(kind, namespace_of(obj), name_of(obj)))
        self._wake_concerned(kind, obj)

    def _wake_concerned(self, kind: Kind, obj: Object) -> None:
        for key in self.index.concerned(kind, obj):
            self.queue.add(key)
