"""The API for code in this process: the rules of Kubernetes over the store, told to the hub.

Synchronous, and on the event loop's thread: a call is one atomic step, durable when it returns. Every call gives
fresh dicts. HTTP comes through here as well, after admission and patching; this module trusts the shape of what it
is given and knows nothing of schemas.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone

from glowplug.apiserver import finalizers, metadata
from glowplug.apiserver.changes import ADDED, Change, Ref, Write
from glowplug.apiserver.codec import Object, decode, encode
from glowplug.apiserver.finalizers import DeleteOptions, Mark, Remove, timestamp
from glowplug.apiserver.paging import Listing, Page, list_page
from glowplug.apiserver.selectors import EVERYTHING, equal
from glowplug.apiserver.store import Store
from glowplug.apiserver.watch import Hub, Subscription
from glowplug.errors import AlreadyExists, Forbidden, MethodNotAllowed, NotFound, Problem
from glowplug.spec.kinds import NAMESPACE, Kind

DEFAULT_NAMESPACE = "default"
# Kubernetes' alphabet for generated names: no vowels and no look-alikes.
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


class Objects:
    """Get, list, create, update, delete and watch objects; see the module's docstring."""

    def __init__(
        self, store: Store, hub: Hub, *, clock: Callable[[], datetime] = utc_now, is_flushed: bool = True
    ) -> None:
        """`is_flushed`: each write waits for the disk; see `Store.apply`."""
        self._is_flushed = is_flushed
        self._store = store
        self._hub = hub
        self._clock = clock

    def ensure_default_namespace(self) -> None:
        """Create the namespace `default` unless it exists."""
        if self._store.get(Ref(NAMESPACE, "", DEFAULT_NAMESPACE)) is None:
            self.create(NAMESPACE, {"metadata": {"name": DEFAULT_NAMESPACE}})

    def now(self) -> datetime:
        return self._clock()

    @property
    def revision(self) -> int:
        return self._store.revision

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object; `namespace` is "" for cluster-scoped kinds. Raises NotFound."""
        return decode(self.raw(Ref(kind, namespace, name)))

    def raw(self, ref: Ref) -> bytes:
        """One object's bytes. Raises NotFound."""
        raw = self._store.get(ref)
        if raw is None:
            raise NotFound(f"{ref} not found")
        return raw

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        """All objects of a kind in one namespace ("": in all) that have these label values."""
        page = Page(equal(labels) if labels else EVERYTHING)
        return [decode(raw) for raw in self.page(kind, namespace, page).items]

    def count(self, kind: Kind, namespace: str = "") -> int:
        """How many objects of a kind there are in one namespace ("": in all)."""
        return self._store.count(kind, namespace)

    def page(self, kind: Kind, namespace: str, page: Page) -> Listing:
        """One page of a list. Raises BadRequest and Gone for tokens and revisions, see `paging`."""
        return list_page(self._store, self._hub, kind, namespace, page)

    def create(self, kind: Kind, obj: Object, *, is_dry_run: bool = False, uid: str = "") -> Object:
        """Store a new object. Raises AlreadyExists, NotFound (its namespace), Forbidden (that is ending), Invalid.

        `uid` is one that a dry run gave out before, so that who reviewed that object reviewed this one.
        """
        ref = self.new_ref(kind, obj.get("metadata") or {})
        self.check_new(ref)
        uid, now = uid or str(uuid.uuid4()), timestamp(self._clock())
        new = metadata.new_object(kind, obj, name=ref.name, uid=uid, now=now)
        return new if is_dry_run else self._write(ref, new)

    def check_new(self, ref: Ref) -> None:
        """Raises what `create` would for the place alone: AlreadyExists, NotFound, Forbidden."""
        self._check_namespace(ref)
        if self._store.get(ref) is not None:
            raise AlreadyExists(f"{ref} already exists")

    def update(self, kind: Kind, obj: Object, *, is_dry_run: bool = False) -> Object:
        """Store a new version of all but the status; nothing is written if nothing changes.

        Raises NotFound, Conflict if `obj` carries a resourceVersion or uid that is not the live one. Removing the
        last finalizer of an object that is being deleted removes the object.
        """
        ref = _ref_of(kind, obj)
        live = decode(self.raw(ref))
        new = metadata.next_object(kind, live, obj)
        return self._write_next(ref, live, new, is_dry_run)

    def update_status(self, kind: Kind, obj: Object, *, is_dry_run: bool = False) -> Object:
        """Store `obj`'s status and nothing else of it. Raises like `update`."""
        if not kind.has_status:
            raise MethodNotAllowed(f"{kind.resource} have no status subresource")
        ref = _ref_of(kind, obj)
        live = decode(self.raw(ref))
        return self._write_next(ref, live, metadata.next_status(kind, live, obj), is_dry_run)

    def delete(self, kind: Kind, namespace: str, name: str, grace_period_seconds: int | None = None) -> None:
        """Delete an object, or begin to if something holds it. Raises NotFound."""
        self.remove(Ref(kind, namespace, name), DeleteOptions(grace_period_s=grace_period_seconds))

    def remove(self, ref: Ref, options: DeleteOptions) -> tuple[Object, bool]:
        """Delete with options: the object's last state, and whether it is gone. Raises NotFound, Conflict."""
        live = self.get(*ref)
        if ref == Ref(NAMESPACE, "", DEFAULT_NAMESPACE):
            raise Forbidden(f"{ref} is forbidden: this namespace may not be deleted")
        decision = finalizers.decide(ref.kind, live, options, self._clock())
        is_gone = isinstance(decision, Remove)
        if options.is_dry_run or not isinstance(decision, (Remove, Mark)):
            return decision.object, is_gone
        return self._write(ref, decision.object, is_removal=is_gone), is_gone

    def release_namespace(self, name: str) -> None:
        """The namespace is empty: let go of it, which removes it unless it has finalizers of its own."""
        ref = Ref(NAMESPACE, "", name)
        namespace = self.get(*ref)
        namespace["spec"] = {**(namespace.get("spec") or {}), "finalizers": []}
        self._write(ref, namespace, is_removal=finalizers.is_finished(namespace))

    def remove_all(self, refs: Iterable[Ref]) -> None:
        """Drop objects that nothing can hold (old events), in one transaction; absent ones are skipped."""
        present = [(ref, raw) for ref in refs if (raw := self._store.get(ref)) is not None]
        first = self._store.revision + 1
        writes = [Write(ref, first + i, raw, is_removal=True) for i, (ref, raw) in enumerate(present)]
        if writes:
            self._hub.publish(self._store.apply(writes, is_flushed=self._is_flushed))

    def watch(self, *kinds: Kind) -> Subscription:
        """Every object of these kinds as ADDED, then every change, in order and never lost."""
        existing = [
            Change(ADDED, ref, self._store.revision, raw, None)
            for kind in kinds
            for ref, raw in self._store.scan(kind)
        ]
        return self._hub.subscribe(kinds, existing)

    def new_ref(self, kind: Kind, meta: Object) -> Ref:
        """Where an object with this metadata would go; a name is made up for a `generateName`. Raises Invalid."""
        name = meta.get("name") or ""
        prefix = meta.get("generateName") or ""
        namespace = (meta.get("namespace") or "") if kind.is_namespaced else ""
        if name or not prefix:
            metadata.check_name(kind, name)
            return Ref(kind, namespace, name)
        # As Kubernetes: what is too long for a suffix is cut.
        prefix = prefix[: 63 - _SUFFIX_LENGTH]
        metadata.check_name(kind, prefix + "x")
        while True:
            suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))
            ref = Ref(kind, namespace, prefix + suffix)
            if self._store.get(ref) is None:
                return ref

    def _check_namespace(self, ref: Ref) -> None:
        if not ref.kind.is_namespaced:
            return
        if not ref.namespace:
            problem = Problem(
                "metadata.namespace", "Required value: the kind is namespaced", "FieldValueRequired"
            )
            raise metadata.invalid(ref.kind, ref.name, problem)
        namespace = self.get(NAMESPACE, "", ref.namespace)
        if "deletionTimestamp" in namespace["metadata"]:
            text = f"namespace {ref.namespace} is being terminated"
            raise Forbidden(
                f"{ref} is forbidden: unable to create new content in namespace {ref.namespace} "
                "because it is being terminated",
                causes=(Problem("metadata.namespace", text, "NamespaceTerminating"),),
            )

    def _write_next(self, ref: Ref, live: Object, new: Object | None, is_dry_run: bool) -> Object:
        if new is None:
            return live
        if is_dry_run:
            return new
        return self._write(ref, new, is_removal=finalizers.is_finished(new))

    def _write(self, ref: Ref, obj: Object, *, is_removal: bool = False) -> Object:
        revision = self._store.revision + 1
        obj["metadata"]["resourceVersion"] = str(revision)
        write = Write(ref, revision, encode(obj), is_removal)
        self._hub.publish(self._store.apply([write], is_flushed=self._is_flushed))
        return obj


def _ref_of(kind: Kind, obj: Object) -> Ref:
    meta = obj["metadata"]
    return Ref(kind, meta.get("namespace", "") if kind.is_namespaced else "", meta.get("name", ""))
