"""Knative's labels and annotations that only the controllers read, and the states that they express."""

from __future__ import annotations

from glowplug.spec import names

from ..keys import ROUTES_ANNOTATION
from ..metadata import Object, annotations_of, at, labels_of

CONFIGURATION_UID = "serving.knative.dev/configurationUID"
SERVICE_UID = "serving.knative.dev/serviceUID"
REVISION_UID = "serving.knative.dev/revisionUID"
ROUTING_STATE = "serving.knative.dev/routingState"
ROUTING_STATE_MODIFIED = "serving.knative.dev/routingStateModified"
PRESERVED = "serving.knative.dev/no-gc"
PROGRESS_DEADLINE = "serving.knative.dev/progress-deadline"
ROLLOUT_DURATION = ("serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
AUTOSCALING_GROUP = "autoscaling.knative.dev/"
KPA_CLASS = "kpa.autoscaling.knative.dev"

PENDING = "pending"
ACTIVE = "active"
RESERVE = "reserve"

_NOT_FOR_PODS = (names.ROUTE_LABEL, ROUTING_STATE)
_NOT_FOR_CHILDREN = ("serving.knative.dev/lastPinned", PRESERVED, ROUTING_STATE_MODIFIED, ROUTES_ANNOTATION)


def routing_state(revision: Object) -> str:
    """`pending`, `active` or `reserve`; `pending` too for a revision that nobody has labelled yet."""
    return labels_of(revision).get(ROUTING_STATE) or PENDING


def child_labels(revision: Object) -> dict[str, str]:
    """The labels of a revision's pods and PodAutoscaler."""
    labels = {key: value for key, value in labels_of(revision).items() if key not in _NOT_FOR_PODS}
    labels[names.REVISION_LABEL] = str(at(revision, "metadata", "name"))
    labels[REVISION_UID] = str(at(revision, "metadata", "uid"))
    labels.setdefault("app", labels[names.REVISION_LABEL])
    return labels


def autoscaler_annotations(revision: Object) -> dict[str, str]:
    return {key: value for key, value in annotations_of(revision).items() if key not in _NOT_FOR_CHILDREN}


def pod_annotations(revision: Object) -> dict[str, str]:
    """Without the autoscaling ones: those may change on a live revision, a pod's stay as they were made."""
    annotations = autoscaler_annotations(revision)
    return {key: value for key, value in annotations.items() if not key.startswith(AUTOSCALING_GROUP)}
