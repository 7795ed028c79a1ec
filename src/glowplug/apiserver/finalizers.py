"""Deleting: what a delete request does to an object, decided purely.

An object goes at once unless something holds it: its finalizers, a pod's grace period, a namespace's contents, or
the garbage collector's own finalizers (`foregroundDeletion`: the dependents first; `orphan`: cut them loose first).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from glowplug.apiserver.changes import Ref
from glowplug.apiserver.codec import Object, copy
from glowplug.apiserver.metadata import has_generation
from glowplug.errors import BadRequest, Conflict
from glowplug.spec.kinds import NAMESPACE, POD, Kind

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_FINALIZER_OF = {"": None, "Background": None, "Foreground": FOREGROUND, "Orphan": ORPHAN}
_DEFAULT_GRACE_S = 30


@dataclass(frozen=True)
class DeleteOptions:
    """A delete request: `uid` and `revision` are preconditions, None where the client set none."""

    grace_period_s: int | None = None
    propagation: str = ""
    uid: str | None = None
    revision: str | None = None
    is_dry_run: bool = False

    def __post_init__(self) -> None:
        if self.propagation not in _FINALIZER_OF:
            raise BadRequest(
                f"propagationPolicy is {self.propagation!r}, must be Background, Foreground or Orphan"
            )


@dataclass(frozen=True)
class Remove:
    """The object goes now; `object` is its last state."""

    object: Object


@dataclass(frozen=True)
class Mark:
    """The object stays as `object` until what holds it lets go."""

    object: Object


@dataclass(frozen=True)
class Pending:
    """It is being deleted already and this request changes nothing."""

    object: Object


def decide(kind: Kind, live: Object, options: DeleteOptions, now: datetime) -> Remove | Mark | Pending:
    """What deleting `live` does. Raises Conflict if a precondition does not hold."""
    _check_preconditions(kind, live, options)
    marked = copy(live)
    meta = marked["metadata"]
    _set_propagation(meta, options.propagation)
    _set_deletion(kind, live, meta, options, now)
    if kind is NAMESPACE:
        marked["status"] = {**(marked.get("status") or {}), "phase": "Terminating"}
    if is_finished(marked):
        return Remove(live)
    return Pending(live) if marked == live else Mark(marked)


def is_finished(obj: Object) -> bool:
    """True for an object that is being deleted and that nothing holds any more."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return not (obj["kind"] == NAMESPACE.name and (obj.get("spec") or {}).get("finalizers"))


def timestamp(moment: datetime) -> str:
    """Kubernetes' form of a time: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_preconditions(kind: Kind, live: Object, options: DeleteOptions) -> None:
    meta = live["metadata"]
    wanted = (
        ("UID", options.uid, meta["uid"]),
        ("ResourceVersion", options.revision, meta["resourceVersion"]),
    )
    for what, expected, actual in wanted:
        if expected is not None and expected != actual:
            ref = Ref(kind, meta.get("namespace", ""), meta["name"])
            raise Conflict(
                f"Operation cannot be fulfilled on {ref}: Precondition failed: "
                f"{what} in precondition: {expected}, {what} in object meta: {actual}"
            )


def _set_propagation(meta: Object, propagation: str) -> None:
    if not propagation:
        return
    kept = [one for one in meta.get("finalizers") or [] if one not in (FOREGROUND, ORPHAN)]
    added = _FINALIZER_OF[propagation]
    finalizers = [*kept, added] if added else kept
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)


def _set_deletion(kind: Kind, live: Object, meta: Object, options: DeleteOptions, now: datetime) -> None:
    grace = _grace_s(live, options) if kind is POD else 0
    is_first = "deletionTimestamp" not in meta
    # A later request may shorten a pod's grace, never lengthen it.
    if not is_first and grace >= meta.get("deletionGracePeriodSeconds", 0):
        return
    meta["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
    meta["deletionGracePeriodSeconds"] = grace
    if is_first and has_generation(kind):
        meta["generation"] = meta.get("generation", 0) + 1


def _grace_s(pod: Object, options: DeleteOptions) -> int:
    if options.grace_period_s is not None:
        return options.grace_period_s if options.grace_period_s >= 0 else 1
    own = (pod.get("spec") or {}).get("terminationGracePeriodSeconds")
    return own if isinstance(own, int) and own >= 0 else _DEFAULT_GRACE_S
