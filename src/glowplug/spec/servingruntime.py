"""ServingRuntime and ClusterServingRuntime: the templates that InferenceServices with a `model` are run by.

Source: kserve pkg/webhook/admission/servingruntime. Values in braces (`{{.Name}}`) are filled in later.
"""

from __future__ import annotations

from collections.abc import Iterator

from glowplug.errors import Problem
from glowplug.spec import names, pods
from glowplug.spec.inferenceservice import PROTOCOLS
from glowplug.spec.validation import (
    DNS_1123_SUBDOMAIN,
    INVALID,
    Object,
    as_int,
    as_list,
    as_object,
    as_text,
    forbidden,
    invalid,
    metadata,
    metadata_problems,
    required,
    under,
    unsupported,
)

# Fields that only ModelMesh reads.
_MODEL_MESH = (
    "builtInAdapter",
    "grpcDataEndpoint",
    "grpcEndpoint",
    "httpDataEndpoint",
    "replicas",
    "storageHelper",
)


def validate(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a runtime."""
    del old  # every field of a runtime may change
    name = as_text(metadata(obj).get("name"))
    spec = as_object(obj.get("spec"))
    return (
        *(
            invalid("metadata.name", name, fault)
            for fault in (DNS_1123_SUBDOMAIN.faults(name) if name else ())
        ),
        *under("spec", _spec(spec)),
    )


def warnings(obj: Object) -> tuple[str, ...]:
    """Parts of a runtime that have no effect here."""
    spec = as_object(obj.get("spec"))
    fields = [field for field in _MODEL_MESH if spec.get(field) is not None]
    found = []
    if spec.get("multiModel") is True:
        found.append(
            "spec.multiModel: the local machine selects runtimes for single models only; this one never is"
        )
    elif fields:
        found.append(f"spec: {', '.join(fields)}: read by ModelMesh only")
    placing = pods.ignored(spec)
    if placing:
        found.append(
            f"spec: {', '.join(placing)}: without effect on the local machine, where pods are processes"
        )
    return tuple(found)


def _spec(spec: Object) -> Iterator[Problem]:
    if spec.get("workerSpec") is not None:
        yield forbidden("workerSpec", "the local machine is one node; it runs no multi-node models")
    for index, protocol in enumerate(as_list(spec.get("protocolVersions"))):
        if isinstance(protocol, str) and protocol not in PROTOCOLS:
            yield unsupported(f"protocolVersions[{index}]", protocol, PROTOCOLS)
    yield from _formats(spec)
    yield from metadata_problems(spec, "")
    yield from pods.validate(spec, is_kserve=True, is_complete=False)
    containers = [as_object(item) for item in as_list(spec.get("containers"))]
    if spec.get("multiModel") is True:
        return
    if not any(container.get("name") == names.SERVING_CONTAINER for container in containers):
        yield required("containers", f"one container must be named {names.SERVING_CONTAINER}")


def _formats(spec: Object) -> Iterator[Problem]:
    priorities: dict[str, int] = {}
    for index, item in enumerate(as_list(spec.get("supportedModelFormats"))):
        model_format, path = as_object(item), f"supportedModelFormats[{index}]"
        name, priority = as_text(model_format.get("name")), as_int(model_format.get("priority"))
        if not name:
            yield required(f"{path}.name")
        if priority is None:
            continue
        if priority < 1:
            yield invalid(f"{path}.priority", priority, "should be greater than or equal to 1")
        if model_format.get("autoSelect") is True and priorities.setdefault(name, priority) != priority:
            message = f"different priorities assigned for the model format {name[:80]}"
            yield Problem(f"{path}.priority", message, INVALID)
