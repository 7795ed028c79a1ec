"""What a PodAutoscaler says of itself, and where its requests go: the activator, or straight to the pods.

Pure. Conditions are given as (status, reason, message); who writes the object adds types and times. Source:
knative.dev/serving pkg/reconciler/autoscaling/kpa/kpa.go, version 0.48; a test compares it with that code.
"""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec.autoscaling import RevisionScaling
from glowplug.spec.autoscaling_config import DEFAULTS, AutoscalerConfig

from .decider import UNKNOWN_SCALE
from .parameters import bounds_of, initial_scale
from .scaler import Standing


@dataclass(frozen=True)
class Statement:
    """A condition without its type; `status` is `True`, `False` or `Unknown`."""

    status: str
    reason: str = ""
    message: str = ""


IS_ACTIVE = Statement("True")
QUEUED = Statement(
    "Unknown", "Queued", "Requests to the target are being buffered as resources are provisioned."
)
NO_TRAFFIC = Statement("False", "NoTraffic", "The target is not receiving traffic.")
TIMED_OUT = Statement("False", "TimedOut", "The target could not be activated.")


@dataclass(frozen=True)
class PodAutoscalerStatus:
    """`active` None leaves the condition as it is; `desired` and `actual` are desiredScale and actualScale."""

    active: Statement | None
    is_initialized: bool
    desired: int
    actual: int


def status_of(
    want: int,
    ready: int,
    standing: Standing,
    scaling: RevisionScaling,
    config: AutoscalerConfig = DEFAULTS,
    *,
    previous_desired: int | None = None,
) -> PodAutoscalerStatus:
    """The status after `scaler.scale` wanted `want` pods and `ready` are.

    `previous_desired` is the desiredScale that is written, None for none: one that became unknown (-1, the machine
    has just started) does not take its place. Knative waits for the revision's service before it calls it initialized;
    here there is always one.
    """
    needed = active_threshold(standing, scaling, config)
    is_initialized = standing.is_initialized or ready >= needed
    desired = want
    if want == UNKNOWN_SCALE and previous_desired is not None and previous_desired >= 0:
        desired = previous_desired
    return PodAutoscalerStatus(_active(want, ready, needed, standing), is_initialized, desired, ready)


def active_threshold(
    standing: Standing, scaling: RevisionScaling, config: AutoscalerConfig = DEFAULTS
) -> int:
    """How many ready pods make the revision active: the initial scale at first, later at least one."""
    minimum = bounds_of(scaling, standing.is_reachable, config).minimum
    return max(minimum, 1 if standing.is_initialized else initial_scale(scaling, config))


def _active(want: int, ready: int, needed: int, standing: Standing) -> Statement | None:
    # A revision whose initial scale is 0 needs none and wants -1 until the first request.
    if want == 0 or needed == 0:
        # While activating, only the progress deadline brings the scale to zero.
        return TIMED_OUT if standing.is_activating and needed > 0 else NO_TRAFFIC
    is_moving = want > 0 or standing.active != "False"
    if ready < needed:
        return QUEUED if is_moving else NO_TRAFFIC
    return IS_ACTIVE if is_moving else None


def needs_activator(want: int, excess_burst_capacity: int) -> bool:
    """True if requests go through the activator (Knative's mode Proxy), False if straight to the pods (Serve)."""
    return want <= 0 or excess_burst_capacity < 0
