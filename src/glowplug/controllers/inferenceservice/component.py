"""One component (predictor or transformer) of an InferenceService, and the Knative Service that it becomes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.spec import kinds, knativeservice, names

from ..metadata import Object, labels_of, name_of, namespace_of, reference_to
from .annotations import MANAGED, VISIBILITY_LABEL, of_scaling, passed_on
from .merging import with_env
from .runtimes import Runtime

PREDICTOR = "predictor"
TRANSFORMER = "transformer"

# Fields of a component that are neither a PodSpec's nor an implementation's (ComponentExtensionSpec).
EXTENSION_FIELDS = (
    "minReplicas",
    "maxReplicas",
    "scaleTarget",
    "scaleMetric",
    "scaleMetricType",
    "autoScaling",
    "containerConcurrency",
    "timeout",
    "canaryTrafficPercent",
    "logger",
    "batcher",
    "labels",
    "annotations",
    "deploymentStrategy",
    "name",
    "storageContainerName",
)


@dataclass(frozen=True)
class Component:
    """What a component is to run: a pod template, before Knative's part."""

    type: str
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    pod_spec: Object
    extension: Object
    runtime: Runtime | None = None


def make_component(
    isvc: Object,
    type: str,
    name: str,
    spec: Object,
    pod_spec: Object,
    annotations: dict[str, str],
    runtime: Runtime | None = None,
) -> Component:
    """Puts a component together; labels and annotations of the component win over the InferenceService's, and those
    over the runtime's. `annotations` are the InferenceService's with what the component adds."""
    runtime_spec = runtime.spec if runtime else {}
    containers = [with_env(c, "INFERENCE_SERVICE_NAME", name_of(isvc)) for c in pod_spec["containers"]]
    return Component(
        type=type,
        name=name,
        labels={
            **(runtime_spec.get("labels") or {}),
            **labels_of(isvc),
            **(spec.get("labels") or {}),
            names.INFERENCE_SERVICE_LABEL: name_of(isvc),
            names.COMPONENT_LABEL: type,
        },
        annotations={
            **passed_on(runtime_spec.get("annotations")),
            **annotations,
            **passed_on(spec.get("annotations")),
        },
        pod_spec={**pod_spec, "containers": containers},
        extension={field: spec[field] for field in EXTENSION_FIELDS if spec.get(field) is not None},
        runtime=runtime,
    )


def make_knative_service(isvc: Object, component: Component, rolled_out: str | None) -> Object:
    """The Knative Service of a component. `rolled_out` is the revision that last had all the traffic, if any."""
    annotations = {**component.annotations, **of_scaling(component.extension, component.annotations)}
    managed = {key: annotations.pop(key) for key in MANAGED if key in annotations}
    template = {
        "metadata": {
            "labels": {key: value for key, value in component.labels.items() if key != VISIBILITY_LABEL},
            "annotations": annotations,
        },
        "spec": {**component.pod_spec, **_revision_fields(component.extension)},
    }
    metadata: Object = {
        "name": component.name,
        "namespace": namespace_of(isvc),
        "labels": component.labels,
        "ownerReferences": [reference_to(kinds.INFERENCE_SERVICE, isvc)],
    }
    if managed:
        metadata["annotations"] = managed
    has_tags = annotations.get(names.ENABLE_TAG_ROUTING) == "true"
    percent = component.extension.get("canaryTrafficPercent")
    service: Object = {
        "apiVersion": kinds.KNATIVE_SERVICE.api_version,
        "kind": kinds.KNATIVE_SERVICE.name,
        "metadata": metadata,
        "spec": {
            "template": template,
            "traffic": traffic_block(percent, rolled_out, has_tags),
        },
    }
    return knativeservice.default_service(service)


def traffic_block(percent: int | None, rolled_out: str | None, has_tags: bool) -> list[Object]:
    """The canary split: `percent` to the latest revision, the rest to the one that is rolled out.

    Without a percentage, or before anything is rolled out, all goes to the latest (blue-green).
    """
    is_canary = percent is not None and bool(rolled_out)
    share = percent if percent is not None and is_canary else 100
    latest: Object = {"latestRevision": True, "percent": share}
    if has_tags:
        latest["tag"] = "latest"
    if share == 100:
        return [latest]
    previous = {"revisionName": rolled_out, "latestRevision": False, "percent": 100 - share, "tag": "prev"}
    return [latest, previous]


def env_value(container: Object, name: str) -> str | None:
    """The plain value of an environment variable of a container."""
    for entry in container.get("env") or ():
        if entry.get("name") == name:
            return str(entry.get("value") or "")
    return None


def _revision_fields(extension: Object) -> Object:
    fields: Object = {}
    if extension.get("timeout") is not None:
        fields["timeoutSeconds"] = extension["timeout"]
        fields["responseStartTimeoutSeconds"] = extension["timeout"]
    if extension.get("containerConcurrency") is not None:
        fields["containerConcurrency"] = extension["containerConcurrency"]
    return fields
