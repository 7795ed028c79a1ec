"""KServe's annotations and labels that only this controller uses, and which of them it passes on."""

from __future__ import annotations

from glowplug.spec import logger as logger_annotations
from glowplug.spec import names

from ..knative.labels import KPA_CLASS, LAST_APPLIED, ROLLOUT_DURATION
from ..metadata import Object, annotations_of

STOP = "serving.kserve.io/stop"
DISABLE_AUTO_UPDATE = "serving.kserve.io/disable-auto-update"
MODEL_FORMAT = "modelFormat"
VISIBILITY_LABEL = "networking.knative.dev/visibility"

# Kept on the Knative Service itself instead of on its revisions.
MANAGED = (
    ROLLOUT_DURATION[0],
    "serving.knative.openshift.io/enablePassthrough",
    names.CANARY_AFFINITY,
    names.SHADOW,
)
_NOT_PASSED_ON = (
    names.MIN_SCALE,
    names.MAX_SCALE,
    names.STORAGE_SOURCE_URI,
    LAST_APPLIED,
    MODEL_FORMAT,
)


def passed_on(annotations: dict[str, str] | None) -> dict[str, str]:
    """Those that reach the revision (ServiceAnnotationDisallowedList in KServe's constants).

    The rollout's own never do, as the platform's settings have it on a cluster: each step would make a revision.
    """
    kept = {
        key: value
        for key, value in (annotations or {}).items()
        if key not in _NOT_PASSED_ON and not key.startswith(names.ROLLOUT_PREFIX)
    }
    if not kept.get(names.INITIAL_SCALE, "0").isdecimal():
        # KServe ignores one that is no number.
        del kept[names.INITIAL_SCALE]
    return kept


def is_stopped(isvc: Object) -> bool:
    return annotations_of(isvc).get(STOP, "").lower() == "true"


def of_logger(logger: Object | None) -> dict[str, str]:
    """The logger's settings as annotations, for whoever logs the payloads."""
    if logger is None:
        return {}
    found = {logger_annotations.ENABLED: "true", logger_annotations.MODE: str(logger.get("mode") or "all")}
    if logger.get("url"):
        found[logger_annotations.SINK] = logger["url"]
    for field, key in (
        ("metadataHeaders", logger_annotations.METADATA_HEADERS),
        ("metadataAnnotations", logger_annotations.METADATA_ANNOTATIONS),
    ):
        if logger.get(field) is not None:
            found[key] = ",".join(logger[field])
    return found


def of_scaling(extension: Object, existing: dict[str, str]) -> dict[str, str]:
    """The autoscaling annotations of a component; `existing` may name another autoscaler class."""
    found = {names.AUTOSCALING_CLASS: existing.get(names.AUTOSCALING_CLASS, KPA_CLASS)}
    if extension.get("scaleTarget") is not None:
        found[names.AUTOSCALING_TARGET] = str(extension["scaleTarget"])
    if extension.get("scaleMetric") is not None:
        found[names.AUTOSCALING_METRIC] = str(extension["scaleMetric"])
    minimum = extension.get("minReplicas")
    found[names.MIN_SCALE] = "1" if minimum is None else str(minimum)
    if extension.get("maxReplicas"):
        found[names.MAX_SCALE] = str(extension["maxReplicas"])
    return found
