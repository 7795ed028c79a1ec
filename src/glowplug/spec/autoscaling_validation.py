"""What is wrong with a revision's autoscaling annotations, in Knative's words.

`validate` and `text` say exactly what Knative's webhook says (`expected 0 <= -1 <= 2147483647:
metadata.annotations.autoscaling.knative.dev/min-scale`), so that a search for it finds the right page. `problems` adds
the one rule that is the local machine's own: it has Knative's autoscaler and no other.
Source: knative.dev/serving pkg/apis/autoscaling/annotation_validation.go and knative.dev/pkg/apis/field_error.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from glowplug.errors import Problem
from glowplug.spec import autoscaling
from glowplug.spec.autoscaling import Annotation
from glowplug.spec.autoscaling_config import DEFAULTS, AutoscalerConfig
from glowplug.spec.gonumbers import (
    SECOND_NS,
    GoValueError,
    duration_text,
    float_text,
    parse_duration,
    parse_float,
    parse_int,
)
from glowplug.spec.validation import INVALID, NOT_SUPPORTED

ANNOTATIONS = "metadata.annotations"
# What ends the path of the one finding that a cluster's settings lift.
NOT_BY_CLUSTER = "=0 not allowed by cluster"
_PRECISION = "must be specified with at most second precision"


@dataclass(frozen=True)
class FieldError:
    """One of Knative's field errors: a message and the annotation keys that it is about.

    Where Knative writes a remark behind the key (`…/initial-scale must be greater than 0`), it is part of the path.
    """

    message: str
    paths: tuple[str, ...]


def text(errors: Iterable[FieldError], path: str = ANNOTATIONS) -> str:
    """All errors as Knative prints them: a line a message, sorted, keys behind `path`; empty if there are none."""
    merged: dict[str, set[str]] = {}
    for error in errors:
        merged.setdefault(error.message, set()).update(f"{path}.{key}" for key in error.paths)
    # Go compares strings by their bytes.
    lines = sorted(merged.items(), key=lambda item: item[0].encode("utf-8", "replace"))
    return "\n".join(f"{message}: {', '.join(sorted(paths))}" for message, paths in lines)


def problems(annotations: Mapping[str, str], config: AutoscalerConfig = DEFAULTS) -> Iterator[Problem]:
    """Knative's findings and the machine's own; a problem's field is the annotation's key, or keys."""
    yield from _foreign_class(annotations)
    yield from (
        Problem(", ".join(error.paths), error.message, INVALID) for error in validate(annotations, config)
    )


def _foreign_class(annotations: Mapping[str, str]) -> Iterator[Problem]:
    found = autoscaling.CLASS.find(annotations)
    # A class under Knative's domain that is neither is Knative's own finding.
    if found is None or found[1] == autoscaling.KPA:
        return
    if found[1] == autoscaling.HPA or not found[1].endswith(autoscaling.DOMAIN):
        why = f"the local machine has Knative's own autoscaler only, {autoscaling.KPA}"
        yield Problem(found[0], f"unsupported value: {found[1]}: {why}", NOT_SUPPORTED)


def validate(annotations: Mapping[str, str], config: AutoscalerConfig = DEFAULTS) -> list[FieldError]:
    """Knative's findings about the annotations of a revision, under the cluster's `config`."""
    return [
        *_class(annotations),
        *_scales(annotations, config),
        *_percentages(annotations),
        *_targets(annotations),
        *_durations(annotations),
        *_metric(annotations, config),
        *_aggregation(annotations),
        *_initial_scale(annotations, config),
    ]


def _invalid(value: str, path: str) -> FieldError:
    return FieldError(f"invalid value: {value}", (path,))


def _outside(value: object, lower: object, upper: object, path: str) -> FieldError:
    return FieldError(f"expected {lower} <= {value} <= {upper}", (path,))


def _class(annotations: Mapping[str, str]) -> Iterator[FieldError]:
    found = autoscaling.CLASS.find(annotations)
    if found is None or found[1] in (autoscaling.KPA, autoscaling.HPA):
        return
    if found[1].endswith(autoscaling.DOMAIN):
        yield _invalid(found[1], found[0])


def _count(annotations: Mapping[str, str], annotation: Annotation) -> tuple[int, list[FieldError]]:
    """A number of pods, 0 where there is none; and what is wrong with it."""
    found = annotation.find(annotations)
    if found is None:
        return 0, []
    key, value = found
    try:
        number = parse_int(value)
    except GoValueError as error:
        if not error.is_range:
            return 0, [_invalid(value, key)]
        number = -1
    if number < 0:
        return 0, [_outside(value, 0, autoscaling.MAX_INT32, key)]
    return number, []


def _scales(annotations: Mapping[str, str], config: AutoscalerConfig) -> Iterator[FieldError]:
    lower, errors = _count(annotations, autoscaling.MIN_SCALE)
    yield from errors
    upper, errors = _count(annotations, autoscaling.MAX_SCALE)
    yield from errors
    if upper != 0 and upper < lower:
        keys = (autoscaling.MAX_SCALE.key, autoscaling.MIN_SCALE.key)
        yield FieldError(f"max-scale={upper} is less than min-scale={lower}", keys)
    found, limit = autoscaling.MAX_SCALE.find(annotations), config.max_scale_limit
    if found is not None and limit != 0:
        if upper > limit:
            yield _outside(upper, 1, limit, found[0])
        if upper == 0:
            yield FieldError(f"max-scale=0 (unlimited), must be less than {limit}", (found[0],))
    yield from _activation(annotations, lower, upper)


def _activation(annotations: Mapping[str, str], lower: int, upper: int) -> Iterator[FieldError]:
    found = autoscaling.ACTIVATION_SCALE.find(annotations)
    if found is None:
        return
    key, value = found
    try:
        scale = parse_int(value)
    except GoValueError:
        yield _invalid(value, key)
        return
    if lower > scale:
        yield FieldError(f"min-scale={lower} is greater than activation-scale={scale}", (key,))
    elif upper != 0 and upper < scale:
        yield FieldError(f"max-scale={upper} is less than activation-scale={scale}", (key,))
    elif scale < autoscaling.ACTIVATION_SCALE_MIN:
        yield FieldError(f"activation-scale={scale} must be greater than 1", (key,))


def _number(annotations: Mapping[str, str], annotation: Annotation) -> tuple[str, str, float | None] | None:
    """Key, value, and the number that the value is, or None where it is none; None without the annotation."""
    found = annotation.find(annotations)
    if found is None:
        return None
    try:
        return (*found, parse_float(found[1]))
    except GoValueError:
        return (*found, None)


def _percentages(annotations: Mapping[str, str]) -> Iterator[FieldError]:
    for annotation, (lower, upper) in (
        (autoscaling.PANIC_WINDOW, autoscaling.PANIC_WINDOW_PERCENTAGE),
        (autoscaling.PANIC_THRESHOLD, autoscaling.PANIC_THRESHOLD_PERCENTAGE),
        (autoscaling.UTILIZATION, autoscaling.TARGET_UTILIZATION_PERCENTAGE),
    ):
        found = _number(annotations, annotation)
        if found is None:
            continue
        key, value, number = found
        if number is None:
            yield _invalid(value, key)
        elif number < lower or number > upper:  # NaN is neither, and Knative takes it
            yield _outside(value, float_text(lower), float_text(upper), key)


def _targets(annotations: Mapping[str, str]) -> Iterator[FieldError]:
    found = _number(annotations, autoscaling.TARGET)
    if found is not None:
        key, value, number = found
        if number is None:
            yield _invalid(value, key)
        elif number < autoscaling.TARGET_MIN:
            least = float_text(autoscaling.TARGET_MIN)
            yield FieldError(f"target {value} should be at least {least}", (key,))
    found = _number(annotations, autoscaling.BURST_CAPACITY)
    if found is not None:
        key, value, number = found
        if number is None or (number < 0 and number != -1):
            yield _invalid(value, key)


def _durations(annotations: Mapping[str, str]) -> Iterator[FieldError]:
    for annotation, lower_ns, is_in_seconds in (
        (autoscaling.WINDOW, autoscaling.WINDOW_MIN_NS, True),
        (autoscaling.POD_RETENTION, 0, False),
        (autoscaling.SCALE_DOWN_DELAY, 0, True),
    ):
        found = annotation.find(annotations)
        if found is None:
            continue
        key, value = found
        try:
            duration_ns = parse_duration(value)
        except GoValueError:
            yield _invalid(value, key)
            continue
        upper_ns = autoscaling.WINDOW_MAX_NS
        if not lower_ns <= duration_ns <= upper_ns:
            yield _outside(value, duration_text(lower_ns), duration_text(upper_ns), key)
        elif is_in_seconds and duration_ns % SECOND_NS:
            yield FieldError(_PRECISION, (key,))


def _metric(annotations: Mapping[str, str], config: AutoscalerConfig) -> Iterator[FieldError]:
    found = autoscaling.METRIC.find(annotations)
    if found is None:
        return
    named = autoscaling.CLASS.find(annotations)
    autoscaler_class = config.pod_autoscaler_class if named is None else named[1]
    if autoscaler_class == autoscaling.KPA:
        is_known = found[1] in (autoscaling.CONCURRENCY, autoscaling.RPS)
    else:
        # A horizontal pod autoscaler may know any metric that has a name; of other classes nothing is known here.
        is_known = autoscaler_class != autoscaling.HPA or found[1] != ""
    if not is_known:
        yield _invalid(found[1], found[0])


def _aggregation(annotations: Mapping[str, str]) -> Iterator[FieldError]:
    named = autoscaling.CLASS.find(annotations)
    found = autoscaling.AGGREGATION.find(annotations)
    # Knative looks at it only where the class is written out.
    if named is None or named[1] != autoscaling.KPA or found is None or found[1] == "":
        return
    if found[1] not in (
        autoscaling.LINEAR, autoscaling.WEIGHTED_EXPONENTIAL, autoscaling.WEIGHTED_EXPONENTIAL_OLD
    ):  # fmt: skip
        yield _invalid(found[1], found[0])


def _initial_scale(annotations: Mapping[str, str], config: AutoscalerConfig) -> Iterator[FieldError]:
    found = autoscaling.INITIAL_SCALE.find(annotations)
    if found is None:
        return
    key, value = found
    try:
        scale = parse_int(value, 64)
    except GoValueError:
        yield _invalid(value, key)
        return
    if scale < 0:
        yield _invalid(value, f"{key} must be greater than 0")
    elif scale == 0 and not config.allow_zero_initial_scale:
        yield _invalid(value, f"{key}{NOT_BY_CLUSTER}")
