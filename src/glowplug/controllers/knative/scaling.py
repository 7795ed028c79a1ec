"""How many pods a revision should have, and what its PodAutoscaler says about it.

Pure. The first pods are decided here, and that a revision has none which failed or which no route leads to; from then
on the autoscaler says, who measures what the revision is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from glowplug.spec.gonumbers import SECOND_NS, GoValueError, parse_duration

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, annotations_of, seconds
from .labels import PROGRESS_DEADLINE

ACTIVE = "Active"
INITIALIZED = "ScaleTargetInitialized"
SKS_READY = "SKSReady"
DEPENDENTS = (ACTIVE, INITIALIZED, SKS_READY)
TIMED_OUT = "TimedOut"


@dataclass(frozen=True)
class Scale:
    """`desired` is what the status says. `pods` is how many there shall be now, None to leave them as they are.

    `is_held`: its requests go through the activator. `again_at` is when to ask again, in seconds since the epoch.
    """

    desired: int
    reason: str
    pods: int | None
    is_held: bool = True
    again_at: float | None = None


@dataclass(frozen=True)
class Standing:
    """What the autoscaler has to know of a revision, `namespace/name`, whose first pods were ready once.

    `active` is the status of the condition Active, `active_since` when that changed, in seconds since the epoch.
    """

    revision: str
    annotations: Mapping[str, str]
    container_concurrency: int
    ready: int
    desired: int
    active: str
    active_since: float


class Autoscaler(Protocol):
    """Who scales on load."""

    def bounds(self, annotations: Mapping[str, str]) -> Bounds:
        """What a revision's annotations say of its pods, and the cluster's settings where they say nothing."""
        ...

    def scale(self, standing: Standing, now: float) -> Scale: ...

    def forget(self, revision: str) -> None:
        """That revision is not to be scaled any more."""


@dataclass(frozen=True)
class Bounds:
    """How many pods a revision may have, and has at first; `maximum` 0 is no bound."""

    minimum: int
    maximum: int
    initial: int

    def clamp(self, replicas: int) -> int:
        return min(replicas, self.maximum) if self.maximum else replicas


@dataclass(frozen=True)
class Phase:
    """How far a revision has come: `is_initialized` once it had all its first pods ready, `has_failed` if it never
    will; `deadline` is when it fails unless it is ready before, None where no deadline runs."""

    is_initialized: bool
    has_failed: bool
    deadline: float | None


def first_scale(bounds: Bounds, phase: Phase, is_reachable: bool) -> Scale | None:
    """The scale of a revision as long as its load is of no concern; None from when it is."""
    if phase.has_failed:
        return Scale(0, "never became ready", 0, is_held=False)
    if not is_reachable:
        return Scale(0, "no route leads to it", 0)
    if phase.is_initialized:
        return None
    pods = bounds.clamp(max(bounds.minimum, bounds.initial))
    return Scale(pods, f"first pods: the larger of min {bounds.minimum}, initial {bounds.initial}", pods)


def phase_of(
    revision: Object, autoscaler: Object | None, default_deadline_s: float, running_since: float, now: float
) -> Phase:
    """Where a revision stands, from what its PodAutoscaler has recorded.

    The deadline runs from the moment the revision began to wait for pods, or from `running_since` if the machine
    started later: what was not running could not progress.
    """
    if conditions.is_true(autoscaler, INITIALIZED):
        return Phase(True, False, None)
    active = conditions.find(autoscaler, ACTIVE)
    if active is None:
        return Phase(False, False, None)
    if active.reason == TIMED_OUT:
        return Phase(False, True, None)
    began = seconds(conditions.since(autoscaler, ACTIVE))
    if active.status != "Unknown" or began is None:
        return Phase(False, False, None)
    deadline = max(began, running_since) + progress_deadline(revision, default_deadline_s)
    return Phase(False, now >= deadline, deadline)


def progress_deadline(revision: Object, default_s: float) -> float:
    """`serving.knative.dev/progress-deadline`, a Go duration, in seconds."""
    try:
        return parse_duration(annotations_of(revision).get(PROGRESS_DEADLINE, "")) / SECOND_NS
    except GoValueError:
        return default_s


def autoscaler_conditions(
    scale: Scale, phase: Phase, minimum: int, ready: int, is_reachable: bool
) -> list[Condition]:
    """The PodAutoscaler's conditions for `ready` pods; `minimum` is the revision's min-scale."""
    floor = minimum if is_reachable else 0
    needed = max(floor, 1) if phase.is_initialized else scale.desired
    # A revision that is not reachable wants no pods; that none are ready then is no achievement.
    has_arrived = is_reachable and not phase.has_failed and ready >= needed
    is_initialized = phase.is_initialized or has_arrived
    found = [conditions.true(INITIALIZED) if is_initialized else conditions.unknown(INITIALIZED)]
    found.append(conditions.true(SKS_READY) if is_initialized else conditions.unknown(SKS_READY, "NotReady"))
    if phase.has_failed:
        found.append(conditions.false(ACTIVE, TIMED_OUT, "The target could not be activated."))
    elif scale.desired == 0:
        found.append(conditions.false(ACTIVE, "NoTraffic", "The target is not receiving traffic."))
    elif ready < needed:
        message = "Requests to the target are being buffered as resources are provisioned."
        found.append(conditions.unknown(ACTIVE, "Queued", message))
    else:
        found.append(conditions.true(ACTIVE))
    return found
