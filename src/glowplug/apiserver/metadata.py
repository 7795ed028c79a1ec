"""The rules of `metadata`: what the server fills in, what nobody may change, when the generation rises.

Pure: time, uid and names come in as parameters. Kubernetes' own rules, see
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

import re
from typing import Any

from glowplug.apiserver.changes import Ref
from glowplug.apiserver.codec import Object, copy
from glowplug.errors import BadRequest, Conflict, Invalid, Problem
from glowplug.spec import jobs
from glowplug.spec.kinds import (
    JOB,
    MUTATING_WEBHOOK_CONFIGURATION,
    NAMESPACE,
    POD,
    VALIDATING_WEBHOOK_CONFIGURATION,
    Kind,
)

MODIFIED_MESSAGE = (
    "the object has been modified; please apply your changes to the latest version and try again"
)
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DNS_LABEL = re.compile(_LABEL)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
# What the API server itself follows.
_COUNTED = (MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION)
# The server's own: a client's values for them are replaced.
_OWNED = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")


def has_generation(kind: Kind) -> bool:
    """Kinds with a spec that a controller follows count its versions; bags of data do not."""
    return (kind.has_status and kind is not NAMESPACE) or kind in _COUNTED


def new_object(kind: Kind, obj: Object, *, name: str, uid: str, now: str) -> Object:
    """A copy of `obj` as it is stored first: own metadata, and the status that a kind begins with."""
    new = copy(obj)
    new["apiVersion"], new["kind"] = kind.api_version, kind.name
    meta = new.setdefault("metadata", {})
    for key in (*_OWNED, "resourceVersion", "selfLink"):
        meta.pop(key, None)
    meta.update(name=name, uid=uid, creationTimestamp=now)
    if has_generation(kind):
        meta["generation"] = 1
    if not kind.is_namespaced:
        meta.pop("namespace", None)
    if kind.has_status:
        new.pop("status", None)
    if kind is POD:
        new["status"] = {"phase": "Pending"}
    if kind is JOB:
        new = jobs.with_selector(new)
        meta = new["metadata"]
    if kind is NAMESPACE:
        meta["labels"] = {"kubernetes.io/metadata.name": name, **(meta.get("labels") or {})}
        new["spec"] = {"finalizers": ["kubernetes"]}
        new["status"] = {"phase": "Active"}
    return new


def next_object(kind: Kind, live: Object, new: Object) -> Object | None:
    """What an update of `live` to `new` stores, or None if nothing changes.

    Raises Conflict if `new` is of an older resourceVersion or of another uid, Invalid for a finalizer that comes
    too late.
    """
    _check_same(kind, live, new)
    result = copy(new)
    result["apiVersion"], result["kind"] = kind.api_version, kind.name
    _keep_owned(live["metadata"], result["metadata"])
    if kind.has_status:
        _keep(live, result, "status")
    if kind is NAMESPACE:
        _keep(live, result, "spec")
    if _comparable(live) == _comparable(result):
        return None
    _check_finalizers(kind, live["metadata"], result["metadata"])
    if has_generation(kind) and _desired(live) != _desired(result):
        result["metadata"]["generation"] = live["metadata"].get("generation", 0) + 1
    return result


def next_status(kind: Kind, live: Object, new: Object) -> Object | None:
    """What a write of `new`'s status stores, or None if nothing changes. Raises Conflict like `next_object`."""
    _check_same(kind, live, new)
    result = copy(live)
    _keep(copy(new), result, "status")
    if "managedFields" in new["metadata"]:
        result["metadata"]["managedFields"] = new["metadata"]["managedFields"]
    return None if _comparable(live) == _comparable(result) else result


def check_name(kind: Kind, name: str) -> None:
    """Raises Invalid unless `name` may name an object of the kind."""
    pattern, rule, longest = (
        (_DNS_LABEL, _LABEL_RULE, 63) if kind is NAMESPACE else (_SUBDOMAIN, _SUBDOMAIN_RULE, 253)
    )
    if not name:
        raise invalid(
            kind, name, Problem("metadata.name", "name or generateName is required", "FieldValueRequired")
        )
    if len(name) > longest:
        rule = f"must be no more than {longest} characters"
    elif pattern.fullmatch(name):
        return
    raise invalid(kind, name, Problem("metadata.name", f'Invalid value: "{name[:300]}": {rule}'))


def invalid(kind: Kind, name: str, problem: Problem) -> Invalid:
    """Kubernetes' message for one thing that is wrong with an object."""
    group = f".{kind.group}" if kind.group else ""
    text = f'{kind.name}{group} "{name[:300]}" is invalid: {problem.field}: {problem.message}'
    return Invalid(text, causes=(problem,))


def modified(ref: Ref) -> Conflict:
    """The error of an optimistic lock that did not hold."""
    return Conflict(f"Operation cannot be fulfilled on {ref}: {MODIFIED_MESSAGE}")


def _check_same(kind: Kind, live: Object, new: Object) -> None:
    old, meta = live["metadata"], new["metadata"]
    ref = Ref(kind, old.get("namespace", ""), old["name"])
    if meta.get("uid") not in (None, "", old["uid"]):
        raise Conflict(
            f"Operation cannot be fulfilled on {ref}: Precondition failed: "
            f"UID in precondition: {meta['uid']}, UID in object meta: {old['uid']}"
        )
    if meta.get("resourceVersion") not in (None, "", old["resourceVersion"]):
        raise modified(ref)
    for key in ("name", "namespace"):
        if meta.get(key) not in (None, "", old.get(key)):
            raise BadRequest(f"metadata.{key} is {meta[key]!r}, but the object's is {old.get(key, '')!r}")


def _keep_owned(old: Object, meta: Object) -> None:
    for key in (*_OWNED, "name", "namespace", "resourceVersion"):
        _keep(old, meta, key)
    meta.pop("selfLink", None)
    meta.setdefault("managedFields", old.get("managedFields"))
    if not meta["managedFields"]:
        del meta["managedFields"]


def _keep(source: Object, target: Object, key: str) -> None:
    if key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)


def _comparable(obj: Object) -> Object:
    # A manager's time is stamped at every write: alone it is no change.
    meta = obj["metadata"]
    if not meta.get("managedFields"):
        return obj
    fields = [{**entry, "time": None} for entry in meta["managedFields"]]
    return {**obj, "metadata": {**meta, "managedFields": fields}}


def _desired(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _check_finalizers(kind: Kind, old: Object, meta: Object) -> None:
    if "deletionTimestamp" not in old:
        return
    late: list[Any] = [
        one for one in meta.get("finalizers") or [] if one not in (old.get("finalizers") or [])
    ]
    if late:
        text = f"Forbidden: no new finalizers can be added if the object is being deleted, found new {late}"
        raise invalid(kind, old["name"], Problem("metadata.finalizers", text, "FieldValueForbidden"))
