"""Which requests ask a model for an answer, and what their path is to the pod. Pure.

No other request than a POST is copied, so the method may not be among the headers of a copy.
"""

from __future__ import annotations

from collections.abc import Mapping

from glowplug.spec import names

_GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
# They change what a server holds.
_CONTROL = "/v2/repository/"


def is_inference(about: Mapping[str, str], request: Mapping[str, str]) -> bool:
    """Whether a request asks a model for an answer, and is no shadow's own."""
    if request.get(":method", "POST") != "POST" or names.SHADOW_HEADER in request:
        return False
    if request.get("content-type", "").startswith("application/grpc"):
        return request.get(":path", "").removeprefix(about.get(names.COPY_PREFIX, "")) == _GRPC_METHOD
    return _CONTROL not in request.get(":path", "")
