"""Requests and answers, for the tests of the shadow."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from glowplug.copies.exchange import Exchange, Message
from glowplug.spec import names
from glowplug.wire import v2_grpc, v2_json
from glowplug.wire.tensors import InferResponse, Tensor

GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
ABOUT = {
    names.COPY_SERVICE: "default/flights",
    names.COPY_REVISION: "default/flights-00001",
    names.COPY_SHADOW: "default/flights-00002",
}
REQUEST = {":method": "POST", ":path": "/v2/models/flights/infer", ":authority": "flights.default"}
POD_TIME = "x-envoy-upstream-service-time"


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Message:
    return Message({":status": str(status), **{k.replace("_", "-"): v for k, v in headers.items()}}, body)


def as_json(document: Any, **headers: str) -> Message:
    return answer(orjson.dumps(document), content_type="application/json", **headers)


def response(*values: float, id: str = "") -> InferResponse:
    return InferResponse("flights", (Tensor.from_numpy("y", np.array(values, np.float32)),), id=id)


def as_v2(*values: float, id: str = "") -> Message:
    body, _ = v2_json.encode_response(response(*values, id=id))
    return answer(body, content_type="application/json")


def as_grpc(*values: float, code: int = 0) -> Message:
    message = v2_grpc.encode_infer_response(response(*values))
    body = b"\0" + len(message).to_bytes(4, "big") + message
    headers = {"content-type": "application/grpc", "grpc-status": str(code)}
    return Message({":status": "200", **headers}, b"" if code else body)


def exchange(body: bytes = b"{}", reply: Message | None = None, **about: str) -> Exchange:
    return Exchange({**ABOUT, **about}, Message(REQUEST, body), reply or as_v2(1.0))
