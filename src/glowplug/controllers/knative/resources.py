"""The objects that Knative's controllers make, each from its owner. Pure.

Source: the `resources` packages under knative.dev/serving pkg/reconciler. A pod is made in `pods`.
"""

from __future__ import annotations

from glowplug.spec import kinds, names
from glowplug.spec.revisions import default_spec

from ..keys import ROUTES_ANNOTATION
from ..metadata import (
    Object,
    annotations_of,
    at,
    child_name,
    generation_of,
    labels_of,
    name_of,
    namespace_of,
    reference_to,
    timestamp,
    uid_of,
)
from .labels import (
    ACTIVE,
    CONFIGURATION_UID,
    KPA_CLASS,
    LAST_APPLIED,
    PENDING,
    ROLLOUT_DURATION,
    ROUTING_STATE,
    ROUTING_STATE_MODIFIED,
    SERVICE_UID,
    autoscaler_annotations,
    child_labels,
)
from .pods import is_h2c


def make_configuration(service: Object, existing: Object | None) -> Object:
    """The Configuration of a defaulted Service; routes that `existing` is labelled with are kept."""
    excluded = (LAST_APPLIED, *ROLLOUT_DURATION)
    annotations = {k: v for k, v in annotations_of(service).items() if k not in excluded}
    routes = {part for part in annotations_of(existing or {}).get(ROUTES_ANNOTATION, "").split(",") if part}
    annotations[ROUTES_ANNOTATION] = ",".join(sorted(routes | {name_of(service)}))
    labels = {names.SERVICE_LABEL: name_of(service), SERVICE_UID: uid_of(service)}
    return _child(
        kinds.CONFIGURATION,
        service,
        {**labels_of(service), **labels},
        annotations,
        {"template": at(service, "spec", "template") or {}},
    )


def make_route(service: Object) -> Object:
    """The Route of a defaulted Service; targets without a revision lead to the Service's Configuration."""
    annotations = {k: v for k, v in annotations_of(service).items() if k != LAST_APPLIED}
    to_latest = {"configurationName": name_of(service)}
    traffic = [
        target if target.get("revisionName") else {**target, **to_latest}
        for target in at(service, "spec", "traffic") or ()
    ]
    labels = {**labels_of(service), names.SERVICE_LABEL: name_of(service)}
    return _child(kinds.ROUTE, service, labels, annotations, {"traffic": traffic})


def revision_name(configuration: Object) -> str:
    """The name of the revision of this generation: the template's own, or numbered."""
    named = at(configuration, "spec", "template", "metadata", "name")
    return str(named or child_name(name_of(configuration), f"-{generation_of(configuration):05d}"))


def make_revision(configuration: Object, now: float) -> Object:
    """The revision of the Configuration's current generation."""
    template = at(configuration, "spec", "template") or {}
    labels = dict(at(template, "metadata", "labels") or {})
    annotations = dict(at(template, "metadata", "annotations") or {})
    labels[names.CONFIGURATION_LABEL] = name_of(configuration)
    labels[names.CONFIGURATION_GENERATION_LABEL] = str(generation_of(configuration))
    labels[CONFIGURATION_UID] = uid_of(configuration)
    for key in (names.SERVICE_LABEL, SERVICE_UID):
        if labels_of(configuration).get(key):
            labels[key] = labels_of(configuration)[key]
    routes = annotations_of(configuration).get(ROUTES_ANNOTATION)
    if routes:
        annotations[ROUTES_ANNOTATION] = routes
    labels[ROUTING_STATE] = ACTIVE if routes else PENDING
    annotations[ROUTING_STATE_MODIFIED] = timestamp(now)
    return {
        "apiVersion": kinds.REVISION.api_version,
        "kind": kinds.REVISION.name,
        "metadata": {
            "name": revision_name(configuration),
            "namespace": namespace_of(configuration),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [reference_to(kinds.CONFIGURATION, configuration)],
        },
        "spec": default_spec(template.get("spec") or {}),
    }


def make_autoscaler(revision: Object, reachability: str) -> Object:
    """The PodAutoscaler of a revision. Its target is named as the Deployment that a cluster would have."""
    annotations = {
        names.AUTOSCALING_CLASS: KPA_CLASS,
        names.AUTOSCALING_METRIC: "concurrency",
        **autoscaler_annotations(revision),
    }
    spec: Object = {
        "protocolType": "h2c" if is_h2c(revision["spec"]) else "http1",
        **({"reachability": reachability} if reachability else {}),
        "scaleTargetRef": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": f"{name_of(revision)}-deployment",
        },
    }
    concurrency = at(revision, "spec", "containerConcurrency")
    if concurrency:
        spec["containerConcurrency"] = concurrency
    return {
        "apiVersion": kinds.POD_AUTOSCALER.api_version,
        "kind": kinds.POD_AUTOSCALER.name,
        "metadata": {
            "name": name_of(revision),
            "namespace": namespace_of(revision),
            "labels": child_labels(revision),
            "annotations": annotations,
            "ownerReferences": [reference_to(kinds.REVISION, revision)],
        },
        "spec": spec,
    }


def _child(
    kind: kinds.Kind, service: Object, labels: dict[str, str], annotations: dict[str, str], spec: Object
) -> Object:
    metadata: Object = {
        "name": name_of(service),
        "namespace": namespace_of(service),
        "labels": labels,
        "ownerReferences": [reference_to(kinds.KNATIVE_SERVICE, service)],
    }
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}
