"""What a revision's autoscaler works with: annotations, container concurrency and the cluster's settings, resolved.

Values only. Source: knative.dev/serving pkg/reconciler/autoscaling, resources/target.go, resources/metric.go and
kpa/resources/decider.go, and pkg/apis/autoscaling/v1alpha1/pa_lifecycle.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec import autoscaling
from glowplug.spec.autoscaling import RevisionScaling
from glowplug.spec.autoscaling_config import DEFAULTS, AutoscalerConfig

from . import floats

SECOND_NS = 1_000_000_000
TICK_S = 2


@dataclass(frozen=True)
class Parameters:
    """Knative's DeciderSpec: what a decision follows from beside the measurements. Durations are nanoseconds.

    `target` is the metric's value that a pod should have, `total` the one that it can take. `panic_threshold` is a
    factor (2.0, not 200). `target_burst_capacity` -1 is boundless, `activation_scale` 0 is none.
    """

    target: float
    total: float
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    panic_threshold: float = 2.0
    stable_window_ns: int = 60 * SECOND_NS
    scale_down_delay_ns: int = 0
    target_burst_capacity: float = 211.0
    activation_scale: int = 0
    is_reachable: bool = True
    initial_scale: int = 1
    metric: str = autoscaling.CONCURRENCY


@dataclass(frozen=True)
class Windows:
    """How a revision is measured: the two windows in nanoseconds, and whether new seconds weigh more.

    `is_scraped` is False for a revision that has the activator in its path always: then no report means no load.
    """

    stable_ns: int
    panic_ns: int
    is_weighted: bool
    is_scraped: bool


@dataclass(frozen=True)
class Bounds:
    """The number of pods that a revision may have; 0 is no bound."""

    minimum: int
    maximum: int


def parameters_of(
    scaling: RevisionScaling,
    container_concurrency: int,
    is_reachable: bool,
    config: AutoscalerConfig = DEFAULTS,
) -> Parameters:
    """What decisions about a revision follow from; `container_concurrency` 0 is unlimited."""
    target, total = resolve_target(scaling, container_concurrency, config)
    threshold = _or(scaling.panic_threshold_percentage, config.panic_threshold_percentage)
    delay_ns = scaling.scale_down_delay_ns
    return Parameters(
        target=target,
        total=total,
        max_scale_up_rate=config.max_scale_up_rate,
        max_scale_down_rate=config.max_scale_down_rate,
        panic_threshold=threshold / 100.0,
        stable_window_ns=stable_window_ns(scaling, config),
        scale_down_delay_ns=config.scale_down_delay_ns if delay_ns is None else delay_ns,
        target_burst_capacity=burst_capacity(scaling, config),
        activation_scale=scaling.activation_scale or 0,
        is_reachable=is_reachable,
        initial_scale=initial_scale(scaling, config),
        metric=scaling.metric,
    )


def resolve_target(
    scaling: RevisionScaling, container_concurrency: int, config: AutoscalerConfig = DEFAULTS
) -> tuple[float, float]:
    """What a pod should have of the metric, and what it can take: (target, total).

    A target annotation above `container_concurrency` is cut to it; the target is at least 0.01.
    """
    if scaling.metric == autoscaling.RPS:
        total, utilization = config.rps_target_default, config.target_utilization
    else:
        total = float(container_concurrency or config.container_concurrency_target_default)
        utilization = config.container_concurrency_target_fraction
    if scaling.target is not None:
        total = scaling.target
        if scaling.metric == autoscaling.CONCURRENCY and container_concurrency != 0:
            total = floats.minimum(scaling.target, float(container_concurrency))
    if scaling.utilization_percentage is not None:
        utilization = scaling.utilization_percentage / 100
    return floats.maximum(autoscaling.TARGET_MIN, total * utilization), total


def windows_of(scaling: RevisionScaling, config: AutoscalerConfig = DEFAULTS) -> Windows:
    """How a revision is measured; the panic window is whole seconds, at least one."""
    stable_ns = stable_window_ns(scaling, config)
    percentage = _or(scaling.panic_window_percentage, config.panic_window_percentage)
    panic_ns = floats.to_int64(float(stable_ns) * percentage / 100.0)
    # Go's Round: to the nearest second, halves away from zero.
    rounded_ns = (panic_ns + SECOND_NS // 2) // SECOND_NS * SECOND_NS
    return Windows(
        stable_ns=stable_ns,
        panic_ns=max(rounded_ns, SECOND_NS),
        is_weighted=scaling.aggregation == autoscaling.WEIGHTED_EXPONENTIAL,
        is_scraped=burst_capacity(scaling, config) != -1,
    )


def bounds_of(scaling: RevisionScaling, is_reachable: bool, config: AutoscalerConfig = DEFAULTS) -> Bounds:
    """Least and largest number of pods; a revision that no route leads to needs none."""
    minimum = config.min_scale if scaling.min_scale is None else scaling.min_scale
    maximum = config.max_scale if scaling.max_scale is None else scaling.max_scale
    return Bounds(minimum if is_reachable else 0, maximum)


def initial_scale(scaling: RevisionScaling, config: AutoscalerConfig = DEFAULTS) -> int:
    """How many pods a revision starts with; a 0 of its own counts only where the cluster allows it."""
    own = scaling.initial_scale
    if own is None or (own == 0 and not config.allow_zero_initial_scale):
        return config.initial_scale
    return own


def stable_window_ns(scaling: RevisionScaling, config: AutoscalerConfig = DEFAULTS) -> int:
    """The stable window, in nanoseconds."""
    return config.stable_window_ns if scaling.window_ns is None else scaling.window_ns


def burst_capacity(scaling: RevisionScaling, config: AutoscalerConfig = DEFAULTS) -> float:
    """The requests that must find room at once; -1 is any number."""
    return _or(scaling.burst_capacity, config.target_burst_capacity)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
