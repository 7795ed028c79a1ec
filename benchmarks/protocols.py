"""A request as bytes, and the numbers in its answer, for each protocol that the servers are compared on.

Written with KServe's own protobuf classes and plain JSON, not with glowplug's code: it judges glowplug's answers too.
"""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

JSON, BINARY, GRPC, RAW = "v2_json", "v2_binary", "v2_grpc", "raw"
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH = "Inference-Header-Content-Length"
_TIMEOUT_S = 30.0
_DATATYPES = {"float32": "FP32", "int64": "INT64", "float64": "FP64"}
_DTYPES = {name: dtype for dtype, name in _DATATYPES.items()}


# Deep models differ by rounding between engines.
ROUNDING = 1e-3


class WrongAnswer(Exception):
    """A status other than 200, or other numbers than the model's own."""


@dataclass(frozen=True)
class Request:
    """What is sent: the path, the headers, the body, and the numbers that must come back, within `tolerance` of the
    largest of them (or of 1)."""

    protocol: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    expected: Any
    tolerance: float = ROUNDING


def request(protocol: str, model: str, arrays: Mapping[str, Any], expected: Any) -> Request:
    """The request of `protocol` for named arrays (float32 or int64)."""
    path = f"/v2/models/{model}/infer"
    if protocol == RAW:
        body = b"".join(array.tobytes() for array in arrays.values())
        return Request(protocol, "/predict", {"Content-Type": "application/octet-stream"}, body, expected)
    if protocol == GRPC:
        return Request(protocol, GRPC_METHOD, {}, _grpc_body(model, arrays), expected)
    if protocol == BINARY:
        headers, body = _binary_body(arrays)
        return Request(protocol, path, headers, body, expected)
    document = {"id": "1", "inputs": [_json_tensor(name, array) for name, array in arrays.items()]}
    return Request(
        protocol, path, {"Content-Type": "application/json"}, json.dumps(document).encode(), expected
    )


def _json_tensor(name: str, array: Any) -> dict[str, Any]:
    datatype = _DATATYPES[str(array.dtype)]
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype,
        "data": array.reshape(-1).tolist(),
    }


def _binary_body(arrays: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    inputs = [
        {
            "name": name, "shape": list(array.shape), "datatype": _DATATYPES[str(array.dtype)],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]  # fmt: skip
    document = {"id": "1", "inputs": inputs, "parameters": {"binary_data_output": True}}
    head = json.dumps(document).encode()
    headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}
    return headers, head + b"".join(array.tobytes() for array in arrays.values())


def _grpc_body(model: str, arrays: Mapping[str, Any]) -> bytes:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    message = pb.ModelInferRequest(model_name=model, id="1")
    for name, array in arrays.items():
        message.inputs.add(name=name, datatype=_DATATYPES[str(array.dtype)], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    body: bytes = message.SerializeToString()
    return body


def framed(message: bytes) -> bytes:
    """A gRPC message with its prefix: not compressed, length."""
    return b"\0" + struct.pack(">I", len(message)) + message


class Caller:
    """Asks a server and compares the answer; HTTP on a new connection each time, as servers close idle ones."""

    def __init__(self, http_port: int, grpc_port: int) -> None:
        self._http_port = http_port
        self._http = http.client.HTTPConnection("127.0.0.1", http_port, timeout=_TIMEOUT_S)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}") if grpc_port else None

    def call(self, sent: Request) -> int:
        """The answer's size in bytes. Raises `WrongAnswer`."""
        if sent.protocol == GRPC:
            return self._call_grpc(sent)
        try:
            self._http.request("POST", sent.path, sent.body, dict(sent.headers))
            response = self._http.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise WrongAnswer(f"no answer: {error!r}") from error
        finally:
            self._http.close()
        if response.status != 200:
            raise WrongAnswer(f"status {response.status}: {content[:200]!r}")
        if sent.expected is not None:
            _compare(_http_numbers(sent.protocol, response.headers, content), sent)
        return len(content)

    def _call_grpc(self, sent: Request) -> int:
        assert self._channel is not None
        method = self._channel.unary_unary(sent.path)
        try:
            content: bytes = method(sent.body, timeout=_TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            raise WrongAnswer(f"{error.code()}: {error.details()}") from error
        _compare(_grpc_numbers(content), sent)
        return len(framed(content))

    def is_ready(self, path: str = "/v2/health/ready") -> bool:
        """Whether the path is answered with 200. Raises OSError where nobody listens."""
        try:
            self._http.request("GET", path)
            response = self._http.getresponse()
            response.read()
            return response.status == 200
        except http.client.HTTPException:
            return False
        finally:
            self._http.close()

    def close(self) -> None:
        self._http.close()
        if self._channel is not None:
            self._channel.close()


def _compare(found: Any, sent: Request) -> None:
    wanted = np.asarray(sent.expected, dtype=np.float64).reshape(-1)
    numbers = np.asarray(found, dtype=np.float64).reshape(-1)
    tolerance = sent.tolerance * max(1.0, float(np.abs(wanted).max()))
    if numbers.shape != wanted.shape or float(np.abs(numbers - wanted).max()) > tolerance:
        raise WrongAnswer(f"answered {numbers[:4].tolist()}, expected {wanted[:4].tolist()}")


def _http_numbers(protocol: str, headers: Mapping[str, str], content: bytes) -> Any:
    if protocol == RAW:
        return np.frombuffer(content, dtype="<f4")
    length = headers.get(_LENGTH)
    document = json.loads(content[: int(length)] if length else content)
    output = document["outputs"][0]
    if "data" in output:
        return output["data"]
    return _first_binary(output, content[int(length or 0) :])


def _first_binary(output: Mapping[str, Any], content: bytes) -> Any:
    size = output["parameters"]["binary_data_size"]
    return np.frombuffer(content[:size], dtype=_DTYPES[output["datatype"]])


def _grpc_numbers(content: bytes) -> Any:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    message = pb.ModelInferResponse.FromString(content)
    output = message.outputs[0]
    if message.raw_output_contents:
        return np.frombuffer(message.raw_output_contents[0], dtype=_DTYPES[output.datatype])
    contents: Sequence[float] = output.contents.fp32_contents or output.contents.fp64_contents
    return contents
