"""What a PodAutoscaler says: the autoscaler's statement about what the controllers know of a revision. Pure."""

from __future__ import annotations

from glowplug.autoscaler import scaler
from glowplug.autoscaler.decider import UNKNOWN_SCALE
from glowplug.autoscaler.status import status_of
from glowplug.controllers.conditions import Condition
from glowplug.controllers.knative.scaling import ACTIVE, Said, Standing
from glowplug.spec.autoscaling import scaling_of
from glowplug.spec.autoscaling_config import AutoscalerConfig


def says(standing: Standing, desired: int, config: AutoscalerConfig) -> Said:
    """What the PodAutoscaler says once the revision wants `desired` pods; -1 where nothing was measured yet."""
    scaling = scaling_of(standing.annotations)
    # How long it has been starting is the controllers' to judge: 0 never ends in a time-out here.
    found = scaler.Standing(standing.active, 0, standing.is_initialized, standing.is_reachable)
    want = desired
    if want == UNKNOWN_SCALE:
        want = scaler.scale(want, found, scaling, config).scale
    status = status_of(want, standing.ready, found, scaling, config, previous_desired=standing.desired)
    active = status.active
    return Said(
        active=None if active is None else Condition(ACTIVE, active.status, active.reason, active.message),
        is_initialized=status.is_initialized,
        desired=status.desired,
        actual=status.actual,
    )
