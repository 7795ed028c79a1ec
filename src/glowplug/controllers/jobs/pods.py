"""A Job's pods: what they look like, and how each stands. Pure."""

from __future__ import annotations

from glowplug.spec import kinds
from glowplug.spec.jobs import TRACKING_FINALIZER

from ..metadata import (
    Object,
    at,
    child_name,
    copied,
    is_deleting,
    name_of,
    namespace_of,
    reference_to,
    seconds,
)


def make_pod(job: Object, token: str) -> Object:
    """A pod of `job`; `token` is five random letters or digits."""
    template = copied(at(job, "spec", "template") or {})
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": kinds.POD.api_version,
        "kind": kinds.POD.name,
        "metadata": {
            "name": child_name(name_of(job), f"-{token}"),
            "namespace": namespace_of(job),
            "labels": metadata.get("labels") or {},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [reference_to(kinds.JOB, job)],
            "finalizers": [TRACKING_FINALIZER],
        },
        "spec": template.get("spec") or {},
    }


def is_tracked(pod: Object) -> bool:
    """Whether the Job has yet to count it."""
    return TRACKING_FINALIZER in (at(pod, "metadata", "finalizers") or ())


def untracked(pod: Object) -> Object:
    """The pod without what keeps it for the Job."""
    pod = copied(pod)
    pod["metadata"]["finalizers"] = [
        each for each in pod["metadata"].get("finalizers") or () if each != TRACKING_FINALIZER
    ]
    return pod


def has_succeeded(pod: Object) -> bool:
    return bool(at(pod, "status", "phase") == "Succeeded")


def has_failed(pod: Object) -> bool:
    """Failed, or taken away before it was done."""
    return at(pod, "status", "phase") == "Failed" or (is_deleting(pod) and not has_succeeded(pod))


def is_active(pod: Object) -> bool:
    return not has_succeeded(pod) and not has_failed(pod)


def is_terminating(pod: Object) -> bool:
    """On its way out, with processes that may run still."""
    return is_deleting(pod) and at(pod, "status", "phase") not in ("Succeeded", "Failed")


def is_ready(pod: Object) -> bool:
    return any(
        each.get("type") == "Ready" and each.get("status") == "True"
        for each in at(pod, "status", "conditions") or ()
    )


def restarts(pod: Object) -> int:
    """How often its containers have been started again, all together."""
    return sum(each.get("restartCount") or 0 for each in at(pod, "status", "containerStatuses") or ())


def ended_at(pod: Object, now: float) -> float:
    """When its last container ended, in seconds since the epoch; `now` where nobody knows."""
    ends = [
        seconds(at(each, "state", "terminated", "finishedAt"))
        for each in at(pod, "status", "containerStatuses") or ()
    ]
    return max((end for end in ends if end is not None), default=now)
