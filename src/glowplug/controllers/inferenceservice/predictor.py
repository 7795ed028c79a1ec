"""`spec.predictor` → the predictor component. Pure.

Source: KServe's pkg/controller/v1beta1/inferenceservice/components/predictor.go: a model on a runtime, with a
transformer beside it in the same pod if it names a `transformer-container`, or containers of the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from glowplug.spec import names
from glowplug.spec.components import STORAGE_URI_ENV
from glowplug.spec.inferenceservice import FRAMEWORKS

from ..metadata import Object, annotations_of, at, copied, name_of
from .annotations import of_logger, passed_on
from .component import EXTENSION_FIELDS, PREDICTOR, Component, env_value, make_component
from .merging import (
    PlaceholderError,
    container_named,
    merge_container,
    merge_pod_fields,
    replace_placeholders,
    with_image_tag,
)
from .runtimes import Rejection, Runtime, choose_runtime

# Fields of `model` that are not a container's.
_MODEL_FIELDS = (
    "modelFormat",
    "runtime",
    "storageUri",
    "runtimeVersion",
    "protocolVersion",
    "storage",
    "confidential",
)
_NOT_POD_FIELDS = (*EXTENSION_FIELDS, *FRAMEWORKS, "model", "containers", "workerSpec", "storageUris")
# Fields of a ServingRuntime that belong to the pod (ServingRuntimePodSpec).
_RUNTIME_POD_FIELDS = (
    "volumes",
    "nodeSelector",
    "affinity",
    "tolerations",
    "imagePullSecrets",
    "schedulerName",
    "resourceClaims",
)


def predictor_name(isvc: Object) -> str:
    """The name of the predictor's Knative Service."""
    variant = at(isvc, "spec", "predictor", "name")
    return f"{name_of(isvc)}-{variant}-{PREDICTOR}" if variant else f"{name_of(isvc)}-{PREDICTOR}"


def build_predictor(
    isvc: Object, namespaced: Sequence[Object], cluster_wide: Sequence[Object]
) -> Component | Rejection:
    """The predictor of a defaulted and valid InferenceService, from the runtimes of its namespace and the cluster."""
    spec = at(isvc, "spec", "predictor") or {}
    model = spec.get("model")
    uri = model.get("storageUri") if model is not None else _uri_of_containers(spec)
    annotations = {
        **passed_on(annotations_of(isvc)),
        **of_logger(spec.get("logger")),
    }
    if uri:
        annotations[names.STORAGE_SOURCE_URI] = uri
    name = predictor_name(isvc)
    if model is None:
        pod_spec = {**_pod_fields(spec), "containers": copied(spec["containers"])}
        return make_component(isvc, PREDICTOR, name, spec, pod_spec, annotations)
    runtime = choose_runtime(model, namespaced, cluster_wide)
    if isinstance(runtime, Rejection):
        return runtime
    served = _model_pod_spec(isvc, spec, model, runtime)
    if isinstance(served, Rejection):
        return served
    return make_component(isvc, PREDICTOR, name, spec, served, annotations, runtime)


def _pod_fields(spec: Object) -> Object:
    return {key: copied(value) for key, value in spec.items() if key not in _NOT_POD_FIELDS}


def _uri_of_containers(spec: Object) -> str | None:
    container = container_named(spec.get("containers"), names.SERVING_CONTAINER)
    return env_value(container, STORAGE_URI_ENV) if container else None


def _model_pod_spec(isvc: Object, spec: Object, model: Object, runtime: Runtime) -> Object | Rejection:
    provided = runtime.spec.get("containers") or []
    serving = container_named(provided, names.SERVING_CONTAINER)
    if serving is None:
        message = (
            f"failed to find {names.SERVING_CONTAINER} in the containers of ServingRuntime {runtime.name}"
        )
        return Rejection("InvalidPredictorSpec", message)
    own = {key: value for key, value in model.items() if key not in _MODEL_FIELDS}
    merged = [merge_container(serving, own), *_transformer(provided, spec.get("containers") or [])]
    try:
        containers = [replace_placeholders(container, isvc) for container in merged]
    except PlaceholderError as error:
        message = f"failed to replace placeholders in serving runtime {runtime.name}: {error}"
        return Rejection("InvalidPredictorSpec", message)
    containers[0] = with_image_tag(containers[0], model.get("runtimeVersion"))
    placed = (names.SERVING_CONTAINER, names.TRANSFORMER_CONTAINER)
    containers += [copied(c) for c in provided if c.get("name") not in placed]
    containers += [
        copied(c) for c in spec.get("containers") or () if c.get("name") != names.TRANSFORMER_CONTAINER
    ]
    fields = {key: runtime.spec[key] for key in _RUNTIME_POD_FIELDS if runtime.spec.get(key) is not None}
    return {**merge_pod_fields(fields, _pod_fields(spec)), "containers": containers}


def _transformer(provided: list[Object], own: list[Object]) -> list[Object]:
    theirs = container_named(provided, names.TRANSFORMER_CONTAINER)
    ours = container_named(own, names.TRANSFORMER_CONTAINER)
    if theirs is not None and ours is not None:
        return [merge_container(theirs, ours)]
    found = theirs if ours is None else ours
    return [found] if found is not None else []
