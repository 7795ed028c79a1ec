"""How many pods a revision should have, and what its PodAutoscaler says about it.

Pure. The first pods are decided here, and that a revision has none which failed or which no route leads to; from then
on the autoscaler says, who measures what the revision is asked. What the PodAutoscaler says of either is the
autoscaler's too: it is Knative's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from glowplug.spec.gonumbers import SECOND_NS, GoValueError, parse_duration

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, annotations_of, seconds
from .labels import PENDING, PROGRESS_DEADLINE, RESERVE, routing_state

ACTIVE = "Active"
INITIALIZED = "ScaleTargetInitialized"
SKS_READY = "SKSReady"
DEPENDENTS = (ACTIVE, INITIALIZED, SKS_READY)
TIMED_OUT = "TimedOut"
# As Kubernetes' horizontal autoscaler says it; there only while nothing can be measured.
SCALING_ACTIVE = "ScalingActive"
UNMEASURED = "FailedGetMetrics"
NOT_MEASURED = -1


@dataclass(frozen=True)
class Scale:
    """`desired` is what the revision wants, -1 where nothing was measured yet. `pods` is how many there shall be now,
    None to leave them as they are.

    `is_held`: its requests go through the activator. `again_at` is when to ask again, in seconds since the epoch.
    `unmeasured` is why its load is not known now, and the scale stays, empty where it is.
    """

    desired: int
    reason: str
    pods: int | None
    is_held: bool = True
    again_at: float | None = None
    unmeasured: str = ""


@dataclass(frozen=True)
class Standing:
    """What the autoscaler has to know of a revision, `namespace/name`.

    `active` is the status of the condition Active, `active_since` when that changed, in seconds since the epoch;
    `desired` is the desiredScale that is written, None for none. `is_initialized`: its first pods were ready once.
    """

    revision: str
    annotations: Mapping[str, str]
    container_concurrency: int
    ready: int
    desired: int | None
    active: str
    active_since: float
    is_initialized: bool = True
    is_reachable: bool = True


@dataclass(frozen=True)
class Said:
    """What the PodAutoscaler says; `active` None leaves that condition as it is."""

    active: Condition | None
    is_initialized: bool
    desired: int
    actual: int


class Autoscaler(Protocol):
    """Who scales on load."""

    def bounds(self, annotations: Mapping[str, str]) -> Bounds:
        """What a revision's annotations say of its pods, and the cluster's settings where they say nothing."""
        ...

    def scale(self, standing: Standing, now: float) -> Scale:
        """Of a revision whose first pods were ready once."""
        ...

    def says(self, standing: Standing, desired: int) -> Said:
        """What the PodAutoscaler says once the revision wants `desired` pods (-1: nothing was measured yet)."""
        ...

    def forget(self, revision: str) -> None:
        """That revision is not to be scaled any more."""


@dataclass(frozen=True)
class Bounds:
    """How many pods a revision has at least, and at first."""

    minimum: int
    initial: int


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
    # Also past max-scale, as in Knative: the revision counts as started with all of these.
    pods = max(bounds.minimum, bounds.initial)
    reason = f"first pods: the larger of min {bounds.minimum}, initial {bounds.initial}"
    return Scale(NOT_MEASURED, reason, pods)


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


def reachability(revision: Object, is_reachable: bool, is_broken: bool) -> str:
    """As the PodAutoscaler has it: empty where no route has led to the revision yet. One whose containers have failed,
    and of whose pods none is ready, is `Unreachable` for as long as that lasts."""
    if is_broken or (not is_reachable and routing_state(revision) == RESERVE):
        return "Unreachable"
    return "" if routing_state(revision) == PENDING else "Reachable"


def activity(written: Condition | None, phase: Phase, is_reachable: bool) -> str:
    """The status of Active that the PodAutoscaler's next one follows from; empty where there is none."""
    if not is_reachable:
        # Whoever is left before it was ready has not failed.
        return "False"
    is_starting = not phase.is_initialized and not phase.has_failed
    if is_starting and written is not None:
        # It may have been left before, and is now started once more.
        return "Unknown"
    return "" if written is None else written.status


def autoscaler_conditions(
    said: Said, written: Condition | None, phase: Phase, ready: int, unmeasured: str
) -> list[Condition]:
    """The PodAutoscaler's conditions with `ready` pods; `written` is its Active as it stands."""
    active = said.active or written or conditions.unknown(ACTIVE)
    if phase.has_failed and written is not None and written.reason == TIMED_OUT:
        # Knative's next look makes NoTraffic of it. Here it stays: it is what tells that the revision has failed.
        active = written
    is_initialized = phase.is_initialized or (said.is_initialized and not phase.has_failed)
    found = [active, conditions.true(INITIALIZED) if is_initialized else conditions.unknown(INITIALIZED)]
    if ready:
        found.append(conditions.true(SKS_READY))
    else:
        found.append(conditions.unknown(SKS_READY, "NotReady", "K8s Service is not ready"))
    if unmeasured:
        found.append(conditions.false(SCALING_ACTIVE, UNMEASURED, unmeasured))
    return found
