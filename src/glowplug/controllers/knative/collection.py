"""Which old revisions of a Configuration are deleted.

The rule is that of knative.dev/serving pkg/reconciler/gc with one bound for the smallest and the largest number of
revisions that are kept: on one computer a history has no use for age.
"""

from __future__ import annotations

from ..metadata import Object, annotations_of, at, is_deleting, name_of
from .labels import PRESERVED, RESERVE, ROUTING_STATE_MODIFIED, routing_state


def surplus_revisions(revisions: list[Object], configuration: Object, kept: int) -> list[Object]:
    """The revisions without traffic past the `kept` that lost it last, the longest idle first.

    Never among them: the latest created and the latest ready one, what a route leads to or has not looked at yet, and
    what is annotated `serving.knative.dev/no-gc: "true"`.
    """
    status = at(configuration, "status") or {}
    latest = (status.get("latestReadyRevisionName"), status.get("latestCreatedRevisionName"))
    idle = [
        revision
        for revision in revisions
        if name_of(revision) not in latest
        and routing_state(revision) == RESERVE
        and annotations_of(revision).get(PRESERVED, "").lower() != "true"
        and not is_deleting(revision)
    ]
    idle.sort(key=lambda revision: (_last_active(revision), name_of(revision)))
    return idle[: max(0, len(idle) - kept)]


def _last_active(revision: Object) -> str:
    modified = annotations_of(revision).get(ROUTING_STATE_MODIFIED)
    return modified or str(at(revision, "metadata", "creationTimestamp") or "")
