"""How many pods a revision should have, and what its PodAutoscaler says about it.

Pure. `decide_scale` is the one place where the number is made: without a concurrency autoscaler it is a constant of
the revision; whoever measures concurrency returns a `Scale` of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from glowplug.spec import names

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, annotations_of, seconds
from .labels import PROGRESS_DEADLINE, integer

ACTIVE = "Active"
INITIALIZED = "ScaleTargetInitialized"
SKS_READY = "SKSReady"
DEPENDENTS = (ACTIVE, INITIALIZED, SKS_READY)
TIMED_OUT = "TimedOut"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Scale:
    """A number of pods, and why."""

    desired: int
    reason: str


@dataclass(frozen=True)
class Bounds:
    """A revision's scaling annotations; `maximum` 0 is no bound."""

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


def bounds_of(revision: Object) -> Bounds:
    """Reads the live revision's annotations, under Knative's present and its older spelling."""
    found = annotations_of(revision)
    return Bounds(
        minimum=max(0, integer(found, names.MIN_SCALE, "autoscaling.knative.dev/minScale") or 0),
        maximum=max(0, integer(found, names.MAX_SCALE, "autoscaling.knative.dev/maxScale") or 0),
        initial=max(
            0, _default(integer(found, names.INITIAL_SCALE, "autoscaling.knative.dev/initialScale"), 1)
        ),
    )


def decide_scale(bounds: Bounds, phase: Phase, is_reachable: bool) -> Scale:
    """The scale of a revision that nobody measures."""
    if phase.has_failed:
        return Scale(0, "never became ready")
    if not is_reachable:
        return Scale(0, "no route leads to it")
    if not phase.is_initialized:
        wanted = max(bounds.minimum, bounds.initial)
        return Scale(
            bounds.clamp(wanted), f"first pods: the larger of min {bounds.minimum}, initial {bounds.initial}"
        )
    if bounds.minimum:
        return Scale(bounds.clamp(bounds.minimum), f"min-scale {bounds.minimum}")
    return Scale(bounds.clamp(bounds.initial), f"initial-scale {bounds.initial}, without a measurement")


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
    text = annotations_of(revision).get(PROGRESS_DEADLINE, "")
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return default_s
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


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


def _default(value: int | None, default: int) -> int:
    return default if value is None else value
