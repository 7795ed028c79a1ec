"""Server-side apply, and the book-keeping of field managers on every other write.

Pure: objects in, a new object out. Rules, error texts and the layout of `managedFields` are Kubernetes' own
(structured-merge-diff and the API server's field manager), so that kubectl, kopf and controllers that read them
see what a cluster would show. What a kind's lists and maps mean is in `listkeys.py`.
"""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Any

import orjson

from glowplug.apiserver import apply_managers
from glowplug.apiserver.apply_managers import APPLY, UPDATE, Entry, Manager, Managers
from glowplug.apiserver.apply_merge import merge, refuse_repeated
from glowplug.apiserver.fieldsets import FieldSet, Path, with_records
from glowplug.apiserver.fieldsets_typed import Comparison, compare, empty_lists_of, fields_of, same, without
from glowplug.apiserver.listkeys import Shape, ShapeError, shape_of
from glowplug.errors import BadRequest
from glowplug.spec.kinds import by_name

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Whose applies take over from, and keep in step, the annotation of `kubectl apply` without --server-side.
_KUBECTL = "kubectl"
# Who owns what was there before anybody's fields were tracked.
_BEFORE_FIRST_APPLY = "before-first-apply"
# Kubernetes' limit for all annotations of an object, in bytes.
_MOST_ANNOTATION_BYTES = 256 * 1024

# Nobody owns these: they name the object, or the API server writes them.
_NEVER_OWNED: FieldSet = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
            "managedFields", "resourceVersion",
        )
    }
)  # fmt: skip


def server_side_apply(
    live: Object | None,
    applied: Object,
    *,
    manager: str,
    force: bool,
    now: datetime,
    subresource: str = "",
) -> Object:
    """`live` with what `applied` says merged in, and `manager` as the owner of just that.

    Fields that `manager` applied before, does not now, and nobody else owns are removed. `live` None creates. A
    result that equals `live` means that there is nothing to write. Neither argument is changed, nor shared with
    the result. `applied` may carry a `metadata.resourceVersion` or `uid`, which end up in the result: comparing
    them with the live ones is the caller's.

    Raises Conflict, with a cause for every field, if other managers own fields that would change and `force` is
    not set; BadRequest if `applied` is of another kind, has managedFields, or a list that names an item twice.
    """
    _check_applied(live, applied)
    scope = _Scope(applied, subresource)
    before = {"apiVersion": applied["apiVersion"], "kind": applied["kind"]} if live is None else live
    managers = _managers_before_apply(before, scope, now, subresource)
    owner = apply_managers.identity(manager, APPLY, scope.api_version, subresource)
    config = _within(applied, scope)
    try:
        result, owners = _apply(before, config, managers, owner, scope, force=force, now=now)
    except ShapeError as unnamed:
        raise BadRequest(f"failed to merge {scope.kind}: {unnamed}") from unnamed
    if manager == _KUBECTL:
        result = _with_last_applied(result, applied)
    return copy.deepcopy(_with_managers(result, owners))


def track_update(
    live: Object | None, new: Object, *, manager: str, now: datetime, subresource: str = ""
) -> Object:
    """`new` with `managedFields` that say what `manager` changed by this create, update or patch.

    What it added or changed becomes its own and leaves everybody else; what it removed nobody owns any more. `live`
    None is a create. `new` may carry managedFields: an empty list or one empty entry forgets all managers, other
    valid entries replace those of `live`. The result shares everything but `metadata` with `new`.
    """
    scope = _Scope(new, subresource)
    managers = _managers_before_update(live, new, subresource)
    is_untracked = live is not None and not managers and bool(live.get("metadata", {}).get("uid"))
    if is_untracked:
        return _with_managers(new, {})
    before = {"apiVersion": new.get("apiVersion"), "kind": new.get("kind")} if live is None else live
    owner = apply_managers.identity(manager, UPDATE, scope.api_version, subresource)
    try:
        return _with_managers(new, _update(before, new, managers, owner, scope, now))
    except ShapeError:
        # An object that cannot be compared keeps its managers as they were, as in Kubernetes.
        return _with_managers(new, managers)


class _Scope:
    """What of an object a request through this subresource writes, and how its fields are owned."""

    def __init__(self, obj: Object, subresource: str) -> None:
        self.api_version = str(obj.get("apiVersion", ""))
        self.kind = str(obj.get("kind", ""))
        self.shape: Shape = shape_of(self.api_version, self.kind)
        known = by_name(self.api_version, self.kind)
        self._has_status = known is not None and known.has_status
        self._is_status = subresource == "status"

    def covers(self, name: str) -> bool:
        """Whether the top-level field `name` is written."""
        if self._is_status:
            return name == "status"
        return not (self._has_status and name == "status")

    def covers_path(self, path: Path) -> bool:
        return self.covers(path[0][2:])

    def compare(self, old: Object, new: Object) -> Comparison:
        """The differences that count; managedFields themselves never do."""
        differences = compare(_without_managers(old), _without_managers(new), self.shape)
        return differences.only(self.covers_path)


def _check_applied(live: Object | None, applied: Object) -> None:
    for name in ("apiVersion", "kind"):
        if not isinstance(applied.get(name), str) or not applied[name]:
            raise BadRequest(f"{name} must be set in an applied configuration")
        if live is not None and live.get(name, applied[name]) != applied[name]:
            found = f"{applied['apiVersion']}, Kind={applied.get('kind')}"
            raise BadRequest(
                f"invalid object type: {found}, expected {live['apiVersion']}, Kind={live['kind']}"
            )
    metadata = applied.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    if metadata and metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    try:
        refuse_repeated(applied, shape_of(applied["apiVersion"], applied["kind"]))
    except ShapeError as repeated:
        where = f"{(metadata or {}).get('namespace', '')}/{(metadata or {}).get('name', '')}"
        what = f"{where}; {applied['apiVersion']}, Kind={applied['kind']}"
        raise BadRequest(f"failed to create typed patch object ({what}): {repeated}") from repeated


def _within(applied: Object, scope: _Scope) -> Object:
    """The part of an applied configuration that its subresource writes."""
    identity = ("apiVersion", "kind")
    return {name: value for name, value in applied.items() if name in identity or scope.covers(name)}


def _managers_before_apply(live: Object, scope: _Scope, now: datetime, subresource: str) -> Managers:
    """The live managers; if there never were any, one for all of the scope that is already there."""
    managers = _read_or_none(live.get("metadata", {}).get("managedFields")) or {}
    if managers:
        return managers
    nothing = {"apiVersion": scope.api_version, "kind": scope.kind}
    owner = apply_managers.identity(_BEFORE_FIRST_APPLY, UPDATE, scope.api_version, subresource)
    return _update(nothing, live, {}, owner, scope, now)


def _managers_before_update(live: Object | None, new: Object, subresource: str) -> Managers:
    """The managers that the writer leaves standing: those it sends, else the live ones."""
    lives = (_read_or_none(live.get("metadata", {}).get("managedFields")) or {}) if live else {}
    if subresource:
        return lives
    sent = new.get("metadata", {}).get("managedFields")
    if apply_managers.is_reset(sent):
        return {}
    return _read_or_none(sent) or lives


def _read_or_none(entries: object) -> Managers | None:
    try:
        return apply_managers.read(entries)
    except ValueError:
        return None


def _update(
    live: Object, new: Object, managers: Managers, owner: Manager, scope: _Scope, now: datetime
) -> Managers:
    """The managers after a write of `new` over `live` by `owner`."""
    differences = scope.compare(live, new)
    taken = differences.written | differences.removed
    managers = apply_managers.losing(_of_version(managers, scope), dict.fromkeys(managers, taken))
    written = differences.written - _NEVER_OWNED
    if written:
        before = managers[owner].fields if owner in managers else frozenset()
        entry = Entry(before | written, scope.api_version, apply_managers.timestamp(now))
        managers = {**managers, owner: entry}
    return apply_managers.capped(managers)


def _apply(
    live: Object,
    config: Object,
    managers: Managers,
    owner: Manager,
    scope: _Scope,
    *,
    force: bool,
    now: datetime,
) -> tuple[Object, Managers]:
    managers = _of_version(managers, scope)
    before = managers.get(owner)
    applied = fields_of(config, scope.shape)
    owners = {**managers, owner: Entry(applied, scope.api_version)}
    merged = merge(live, config, scope.shape)
    if before is not None:
        merged = _pruned(merged, before.fields, apply_managers.owned_by(owners.values()), scope.shape)
    owners = _after_conflicts(live, merged, owners, owner, scope, force=force)
    owned = applied - _NEVER_OWNED
    owners.pop(owner, None)
    if owned:
        is_changed = before is None or before.fields != owned or not same(live, merged)
        time = apply_managers.timestamp(now) if is_changed else before.time if before else None
        owners[owner] = Entry(owned, scope.api_version, time)
    return merged, owners


def _pruned(merged: Object, before: FieldSet, owned: FieldSet, shape: Shape) -> Object:
    """`merged` without what the applier owned before and nobody owns now.

    Taking a map or an item out takes what is inside too. So what others own inside it comes back first, and then
    whatever nobody owned but was not the applier's to remove.
    """
    before = with_records(before, shape)
    everything = _present(merged, shape)
    kept = _present(without(merged, before, shape), shape) | with_records(owned, shape)
    left = _present(without(merged, everything - kept, shape), shape)
    pruned: Object = without(merged, (everything - left) & before, shape)
    return pruned


def _present(obj: Object, shape: Shape) -> FieldSet:
    """Every field that is there to be removed."""
    return with_records(fields_of(obj, shape).union(empty_lists_of(obj, shape)), shape)


def _after_conflicts(
    live: Object, new: Object, owners: Managers, owner: Manager, scope: _Scope, *, force: bool
) -> Managers:
    """The owners once the applier has what it set; Conflict if that is others' and it does not force."""
    differences = scope.compare(live, new)
    conflicts = {
        other: entry.fields & differences.written
        for other, entry in owners.items()
        if other != owner and not entry.fields.isdisjoint(differences.written)
    }
    if conflicts and not force:
        if owner.name == _KUBECTL:
            conflicts = _beyond_last_applied(conflicts, live, scope)
        if conflicts:
            raise apply_managers.conflict_error(conflicts)
    taken = differences.written | differences.removed
    return apply_managers.losing(owners, {other: taken for other in owners if other != owner})


def _of_version(managers: Managers, scope: _Scope) -> Managers:
    """The managers whose fields are of the version that is served; there is only one, older ones are dropped."""
    return {owner: entry for owner, entry in managers.items() if entry.api_version == scope.api_version}


def _beyond_last_applied(
    conflicts: dict[Manager, FieldSet], live: Object, scope: _Scope
) -> dict[Manager, FieldSet]:
    """The conflicts that are not about what kubectl itself applied before it did so on the server's side."""
    annotation = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        last = orjson.loads(annotation or "")
        if last.get("apiVersion") != scope.api_version:
            return conflicts
        refuse_repeated(last, scope.shape)
        differences = compare(last, live, scope.shape)
        unchanged = fields_of(last, scope.shape) - differences.written - differences.removed
    except (ValueError, AttributeError):
        return conflicts
    left = {owner: fields - unchanged for owner, fields in conflicts.items()}
    return {owner: fields for owner, fields in left.items() if fields}


def _with_last_applied(obj: Object, applied: Object) -> Object:
    """Keeps the annotation of client-side apply in step, where there is one, so that users can go back to it."""
    annotations = obj.get("metadata", {}).get("annotations") or {}
    if not annotations.get(LAST_APPLIED):
        return obj
    recorded = copy.copy(applied)
    if isinstance((applied.get("metadata") or {}).get("annotations"), dict):
        mine = {
            key: value for key, value in applied["metadata"]["annotations"].items() if key != LAST_APPLIED
        }
        recorded["metadata"] = {**applied["metadata"], "annotations": mine}
    synced = {
        **annotations,
        LAST_APPLIED: orjson.dumps(recorded, option=orjson.OPT_SORT_KEYS).decode() + "\n",
    }
    if sum(len(key) + len(str(value)) for key, value in synced.items()) > _MOST_ANNOTATION_BYTES:
        del synced[LAST_APPLIED]
    return {**obj, "metadata": {**obj["metadata"], "annotations": synced}}


def _without_managers(obj: Object) -> Object:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _with_managers(obj: Object, managers: Managers) -> Object:
    bare = _without_managers(obj)
    if not managers:
        return bare
    metadata = {**(bare.get("metadata") or {}), "managedFields": apply_managers.write(managers)}
    return {**bare, "metadata": metadata}
