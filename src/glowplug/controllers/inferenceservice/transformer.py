"""`spec.transformer` → the transformer component, a Knative Service of its own. Pure.

Source: KServe's components/transformer.go and pkg/apis/serving/v1beta1/transformer_custom.go, which adds the arguments
by which the transformer finds its predictor.
"""

from __future__ import annotations

from glowplug.spec import names
from glowplug.spec.components import STORAGE_URI_ENV

from ..metadata import Object, annotations_of, at, copied, name_of, namespace_of
from .annotations import of_logger, passed_on
from .component import EXTENSION_FIELDS, TRANSFORMER, Component, env_value, make_component
from .predictor import predictor_name

_HTTP_PORT = "8080"


def transformer_name(isvc: Object) -> str:
    """The name of the transformer's Knative Service."""
    return f"{name_of(isvc)}-{TRANSFORMER}"


def build_transformer(isvc: Object) -> Component:
    """The transformer of a defaulted and valid InferenceService that has one."""
    spec = at(isvc, "spec", "transformer") or {}
    containers = copied(spec.get("containers") or [])
    containers[0]["args"] = _with_arguments(isvc, spec, containers[0].get("args") or [])
    annotations = passed_on(annotations_of(isvc))
    uri = env_value(containers[0], STORAGE_URI_ENV)
    if uri:
        annotations[names.STORAGE_SOURCE_URI] = uri
    annotations |= of_logger(spec.get("logger"))
    pod_spec = {key: copied(value) for key, value in spec.items() if key not in EXTENSION_FIELDS}
    pod_spec["containers"] = containers
    return make_component(isvc, TRANSFORMER, transformer_name(isvc), spec, pod_spec, annotations)


def _with_arguments(isvc: Object, spec: Object, args: list[str]) -> list[str]:
    wanted = [
        ("--model_name", name_of(isvc)),
        ("--predictor_host", f"{predictor_name(isvc)}.{namespace_of(isvc)}"),
        ("--http_port", _HTTP_PORT),
    ]
    if spec.get("containerConcurrency") is not None:
        wanted.append(("--workers", str(spec["containerConcurrency"])))
    result = list(args)
    for flag, value in wanted:
        if not any(argument.startswith(flag) for argument in args):
            result += [flag, value]
    return result
