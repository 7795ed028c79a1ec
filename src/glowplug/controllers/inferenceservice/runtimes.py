"""Which (Cluster)ServingRuntime serves a model. Pure.

As KServe decides it (pkg/apis/serving/v1beta1/predictor_model.go): a runtime that is named must fit; without a name,
those with autoSelect for the format compete, the namespace's own before the cluster's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..metadata import Object, at, name_of

# A model without a protocolVersion is taken to speak V1 when a runtime is chosen for it.
DEFAULT_PROTOCOL = "v1"
_PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")


@dataclass(frozen=True)
class Rejection:
    """Why an InferenceService cannot be served as it is; `reason` is one of KServe's failure reasons."""

    reason: str
    message: str


@dataclass(frozen=True)
class Runtime:
    """The runtime that was chosen."""

    name: str
    is_cluster_wide: bool
    spec: Object


def choose_runtime(
    model: Object, namespaced: Sequence[Object], cluster_wide: Sequence[Object]
) -> Runtime | Rejection:
    """The runtime for `spec.predictor.model`, from those of its namespace and those of the cluster."""
    if model.get("runtime"):
        return _named_runtime(model, namespaced, cluster_wide)
    protocol = model.get("protocolVersion") or DEFAULT_PROTOCOL
    fitting = [
        *_fitting(model, protocol, namespaced, is_cluster_wide=False),
        *_fitting(model, protocol, cluster_wide, is_cluster_wide=True),
    ]
    if fitting:
        return fitting[0]
    known = ", ".join(sorted({name_of(runtime) for runtime in [*namespaced, *cluster_wide]})) or "none"
    message = (
        f"no runtime found to support predictor with model type: {_described(model)}, protocol version {protocol}; "
        f"known runtimes: {known}"
    )
    return Rejection("NoSupportingRuntime", message)


def _named_runtime(
    model: Object, namespaced: Sequence[Object], cluster_wide: Sequence[Object]
) -> Runtime | Rejection:
    name = model["runtime"]
    found = next((r for r in namespaced if name_of(r) == name), None)
    runtime = found or next((r for r in cluster_wide if name_of(r) == name), None)
    if runtime is None:
        message = f"No ServingRuntimes or ClusterServingRuntimes with the name: {name}"
        return Rejection("RuntimeNotRecognized", message)
    spec = runtime.get("spec") or {}
    if spec.get("disabled"):
        return Rejection("RuntimeDisabled", f"specified runtime {name} is disabled")
    protocol = model.get("protocolVersion")
    if protocol and not _speaks(spec, protocol):
        message = f"specified runtime {name} does not support specified protocol version {protocol}"
        return Rejection("NoSupportingRuntime", message)
    if not _supports(spec, model, is_named=True):
        message = (
            f"specified runtime {name} does not support specified framework/version: {_described(model)}"
        )
        return Rejection("NoSupportingRuntime", message)
    return Runtime(name, found is None, spec)


def _fitting(
    model: Object, protocol: str, runtimes: Sequence[Object], is_cluster_wide: bool
) -> list[Runtime]:
    ordered = sorted(runtimes, key=name_of)
    ordered.sort(key=lambda r: str(at(r, "metadata", "creationTimestamp") or ""), reverse=True)
    ordered.sort(key=lambda r: _first_protocol(r.get("spec") or {}))
    ordered.sort(key=_by_priority(at(model, "modelFormat", "name") or ""))
    specs = [(name_of(runtime), runtime.get("spec") or {}) for runtime in ordered]
    return [
        Runtime(name, is_cluster_wide, spec)
        for name, spec in specs
        if not spec.get("disabled")
        and not spec.get("multiModel")
        and spec.get("workerSpec") is None
        and _speaks(spec, protocol)
        and _supports(spec, model, is_named=False)
    ]


def _by_priority(format_name: str) -> Callable[[Object], tuple[bool, int]]:
    def key(runtime: Object) -> tuple[bool, int]:
        formats = at(runtime, "spec", "supportedModelFormats") or ()
        priority = next(
            (entry.get("priority") for entry in formats if entry.get("name") == format_name), None
        )
        # The highest first; those without one last, in the order that they have.
        return (priority is None, -(priority or 0))

    return key


def _first_protocol(spec: Object) -> int:
    spoken = spec.get("protocolVersions") or ()
    known = [_PROTOCOLS.index(protocol) for protocol in spoken if protocol in _PROTOCOLS]
    return min(known, default=len(_PROTOCOLS))


def _speaks(spec: Object, protocol: str) -> bool:
    spoken = spec.get("protocolVersions")
    return not spoken or protocol in spoken


def _supports(spec: Object, model: Object, is_named: bool) -> bool:
    wanted = model.get("modelFormat") or {}
    for entry in spec.get("supportedModelFormats") or ():
        is_candidate = is_named or entry.get("autoSelect")
        is_format = entry.get("name") == wanted.get("name")
        if is_candidate and is_format and wanted.get("version") in (None, entry.get("version")):
            return True
    return False


def _described(model: Object) -> str:
    wanted = model.get("modelFormat") or {}
    version = f" {wanted['version']}" if wanted.get("version") else ""
    return f"{wanted.get('name') or '(none)'}{version}"
