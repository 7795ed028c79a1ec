"""The garbage collector: dependents follow their owners, and a namespace's contents follow it.

It reads the stream of changes and keeps one index, owner's uid → dependents. What it finds there it checks against
the live objects before it acts, so a stale entry does no harm. Deletion orders:
  background  the owner has gone: dependents that no other owner holds go too
  foreground  the owner waits, with a finalizer, until the dependents that block it are gone
  orphan      the owner waits until its dependents no longer name it
At start the stream begins with everything that exists, which repairs whatever a crash left half done.
"""

from __future__ import annotations

import logging

import anyio
from anyio.lowlevel import checkpoint

from glowplug.apiserver.changes import DELETED, Change, Ref
from glowplug.apiserver.codec import Object
from glowplug.apiserver.finalizers import FOREGROUND, ORPHAN, DeleteOptions
from glowplug.apiserver.objects import Objects
from glowplug.errors import NotFound, StoreFull
from glowplug.spec.kinds import EVENT, KINDS, NAMESPACE, by_name

log = logging.getLogger(__name__)

_WATCHED = tuple(kind for kind in KINDS if not kind.is_read_only and kind is not EVENT)
_CONTENTS = tuple(kind for kind in _WATCHED if kind.is_namespaced)
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0


class GarbageCollector:
    """Owns the deletion of what nobody needs any more; `run` ends when the hub closes."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._dependents: dict[str, dict[Ref, None]] = {}
        self._ending: set[str] = set()  # namespaces that are being emptied

    async def run(self) -> None:
        """Follow every change until cancelled or the hub closes."""
        changes = self._objects.watch(*_WATCHED)
        # At start an owner may be told before its dependents: know them all before deciding anything.
        for change in changes.pending():
            self._index(change)
        async for change in changes:
            self._index(change)
            if _is_interesting(change):
                await self._settle(change)
            # A thousand deletions must not hold up the requests in between.
            await checkpoint()

    async def _settle(self, change: Change) -> None:
        delay = _FIRST_RETRY_S
        while True:
            try:
                return await self._act(change)
            except StoreFull as error:
                log.warning("garbage collection waits: %s", error.message)
            except Exception:
                log.exception("garbage collection of %s failed", change.ref)
                return None
            await anyio.sleep(delay)
            delay = min(2 * delay, _LAST_RETRY_S)

    async def _act(self, change: Change) -> None:
        then, ref = change.object, change.ref
        if change.type == DELETED:
            return await self._after_deletion(ref, then)
        now = self._live(ref)
        if now is None or now["metadata"]["uid"] != then["metadata"]["uid"]:
            return None
        if "deletionTimestamp" in now["metadata"]:
            return await self._while_deleting(ref, now)
        if self._is_abandoned(ref, now):
            self._delete(ref, now["metadata"]["uid"])
        return None

    async def _after_deletion(self, ref: Ref, obj: Object) -> None:
        for dependent in list(self._dependents.get(obj["metadata"]["uid"], ())):
            await checkpoint()
            live = self._live(dependent)
            if live is not None and self._is_abandoned(dependent, live):
                self._delete(dependent, live["metadata"]["uid"])
        self._dependents.pop(obj["metadata"]["uid"], None)
        for owner in _owners(obj):
            self._finish_foreground(owner, ref.namespace)
        if ref.namespace in self._ending:
            self._finish_namespace(ref.namespace)

    async def _while_deleting(self, ref: Ref, obj: Object) -> None:
        held_by = obj["metadata"].get("finalizers") or []
        uid = obj["metadata"]["uid"]
        if ref.kind is NAMESPACE:
            await self._empty(ref.name)
        if ORPHAN in held_by:
            self._orphan(uid)
            self._drop_finalizer(ref, ORPHAN)
        elif FOREGROUND in held_by:
            for dependent in self._dependents_of(uid):
                own = self._objects.get(*dependent)["metadata"]["uid"]
                self._delete(dependent, own, "Foreground" if self._dependents.get(own) else "Background")
            if not self._dependents_of(uid, only_blocking=True):
                self._drop_finalizer(ref, FOREGROUND)

    def _index(self, change: Change) -> None:
        if b'"ownerReferences"' not in change.raw:
            return
        for owner in _owners(change.object):
            dependents = self._dependents.setdefault(owner["uid"], {})
            if change.type != DELETED:
                dependents[change.ref] = None
                continue
            dependents.pop(change.ref, None)
            if not dependents:
                del self._dependents[owner["uid"]]

    def _is_abandoned(self, ref: Ref, obj: Object) -> bool:
        """True if the object names owners and none of them exists."""
        owners = _owners(obj)
        return bool(owners) and not any(self._exists(owner, ref.namespace) for owner in owners)

    def _exists(self, owner: Object, namespace: str) -> bool:
        if by_name(owner["apiVersion"], owner["kind"]) is None:
            return True  # not a kind of this machine: whoever made it cares for it
        return self._live_owner(owner, namespace) is not None

    def _live_owner(self, owner: Object, namespace: str) -> tuple[Ref, Object] | None:
        kind = by_name(owner["apiVersion"], owner["kind"])
        if kind is None:
            return None
        ref = Ref(kind, namespace if kind.is_namespaced else "", owner["name"])
        obj = self._live(ref)
        return (ref, obj) if obj is not None and obj["metadata"]["uid"] == owner["uid"] else None

    def _live(self, ref: Ref) -> Object | None:
        try:
            return self._objects.get(*ref)
        except NotFound:
            return None

    def _delete(self, ref: Ref, uid: str, propagation: str = "") -> None:
        obj = self._live(ref)
        if obj is not None and obj["metadata"]["uid"] == uid and "deletionTimestamp" not in obj["metadata"]:
            self._objects.remove(ref, DeleteOptions(uid=uid, propagation=propagation))

    def _orphan(self, uid: str) -> None:
        for ref in self._dependents_of(uid):
            obj = self._objects.get(*ref)
            meta = obj["metadata"]
            meta["ownerReferences"] = [one for one in meta["ownerReferences"] if one.get("uid") != uid]
            if not meta["ownerReferences"]:
                del meta["ownerReferences"]
            self._objects.update(ref.kind, obj)
        self._dependents.pop(uid, None)

    def _finish_foreground(self, owner: Object, namespace: str) -> None:
        found = self._live_owner(owner, namespace)
        if found is None:
            return
        ref, obj = found
        is_waiting = "deletionTimestamp" in obj["metadata"] and FOREGROUND in (
            obj["metadata"].get("finalizers") or []
        )
        if is_waiting and not self._dependents_of(owner["uid"], only_blocking=True):
            self._drop_finalizer(ref, FOREGROUND)

    def _dependents_of(self, uid: str, *, only_blocking: bool = False) -> list[Ref]:
        """The live objects that name this owner now; `only_blocking`: those that it must wait for."""
        return [
            ref
            for ref in self._dependents.get(uid, ())
            for owner in _owners(self._live(ref))
            if owner["uid"] == uid and (owner.get("blockOwnerDeletion") or not only_blocking)
        ]

    def _drop_finalizer(self, ref: Ref, finalizer: str) -> None:
        obj = self._live(ref)
        if obj is None:
            return
        left = [one for one in obj["metadata"].get("finalizers") or [] if one != finalizer]
        obj["metadata"]["finalizers"] = left
        if not left:
            del obj["metadata"]["finalizers"]
        self._objects.update(ref.kind, obj)

    async def _empty(self, namespace: str) -> None:
        self._ending.add(namespace)
        for kind in _CONTENTS:
            for obj in self._objects.list(kind, namespace):
                self._delete(Ref(kind, namespace, obj["metadata"]["name"]), obj["metadata"]["uid"])
                await checkpoint()
        self._finish_namespace(namespace)

    def _finish_namespace(self, namespace: str) -> None:
        if any(self._objects.count(kind, namespace) for kind in _CONTENTS):
            return
        # Events come last: the deletions before them may have been told as events.
        events = self._objects.list(EVENT, namespace)
        self._objects.remove_all(Ref(EVENT, namespace, event["metadata"]["name"]) for event in events)
        if self._live(Ref(NAMESPACE, "", namespace)) is not None:
            self._objects.release_namespace(namespace)
        self._ending.discard(namespace)


def _is_interesting(change: Change) -> bool:
    return (
        change.type == DELETED or b'"ownerReferences"' in change.raw or b'"deletionTimestamp"' in change.raw
    )


def _owners(obj: Object | None) -> list[Object]:
    """The owner references that are well formed; a client may have written anything."""
    references = ((obj or {}).get("metadata") or {}).get("ownerReferences")
    if not isinstance(references, list):
        return []
    keys = ("apiVersion", "kind", "name", "uid")
    return [
        one for one in references if isinstance(one, dict) and all(isinstance(one.get(k), str) for k in keys)
    ]
