"""From what the decider desires to what is done: bounds, first pods, and when the last pod may leave.

Pure; it belongs to the loop that writes the PodAutoscaler. To scale to zero takes three steps, each of them a
decision here: the revision was active for a stable window (it is then marked inactive), the activator answers in its
place (a probe, which the loop makes), and it has done so for the grace period. Source: knative.dev/serving
pkg/reconciler/autoscaling/kpa/scaler.go, version 0.48; a test compares every decision with that code.
"""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec.autoscaling import RevisionScaling
from glowplug.spec.autoscaling_config import DEFAULTS, AutoscalerConfig
from glowplug.spec.gonumbers import duration_text

from .decider import UNKNOWN_SCALE
from .parameters import SECOND_NS, Bounds, bounds_of, burst_capacity, initial_scale, stable_window_ns

ACTIVATION_BUFFER_NS = 30 * SECOND_NS  # so that the pods' own failure is reported first
PROGRESS_DEADLINE_NS = 600 * SECOND_NS
_LOOK_AGAIN_NS = 3 * SECOND_NS


@dataclass(frozen=True)
class Standing:
    """What the PodAutoscaler and the route say of a revision at the time of a decision.

    `active` is the Active condition's status, `True`, `False`, `Unknown`, or empty where there is none, and
    `active_for_ns` the time since its last transition. `proxied_for_ns` is how long the activator has been in the
    path, None while it is not. `is_activator_probed` says that a request through the revision's own route was
    answered by the activator.
    """

    active: str
    active_for_ns: int
    is_initialized: bool
    is_reachable: bool
    proxied_for_ns: int | None = None
    is_activator_probed: bool = False

    @property
    def is_activating(self) -> bool:
        return self.active not in ("True", "False")


@dataclass(frozen=True)
class Want:
    """How many pods there should be, -1 where that is not known.

    `is_applied` False leaves the pods as they are: the number is only where the revision is heading. The loop decides
    again after `again_ns`, unless something happens before, and probes the activator if `needs_probe`.
    """

    scale: int
    is_applied: bool
    reason: str
    again_ns: int | None = None
    needs_probe: bool = False


def scale(
    desired: int,
    standing: Standing,
    scaling: RevisionScaling,
    config: AutoscalerConfig = DEFAULTS,
    progress_deadline_ns: int = PROGRESS_DEADLINE_NS,
) -> Want:
    """What follows from `desired`, the decider's last valid decision, or -1 before the first.

    `progress_deadline_ns` is the cluster's; the revision's own annotation wins over it.
    """
    if desired < 0 and not standing.is_activating:
        return Want(desired, False, "nothing is measured yet")
    bounds, first = effective_bounds(standing, scaling, config)
    bounded = _bounded(bounds, desired)
    reason = _bounds_reason(desired, bounded, bounds, first)
    if bounded != 0:
        return Want(bounded, True, reason)
    if not config.enable_scale_to_zero:
        return Want(1, True, "enable-scale-to-zero is false: one pod stays")
    if standing.is_activating:
        deadline_ns = scaling.progress_deadline_ns
        timeout_ns = (progress_deadline_ns if deadline_ns is None else deadline_ns) + ACTIVATION_BUFFER_NS
        return _while_activating(standing, timeout_ns)
    if standing.active == "True":
        return _while_active(standing, stable_window_ns(scaling, config))
    return _while_inactive(standing, scaling, config)


def effective_bounds(
    standing: Standing, scaling: RevisionScaling, config: AutoscalerConfig = DEFAULTS
) -> tuple[Bounds, bool]:
    """The bounds that hold now, and whether the lower one is the initial scale.

    Until a reachable revision has had its first pods, the initial scale is a lower bound too.
    """
    bounds = bounds_of(scaling, standing.is_reachable, config)
    initial = initial_scale(scaling, config)
    if initial > 1 and initial > bounds.minimum and not standing.is_initialized and standing.is_reachable:
        return Bounds(initial, bounds.maximum), True
    return bounds, False


def _bounded(bounds: Bounds, desired: int) -> int:
    # Where an initial scale lies above max-scale, Knative takes whichever bound is crossed; so does this.
    if desired < bounds.minimum:
        return bounds.minimum
    return bounds.maximum if bounds.maximum and desired > bounds.maximum else desired


def _bounds_reason(desired: int, bounded: int, bounds: Bounds, is_first: bool) -> str:
    if bounded == desired:
        return "as desired"
    if bounded < desired:
        return f"{desired} cut to max-scale {bounds.maximum}"
    floor = f"{'initial-scale' if is_first else 'min-scale'} {bounds.minimum}"
    return f"{desired} raised to {floor}" if desired >= 0 else f"nothing is measured yet: {floor}"


def _while_activating(standing: Standing, timeout_ns: int) -> Want:
    # Without a condition nobody knows since when.
    if standing.active == "Unknown" and standing.active_for_ns > timeout_ns:
        return Want(0, True, f"no pod became ready within {duration_text(timeout_ns)}")
    return Want(UNKNOWN_SCALE, False, "its first pods are on their way", timeout_ns)


def _while_active(standing: Standing, window_ns: int) -> Want:
    left_ns = window_ns - standing.active_for_ns
    if left_ns <= 0:
        again_ns = None if standing.proxied_for_ns is None else _LOOK_AGAIN_NS
        return Want(
            0, False, "idle for a stable window: it becomes inactive, its pods stay for now", again_ns
        )
    return Want(1, True, f"active for less than a stable window: {duration_text(left_ns)} are left", left_ns)


def _while_inactive(standing: Standing, scaling: RevisionScaling, config: AutoscalerConfig) -> Want:
    # A boundless burst has the activator in the path always; otherwise a probe has to show that it is.
    if burst_capacity(scaling, config) != -1 and not standing.is_activator_probed:
        return Want(0, False, "the activator does not answer for it yet", needs_probe=True)
    grace_ns = config.scale_to_zero_grace_period_ns
    retention_ns = _retention_ns(standing, scaling, config)
    inactive_ns = standing.active_for_ns
    if inactive_ns >= max(grace_ns, retention_ns):
        return Want(0, True, f"inactive for {duration_text(inactive_ns)}")
    if inactive_ns < retention_ns:
        left_ns = retention_ns - inactive_ns
        reason = f"scale-to-zero-pod-retention-period keeps the last pod for {duration_text(left_ns)}"
        return Want(0, False, reason, left_ns)
    left_ns = grace_ns - (standing.proxied_for_ns or 0)
    if left_ns <= 0:
        return Want(0, True, "the activator has been in its path for the grace period")
    reason = f"scale-to-zero-grace-period: the pods stay for {duration_text(left_ns)}"
    return Want(0, False, reason, left_ns)


def _retention_ns(standing: Standing, scaling: RevisionScaling, config: AutoscalerConfig) -> int:
    if not standing.is_reachable:
        return 0
    own_ns = scaling.pod_retention_ns
    return config.scale_to_zero_pod_retention_period_ns if own_ns is None else own_ns
