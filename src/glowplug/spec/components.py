"""What predictor and transformer have in common: replicas, scaling, limits, logging. The rules are KServe's.

Source: kserve pkg/apis/serving/v1beta1/component.go and inference_service_validation.go, for Knative mode. Fields of
a problem are relative to the component.
"""

from __future__ import annotations

from collections.abc import Iterator

from glowplug.errors import Problem
from glowplug.spec import autoscaling, autoscaling_validation, pods, storageuri
from glowplug.spec.revisions import annotation_problems
from glowplug.spec.validation import (
    Object,
    annotations_of,
    as_int,
    as_list,
    as_object,
    as_text,
    forbidden,
    invalid,
    metadata_problems,
    out_of_bounds,
    required,
    unsupported,
)

_MODES = ("all", "request", "response")
_MIN_REPLICAS = 1  # KServe's default
_REFUSED = {
    "batcher": "the local machine gathers no requests into batches beside the model",
    "storageUris": "the local machine brings one model to a pod; use storageUri",
    "storageContainerName": "the local machine has one way to fetch a model; use storageUri",
}
# Fields that steer autoscalers which Knative mode does not use.
_WITHOUT_EFFECT = ("autoScaling", "scaleMetricType")
STORAGE_URI_ENV = "STORAGE_URI"
PROTOCOL_ENV = "PROTOCOL"


def validate(component: Object) -> Iterator[Problem]:
    """Problems of everything but the containers."""
    yield from _replicas(component)
    yield from _scaling(component)
    concurrency = as_int(component.get("containerConcurrency"))
    if concurrency is not None and concurrency < 0:
        yield invalid("containerConcurrency", concurrency, "parallelism cannot be less than 0")
    else:
        yield from pods.concurrency(concurrency, "containerConcurrency")
    yield from pods.timeout(as_int(component.get("timeout")), "timeout")
    percent = as_int(component.get("canaryTrafficPercent"))
    if percent is not None and not 0 <= percent <= 100:
        yield out_of_bounds("canaryTrafficPercent", percent, 0, 100)
    if isinstance(component.get("logger"), dict):
        yield from _logger(component["logger"])
    for field, why in _REFUSED.items():
        if component.get(field) is not None:
            yield forbidden(field, why)
    if component.get("deploymentStrategy") is not None:
        yield forbidden(
            "deploymentStrategy", "customizing deploymentStrategy is only supported for raw deployment mode"
        )
    yield from metadata_problems(component, "")
    yield from annotation_problems(
        autoscaling_validation.problems(annotations_of({"metadata": component})), "annotations"
    )


def ignored(component: Object) -> list[str]:
    """Fields that are written and have no effect here, as paths relative to the component."""
    fields = [field for field in _WITHOUT_EFFECT if component.get(field) not in (None, {}, [])]
    logger = as_object(component.get("logger"))
    fields += [
        f"logger.{field}" for field in ("batchInterval", "batchSize", "marshallerUrl") if logger.get(field)
    ]
    return [*fields, *pods.ignored(component)]


def _replicas(component: Object) -> Iterator[Problem]:
    lower, upper = as_int(component.get("minReplicas")), as_int(component.get("maxReplicas"))
    if lower is not None and lower < 0:
        yield invalid("minReplicas", lower, "'MinReplicas' cannot be less than 0")
    if upper is not None and upper < 0:
        yield invalid("maxReplicas", upper, "'MaxReplicas' cannot be less than 0")
    wanted = _MIN_REPLICAS if lower is None else lower
    if upper is not None and 0 < upper < wanted:
        yield invalid(
            "minReplicas", wanted, f"'MinReplicas' cannot be greater than MaxReplicas, which is {upper}"
        )


def _scaling(component: Object) -> Iterator[Problem]:
    metric = component.get("scaleMetric")
    if isinstance(metric, str) and metric not in autoscaling.METRICS:
        if metric in ("cpu", "memory"):
            why = f"[{metric}] is not a supported metric in Knative mode"
        elif metric.lower() == "qps":
            why = "[qps] is not a supported metric; requests per second is called rps"
        else:
            why = f"[{metric[:80]}] is not a supported metric"
        yield unsupported("scaleMetric", metric, autoscaling.METRICS, why)
    target = as_int(component.get("scaleTarget"))
    if target is not None and target < 1:
        name = metric if metric in autoscaling.METRICS else "concurrency"
        yield invalid("scaleTarget", target, f"the target for {name} should be 1 or more")


def _logger(logger: Object) -> Iterator[Problem]:
    mode = logger.get("mode")
    if not mode:
        yield required("logger.mode", f"one of {', '.join(_MODES)}")
    elif isinstance(mode, str) and mode not in _MODES:
        yield unsupported("logger.mode", mode, _MODES, "invalid logger type")
    if logger.get("storage") is not None:
        yield forbidden("logger.storage", "the local machine sends the events to logger.url only")
    url = as_text(logger.get("url"))
    if url and not url.startswith(("http://", "https://")):
        yield invalid("logger.url", url, "must begin with http:// or https://")


def validate_storage_env(component: Object) -> Iterator[Problem]:
    """STORAGE_URI of a custom container, which brings a model to it; a collocated transformer must not have one."""
    for index, item in enumerate(as_list(component.get("containers"))):
        container = as_object(item)
        for position, entry in enumerate(as_list(container.get("env"))):
            env = as_object(entry)
            if env.get("name") != STORAGE_URI_ENV:
                continue
            field = f"containers[{index}].env[{position}]"
            if container.get("name") == "transformer-container":
                yield forbidden(field, "storage uri should not be specified in transformer container")
            else:
                yield from storageuri.validate(as_text(env.get("value")), f"{field}.value")
