"""Reading the metadata of Kubernetes objects, which are plain dicts here.

Every accessor takes an object in its JSON shape and copes with absent fields, as half-made objects of an earlier run
may lack them. Nothing here writes.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from typing import Any, TypeVar

from glowplug.spec.kinds import Kind
from glowplug.spec.times import parse_time

Object = dict[str, Any]
_T = TypeVar("_T")

# The longest name that is also a valid label value and DNS label.
LONGEST_NAME = 63
_DIGEST_LENGTH = 32


def at(obj: Object | None, *path: str) -> Any:
    """The value at `path`, or None where a step of it is absent or not a mapping."""
    value: Any = obj
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def copied(value: _T) -> _T:
    """A deep copy of JSON, several times as fast as `copy.deepcopy`, which looks for cycles."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [copied(item) for item in value]  # type: ignore[return-value]
    return value


def name_of(obj: Object) -> str:
    return str(at(obj, "metadata", "name") or "")


def namespace_of(obj: Object) -> str:
    return str(at(obj, "metadata", "namespace") or "")


def uid_of(obj: Object) -> str:
    return str(at(obj, "metadata", "uid") or "")


def generation_of(obj: Object) -> int:
    return int(at(obj, "metadata", "generation") or 0)


def observed_generation_of(obj: Object) -> int:
    return int(at(obj, "status", "observedGeneration") or 0)


def version_of(obj: Object) -> int:
    """The resourceVersion, which a store of one writer counts up."""
    return int(at(obj, "metadata", "resourceVersion") or 0)


def labels_of(obj: Object) -> dict[str, str]:
    return dict(at(obj, "metadata", "labels") or {})


def annotations_of(obj: Object) -> dict[str, str]:
    return dict(at(obj, "metadata", "annotations") or {})


def is_deleting(obj: Object) -> bool:
    return bool(at(obj, "metadata", "deletionTimestamp"))


def reference_to(kind: Kind, owner: Object) -> Object:
    """The ownerReference that makes `owner` the controller of the object that carries it."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Object) -> Object | None:
    """The ownerReference with `controller: true`, or None."""
    for reference in at(obj, "metadata", "ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def is_controlled_by(obj: Object, owner: Object) -> bool:
    """Whether `owner` made `obj`: by uid, since a name may have been reused."""
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == uid_of(owner)


def owner_name(obj: Object, kind: Kind) -> str | None:
    """The name of the controller of `obj` if that is of this kind."""
    reference = controller_of(obj)
    if reference is None or reference.get("kind") != kind.name:
        return None
    if str(reference.get("apiVersion", "")).split("/")[0] != kind.group:
        return None
    return str(reference["name"])


def timestamp(now: float) -> str:
    """Seconds since the epoch as Kubernetes writes a time: whole seconds, UTC."""
    return datetime.fromtimestamp(int(now), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str | None) -> float | None:
    """The inverse of `timestamp`; also takes fractions; None for what is not a time."""
    moment = parse_time(text)
    return None if moment is None else moment.timestamp()


def child_name(parent: str, suffix: str) -> str:
    """`parent + suffix`, with a digest in the middle where that is longer than a name may be.

    The rule is that of knative.dev/pkg/kmeta.ChildName, so that the names are those of a cluster.
    """
    if len(parent) + len(suffix) <= LONGEST_NAME:
        return parent + suffix
    head = LONGEST_NAME - _DIGEST_LENGTH
    if len(suffix) < head:
        return parent[: head - len(suffix)] + _digest(parent) + suffix
    return (parent[:head] + _digest(parent + suffix))[:LONGEST_NAME].rstrip("-.")


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
