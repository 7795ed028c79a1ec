"""Knative's `autoscaling.knative.dev/*` annotations: how a revision scales. The rules and the wording are Knative's.

Source: knative.dev/serving pkg/apis/autoscaling/annotation_validation.go. One rule is this machine's: it has
Knative's own autoscaler and no horizontal pod autoscaler, so the class `hpa` is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from glowplug.errors import Problem
from glowplug.spec import names
from glowplug.spec.validation import (
    INVALID,
    NOT_SUPPORTED,
    duration_ns,
    go_float,
    go_int,
    invalid_value,
    out_of_bounds,
)

GROUP = "autoscaling.knative.dev"
KPA = "kpa.autoscaling.knative.dev"
HPA = "hpa.autoscaling.knative.dev"
METRICS = ("concurrency", "rps")

_SECOND_NS = 1_000_000_000
_WINDOW_MIN_NS = 6 * _SECOND_NS
_WINDOW_MAX_NS = 3600 * _SECOND_NS
_MAX_INT32 = 2**31 - 1
_TARGET_MIN = 0.01
_ALGORITHMS = ("", "linear", "weighted-exponential", "weightedExponential")
# Annotations whose older spelling Knative still takes.
_ALIASES = {
    names.MIN_SCALE: "minScale",
    names.MAX_SCALE: "maxScale",
    names.INITIAL_SCALE: "initialScale",
    f"{GROUP}/panic-threshold-percentage": "panicThresholdPercentage",
    f"{GROUP}/panic-window-percentage": "panicWindowPercentage",
    f"{GROUP}/scale-down-delay": "scaleDownDelay",
    f"{GROUP}/scale-to-zero-pod-retention-period": "scaleToZeroPodRetentionPeriod",
    f"{GROUP}/target-burst-capacity": "targetBurstCapacity",
    f"{GROUP}/target-utilization-percentage": "targetUtilizationPercentage",
    f"{GROUP}/metric-aggregation-algorithm": "metricAggregationAlgorithm",
}


def _get(annotations: Mapping[str, str], key: str) -> tuple[str, str] | None:
    """The key as it is written in the object, and its value."""
    for spelling in (key, f"{GROUP}/{_ALIASES[key]}" if key in _ALIASES else key):
        if spelling in annotations:
            return spelling, annotations[spelling]
    return None


def validate(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """Problems of the autoscaling annotations; a problem's field is the annotation's key."""
    if not any(key.startswith(GROUP) for key in annotations):
        return
    yield from _class(annotations)
    yield from _bounds(annotations)
    yield from _floats(annotations)
    yield from _durations(annotations)
    yield from _metric(annotations)
    yield from _initial_scale(annotations)


def _class(annotations: Mapping[str, str]) -> Iterator[Problem]:
    found = _get(annotations, names.AUTOSCALING_CLASS)
    if found is None or found[1] == KPA:
        return
    key, value = found
    if value == HPA:
        message = f"Unsupported value: {value}: the local machine has Knative's own autoscaler only, {KPA}"
        yield Problem(key, message, NOT_SUPPORTED)
    else:
        yield invalid_value(key, value, f"the local machine's autoscaler is {KPA}")


def _count(annotations: Mapping[str, str], key: str) -> tuple[int, Iterator[Problem]]:
    found = _get(annotations, key)
    if found is None:
        return 0, iter(())
    spelling, value = found
    number = go_int(value)
    if number is None:
        return 0, iter((invalid_value(spelling, value),))
    if not 0 <= number <= _MAX_INT32:
        return 0, iter((out_of_bounds(spelling, value, 0, _MAX_INT32),))
    return number, iter(())


def _bounds(annotations: Mapping[str, str]) -> Iterator[Problem]:
    lower, problems = _count(annotations, names.MIN_SCALE)
    yield from problems
    upper, problems = _count(annotations, names.MAX_SCALE)
    yield from problems
    if upper and upper < lower:
        yield Problem(names.MAX_SCALE, f"max-scale={upper} is less than min-scale={lower}", INVALID)
    found = _get(annotations, f"{GROUP}/activation-scale")
    if found is None:
        return
    key, value = found
    activation = go_int(value)
    if activation is None:
        yield invalid_value(key, value)
    elif lower > activation:
        yield Problem(key, f"min-scale={lower} is greater than activation-scale={activation}", INVALID)
    elif 0 < upper < activation:
        yield Problem(key, f"max-scale={upper} is less than activation-scale={activation}", INVALID)
    elif activation < 2:
        yield Problem(key, f"activation-scale={activation} must be greater than 1", INVALID)


def _floats(annotations: Mapping[str, str]) -> Iterator[Problem]:
    for name, lower, upper in (
        ("panic-window-percentage", 1, 100),
        ("panic-threshold-percentage", 110, 1000),
        ("target-utilization-percentage", 1, 100),
    ):
        found = _get(annotations, f"{GROUP}/{name}")
        number = None if found is None else go_float(found[1])
        if found is not None and number is None:
            yield invalid_value(found[0], found[1])
        elif found is not None and number is not None and not lower <= number <= upper:
            yield out_of_bounds(found[0], found[1], lower, upper)
    found = _get(annotations, names.AUTOSCALING_TARGET)
    if found is not None:
        number = go_float(found[1])
        if number is None:
            yield invalid_value(found[0], found[1])
        elif number < _TARGET_MIN:
            yield Problem(found[0], f"target {found[1]} should be at least {_TARGET_MIN}", INVALID)
    found = _get(annotations, f"{GROUP}/target-burst-capacity")
    if found is not None:
        number = go_float(found[1])
        if number is None or (number < 0 and number != -1):
            yield invalid_value(found[0], found[1])


def _durations(annotations: Mapping[str, str]) -> Iterator[Problem]:
    for name, lower_ns, in_seconds in (
        ("window", _WINDOW_MIN_NS, True),
        ("scale-down-delay", 0, True),
        ("scale-to-zero-pod-retention-period", 0, False),
    ):
        found = _get(annotations, f"{GROUP}/{name}")
        if found is None:
            continue
        key, value = found
        duration = duration_ns(value)
        if duration is None:
            yield invalid_value(key, value)
        elif not lower_ns <= duration <= _WINDOW_MAX_NS:
            yield out_of_bounds(key, value, f"{lower_ns // _SECOND_NS}s", "1h0m0s")
        elif in_seconds and duration % _SECOND_NS:
            yield Problem(key, "must be specified with at most second precision", INVALID)


def _metric(annotations: Mapping[str, str]) -> Iterator[Problem]:
    metric = annotations.get(names.AUTOSCALING_METRIC)
    if metric is not None and metric not in METRICS:
        hint = (
            "requests per second is called rps" if metric.lower() == "qps" else f"one of {', '.join(METRICS)}"
        )
        yield invalid_value(names.AUTOSCALING_METRIC, metric, hint)
    found = _get(annotations, f"{GROUP}/metric-aggregation-algorithm")
    if found is not None and found[1] not in _ALGORITHMS:
        yield invalid_value(found[0], found[1])


def _initial_scale(annotations: Mapping[str, str]) -> Iterator[Problem]:
    found = _get(annotations, names.INITIAL_SCALE)
    if found is None:
        return
    key, value = found
    number = go_int(value)
    if number is None or number > _MAX_INT32:
        yield invalid_value(key, value)
    elif number < 0:
        yield invalid_value(key, value, "must be greater than 0")
