"""`predict`: one inference call by the name of the InferenceService, REST or gRPC.

The address is the InferenceService's own `status.url`. Where that name cannot be resolved (a cluster without DNS),
`--gateway` names the address that answers for it, and the name goes along as the Host header.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import httpx2

from glowplug.cli.kube import Cluster, hinted
from glowplug.errors import ConfigError, GlowplugError, InferenceError
from glowplug.spec.kinds import INFERENCE_SERVICE
from glowplug.spec.times import parse_time

Object = dict[str, Any]
_STOP = "serving.kserve.io/stop"
# Until then a service that says nothing of itself is taken for one that nothing has looked at yet.
_NEW_S = 10.0
_GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_MAX_MESSAGE_BYTES = 256 * 1024 * 1024


def service_url(cluster: Cluster, name: str) -> str:
    """Where the InferenceService answers; an error that shows its conditions while it does not."""
    root = f"/apis/{INFERENCE_SERVICE.api_version}/namespaces/{cluster.namespace}/{INFERENCE_SERVICE.plural}"
    with hinted("isvc"):
        service = cluster.get(f"{root}/{name}")
    status = service.get("status") or {}
    if url := status.get("url"):
        return str(url)
    if is_stopped(service):
        raise GlowplugError(f'InferenceService "{name}" is stopped', hint=start_hint(name))
    raise GlowplugError(
        f'InferenceService "{name}" has no URL yet: {why_unready(service)}',
        hint=f"`kubectl get isvc {name} -w` shows when it has one; `glowplug logs {name}` shows its output",
    )


def is_stopped(service: Object) -> bool:
    """Whether the InferenceService is annotated to be stopped."""
    return str((service["metadata"].get("annotations") or {}).get(_STOP, "")).lower() == "true"


def start_hint(name: str) -> str:
    """How a stopped InferenceService is started."""
    return f"`kubectl annotate isvc {name} {_STOP}-` starts it"


def why_unready(service: Object) -> str:
    """What the InferenceService says of why it is not ready."""
    conditions = (service.get("status") or {}).get("conditions", ())
    ready: Object = next((c for c in conditions if c["type"] == "Ready"), {})
    said = ready.get("message") or ready.get("reason")
    created = parse_time(service["metadata"].get("creationTimestamp", ""))
    is_new = created is not None and (datetime.now(timezone.utc) - created).total_seconds() < _NEW_S
    return str(said or ("it was applied a moment ago" if is_new else "it does not say why"))


def predict_rest(url: str, model: str, body: bytes, *, gateway: str | None, timeout_s: float) -> Object:
    """The answer to a V2 body, or to a V1 body (one that holds `instances`)."""
    request = _parsed(body)
    path = f"/v1/models/{model}:predict" if "instances" in request else f"/v2/models/{model}/infer"
    target, headers = _target(url, gateway)
    try:
        response = httpx2.post(
            target + path,
            content=body,
            headers={"Content-Type": "application/json", **headers},
            timeout=timeout_s,
            trust_env=False,
        )
    except httpx2.TransportError as error:
        raise InferenceError(f"{target}{path} cannot be reached: {error}", code=503) from error
    if response.status_code != 200:
        raise InferenceError(
            f"{target}{path} answered {response.status_code}: {response.text.strip()[:2000]}"
        )
    answer: Object = response.json()
    return answer


def predict_grpc(url: str, model: str, body: bytes, *, gateway: str | None, timeout_s: float) -> Object:
    """The answer to the same V2 JSON body, sent and received as V2 gRPC."""
    try:
        import grpc

        from glowplug.wire import v2_grpc, v2_json
    except ImportError as error:
        raise ConfigError(f"--grpc needs {error.name}", hint="pip install 'glowplug[serving]'") from error
    request = v2_json.decode_request(body, model_name=model)
    target, headers = _target(url, gateway)
    parts = urlsplit(target)
    options: list[tuple[str, int | str]] = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
    if host := headers.get("Host"):
        options.append(("grpc.default_authority", host))
    with grpc.insecure_channel(parts.netloc, options=options) as channel:
        call = channel.unary_unary(parts.path.rstrip("/") + _GRPC_METHOD)
        try:
            raw: bytes = call(v2_grpc.encode_infer_request(request), timeout=timeout_s)
        except grpc.RpcError as error:
            hint = (
                "has the program a gRPC port? name it in args: --grpc_port=8081"
                if "reset" in error.details()
                else ""
            )
            raise InferenceError(
                f"{target} answered {error.code().name}: {error.details()}", hint=hint
            ) from error
    answer: Object = json.loads(v2_json.encode_response(v2_grpc.decode_infer_response(raw))[0])
    return answer


def _target(url: str, gateway: str | None) -> tuple[str, dict[str, str]]:
    if gateway is None:
        return url.rstrip("/"), {}
    parts = urlsplit(url)
    return gateway.rstrip("/") + parts.path.rstrip("/"), {"Host": parts.netloc}


def _parsed(body: bytes) -> Object:
    try:
        request = json.loads(body)
    except ValueError as error:
        raise InferenceError(
            f"the request is not JSON: {error}",
            hint='a V2 body looks like {"inputs": [{"name": …, "shape": …}]}',
        ) from error
    if not isinstance(request, dict) or not {"inputs", "instances"} & request.keys():
        raise InferenceError(
            "the request has neither `inputs` (V2) nor `instances` (V1)",
            hint='a V2 body looks like {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}',
        )
    return request
