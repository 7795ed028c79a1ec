"""Knative's autoscaling annotations: each key with its spellings, its bounds, and what a revision says with them.

Values only. What is wrong with them is `autoscaling_validation`'s to say; what a revision does not say follows from
`autoscaling_config`. Source: knative.dev/serving pkg/apis/autoscaling/register.go and
pkg/apis/autoscaling/v1alpha1/pa_lifecycle.go, version 0.48.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from glowplug.spec.gonumbers import SECOND_NS, GoValueError, parse_duration, parse_float, parse_int

T = TypeVar("T")

GROUP = "autoscaling.knative.dev"
KPA = "kpa.autoscaling.knative.dev"
HPA = "hpa.autoscaling.knative.dev"
DOMAIN = ".knative.dev"

CONCURRENCY = "concurrency"
RPS = "rps"
CPU = "cpu"
MEMORY = "memory"
# Those of the class `kpa`.
METRICS = (CONCURRENCY, RPS)

LINEAR = "linear"
WEIGHTED_EXPONENTIAL = "weighted-exponential"
WEIGHTED_EXPONENTIAL_OLD = "weightedExponential"

TARGET_MIN = 0.01
WINDOW_MIN_NS = 6 * SECOND_NS
WINDOW_MAX_NS = 3600 * SECOND_NS
PANIC_WINDOW_PERCENTAGE = (1.0, 100.0)
PANIC_THRESHOLD_PERCENTAGE = (110.0, 1000.0)
TARGET_UTILIZATION_PERCENTAGE = (1, 100)
ACTIVATION_SCALE_MIN = 2
MAX_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Annotation:
    """One annotation: its key, and the older spelling that Knative still takes (empty if there is none)."""

    key: str
    old_key: str = ""

    def find(self, annotations: Mapping[str, str]) -> tuple[str, str] | None:
        """The key as it is written and its value, or None; the present spelling wins over the older one."""
        for key in (self.key, self.old_key):
            if key and key in annotations:
                return key, annotations[key]
        return None


def _annotation(name: str, old_name: str = "") -> Annotation:
    return Annotation(f"{GROUP}/{name}", f"{GROUP}/{old_name}" if old_name else "")


CLASS = _annotation("class")
METRIC = _annotation("metric")
TARGET = _annotation("target")
WINDOW = _annotation("window")
ACTIVATION_SCALE = _annotation("activation-scale")
MIN_SCALE = _annotation("min-scale", "minScale")
MAX_SCALE = _annotation("max-scale", "maxScale")
INITIAL_SCALE = _annotation("initial-scale", "initialScale")
SCALE_DOWN_DELAY = _annotation("scale-down-delay", "scaleDownDelay")
POD_RETENTION = _annotation("scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod")
AGGREGATION = _annotation("metric-aggregation-algorithm", "metricAggregationAlgorithm")
UTILIZATION = _annotation("target-utilization-percentage", "targetUtilizationPercentage")
BURST_CAPACITY = _annotation("target-burst-capacity", "targetBurstCapacity")
PANIC_WINDOW = _annotation("panic-window-percentage", "panicWindowPercentage")
PANIC_THRESHOLD = _annotation("panic-threshold-percentage", "panicThresholdPercentage")
PROGRESS_DEADLINE = Annotation("serving.knative.dev/progress-deadline")

ALL = (
    CLASS, METRIC, TARGET, WINDOW, ACTIVATION_SCALE, MIN_SCALE, MAX_SCALE, INITIAL_SCALE, SCALE_DOWN_DELAY,
    POD_RETENTION, AGGREGATION, UTILIZATION, BURST_CAPACITY, PANIC_WINDOW, PANIC_THRESHOLD,
)  # fmt: skip


@dataclass(frozen=True)
class RevisionScaling:
    """What a revision's annotations say of its scaling; None where they say nothing, or nothing that can be read.

    Durations are nanoseconds, percentages are as they are written (70 is 70 %).
    """

    autoscaler_class: str = KPA
    metric: str = CONCURRENCY
    target: float | None = None
    window_ns: int | None = None
    activation_scale: int | None = None
    min_scale: int | None = None
    max_scale: int | None = None
    initial_scale: int | None = None
    scale_down_delay_ns: int | None = None
    pod_retention_ns: int | None = None
    aggregation: str = ""
    utilization_percentage: float | None = None
    burst_capacity: float | None = None
    panic_window_percentage: float | None = None
    panic_threshold_percentage: float | None = None
    progress_deadline_ns: int | None = None


def scaling_of(annotations: Mapping[str, str]) -> RevisionScaling:
    """Reads the annotations of a revision or of a PodAutoscaler."""
    autoscaler_class = _text(annotations, CLASS, KPA)
    return RevisionScaling(
        autoscaler_class=autoscaler_class,
        metric=_text(annotations, METRIC, _default_metric(autoscaler_class)),
        target=_read(annotations, TARGET, parse_float),
        window_ns=_read(annotations, WINDOW, parse_duration),
        activation_scale=_read(annotations, ACTIVATION_SCALE, parse_int),
        min_scale=_read(annotations, MIN_SCALE, parse_int),
        max_scale=_read(annotations, MAX_SCALE, parse_int),
        initial_scale=_read(annotations, INITIAL_SCALE, parse_int),
        scale_down_delay_ns=_read(annotations, SCALE_DOWN_DELAY, parse_duration),
        pod_retention_ns=_read(annotations, POD_RETENTION, parse_duration),
        aggregation=_aggregation(annotations),
        utilization_percentage=_read(annotations, UTILIZATION, parse_float),
        burst_capacity=_read(annotations, BURST_CAPACITY, parse_float),
        panic_window_percentage=_read(annotations, PANIC_WINDOW, parse_float),
        panic_threshold_percentage=_read(annotations, PANIC_THRESHOLD, parse_float),
        progress_deadline_ns=_read(annotations, PROGRESS_DEADLINE, parse_duration),
    )


def _read(annotations: Mapping[str, str], annotation: Annotation, parse: Callable[[str], T]) -> T | None:
    found = annotation.find(annotations)
    if found is None:
        return None
    try:
        return parse(found[1])
    except GoValueError:
        return None


def _text(annotations: Mapping[str, str], annotation: Annotation, default: str) -> str:
    found = annotation.find(annotations)
    return default if found is None else found[1]


def _default_metric(autoscaler_class: str) -> str:
    return {KPA: CONCURRENCY, HPA: CPU}.get(autoscaler_class, "")


def _aggregation(annotations: Mapping[str, str]) -> str:
    written = _text(annotations, AGGREGATION, "")
    return WEIGHTED_EXPONENTIAL if written == WEIGHTED_EXPONENTIAL_OLD else written
