"""What a Revision says about itself, from its pods and its PodAutoscaler. Pure.

"Never became ready" (the first pods did not all get ready within the progress deadline) ends in
ProgressDeadlineExceeded and stays there. "Died after being ready" is ContainerHealthy=False while no pod is ready;
the pods are started again all the while.
"""

from __future__ import annotations

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, at, generation_of
from . import scaling
from .pods import Trouble
from .scaling import Phase

RESOURCES = "ResourcesAvailable"
HEALTHY = "ContainerHealthy"
DEPENDENTS = (RESOURCES, HEALTHY)
DEPLOYING = "Deploying"
DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"


def revision_status(
    revision: Object,
    autoscaler_status: Object,
    phase: Phase,
    ready: int,
    trouble: Trouble,
    now: float,
) -> Object:
    """The whole status; `phase` already counts the pods that are ready now."""
    before = conditions.find(revision, HEALTHY)
    wanted = [
        resources_available(phase, trouble, conditions.find(revision, RESOURCES)),
        container_healthy(phase, autoscaler_status["desiredScale"], ready, trouble, before),
        _active(autoscaler_status),
    ]
    status: Object = dict(revision.get("status") or {})
    status["observedGeneration"] = generation_of(revision)
    status["conditions"] = conditions.settle(status.get("conditions"), wanted, DEPENDENTS, now)
    status["containerStatuses"] = [_container_status(c) for c in at(revision, "spec", "containers") or ()]
    for field, of in (("actualReplicas", "actualScale"), ("desiredReplicas", "desiredScale")):
        status.pop(field, None)
        # Not known yet where it is below 0.
        if autoscaler_status[of] >= 0:
            status[field] = autoscaler_status[of]
    return status


def resources_available(phase: Phase, trouble: Trouble, before: Condition | None) -> Condition:
    """Whether the revision got what it needs to run."""
    if phase.is_initialized:
        return conditions.true(RESOURCES)
    if phase.has_failed:
        if before is not None and before.reason == DEADLINE_EXCEEDED:
            return before
        return conditions.false(RESOURCES, DEADLINE_EXCEEDED, _deadline_message(trouble, before))
    if trouble.reason and not trouble.is_failure:
        return conditions.unknown(RESOURCES, trouble.reason, trouble.message)
    return conditions.unknown(RESOURCES, DEPLOYING)


def container_healthy(
    phase: Phase, desired: int, ready: int, trouble: Trouble, before: Condition | None
) -> Condition:
    """Whether its containers run. A failure is forgotten when a pod is ready, or when none is wanted any more."""
    was_false = before is not None and before.status == "False"
    if ready > 0:
        return conditions.true(HEALTHY)
    if phase.is_initialized and desired == 0:
        return conditions.true(HEALTHY)
    if trouble.is_failure:
        return conditions.false(HEALTHY, trouble.reason, trouble.message)
    if before is not None and was_false and (phase.is_initialized or phase.has_failed):
        return before
    return conditions.true(HEALTHY) if phase.is_initialized else conditions.unknown(HEALTHY, DEPLOYING)


def _deadline_message(trouble: Trouble, before: Condition | None) -> str:
    said = trouble.message or (before.message if before is not None else "")
    return f"Initial scale was never achieved: {said}" if said else "Initial scale was never achieved"


def _active(autoscaler_status: Object) -> Condition:
    # What Knative repeats here is whether the PodAutoscaler is ready.
    ready = conditions.find({"status": autoscaler_status}, conditions.READY)
    return (ready or conditions.unknown(conditions.READY, DEPLOYING)).renamed(scaling.ACTIVE)


def _container_status(container: Object) -> Object:
    status: Object = {"name": container.get("name", "")}
    if "@sha256:" in (container.get("image") or ""):
        status["imageDigest"] = container["image"]
    return status
