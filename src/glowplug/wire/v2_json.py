"""V2 over HTTP: JSON, and JSON with binary tensors after it (`Inference-Header-Content-Length`).

Requests and responses, both directions, as the Open Inference Protocol and its binary tensor extension define them.
A request is judged by its body and by that one header; its content type says nothing (clients get it wrong).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from glowplug.errors import InferenceError
from glowplug.wire.binary import decode_raw, encode_raw
from glowplug.wire.datatypes import find_datatype
from glowplug.wire.json_data import decode_data, encode_data
from glowplug.wire.tensors import (
    NO_PARAMETERS,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
    Tensor,
    check_names,
    check_shape,
    kind_of,
)

HEADER_LENGTH = "inference-header-content-length"
MAX_NAME = 1024
MAX_TENSORS = 65536


def parse_json(body: bytes | memoryview, what: str = "the body") -> Any:
    """Any JSON. Raises InferenceError (400) with the place, never the text."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = ""
        if b"NaN" in bytes(body) or b"Infinity" in bytes(body):
            hint = "NaN and Infinity are not JSON; write null for a missing value"
        raise InferenceError(
            f"{what} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})", hint=hint
        ) from None


def decode_request(
    body: bytes,
    *,
    model_name: str,
    header_length: str | None = None,
    model_version: str = "",
    accepts_missing: bool = False,
) -> InferRequest:
    """A V2 request from a body; `header_length` is that header's value. Raises InferenceError (400)."""
    document, tail = _split(body, header_length)
    return decode_request_document(
        document, tail, model_name=model_name, model_version=model_version, accepts_missing=accepts_missing
    )


def decode_request_document(
    document: Any,
    tail: memoryview | None = None,
    *,
    model_name: str,
    model_version: str = "",
    accepts_missing: bool = False,
) -> InferRequest:
    """A V2 request from parsed JSON and the bytes after it. Raises InferenceError (400)."""
    document = _object(document, "the request")
    if "inputs" not in document and "instances" in document:
        raise InferenceError(
            "'inputs' is missing, expected an array of tensors "
            f"(this is a V1 body: POST it to /v1/models/{model_name}:predict)"
        )
    inputs = _decode_tensors(document, "inputs", tail, accepts_missing=accepts_missing)
    asked = document.get("outputs")
    outputs: tuple[RequestedOutput, ...] = ()
    if asked:
        outputs = tuple(_decode_output(item, index) for index, item in enumerate(_array(asked, "outputs")))
    return InferRequest(
        model_name,
        inputs,
        _text(document, "id"),
        outputs,
        _parameters(document, "the request"),
        model_version,
        document=document,
    )


def decode_response(body: bytes, *, header_length: str | None = None) -> InferResponse:
    """A V2 response from a body. Raises InferenceError (400) where it is none."""
    document, tail = _split(body, header_length)
    return decode_response_document(document, tail)


def decode_response_document(document: Any, tail: memoryview | None = None) -> InferResponse:
    """A V2 response from parsed JSON and the bytes after it. Missing values are let through."""
    document = _object(document, "the response")
    outputs = _decode_tensors(document, "outputs", tail, accepts_missing=True)
    return InferResponse(
        _text(document, "model_name"),
        outputs,
        _text(document, "id"),
        _text(document, "model_version"),
        _parameters(document, "the response"),
    )


def encode_response(response: InferResponse, request: InferRequest | None = None) -> tuple[bytes, int | None]:
    """Body and header length (None: all JSON), in the form and with the outputs that the request asks for.

    Raises InferenceError (400) where it asks for an output that is not there.
    """
    binary_default = bool(request and request.parameters.get("binary_data_output"))
    wanted: list[tuple[Tensor, bool]]
    if request is not None and request.outputs:
        wanted = [
            (response.output(asked.name), bool(asked.parameters.get("binary_data", binary_default)))
            for asked in request.outputs
        ]
    else:
        wanted = [(tensor, binary_default) for tensor in response.outputs]
    document: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version:
        document["model_version"] = response.model_version
    if response.id:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    return _join(document, "outputs", wanted)


def encode_request(request: InferRequest, *, binary: bool = False) -> tuple[bytes, int | None]:
    """Body and header length of a request; `binary` sends every tensor in the binary form, and asks for it."""
    document: dict[str, Any] = {}
    if request.id:
        document["id"] = request.id
    parameters = dict(request.parameters)
    if binary:
        parameters["binary_data_output"] = True
    if parameters:
        document["parameters"] = parameters
    if request.outputs:
        document["outputs"] = [
            {"name": asked.name, **({"parameters": dict(asked.parameters)} if asked.parameters else {})}
            for asked in request.outputs
        ]
    return _join(document, "inputs", [(tensor, binary) for tensor in request.inputs])


def dump_json(value: Any) -> bytes:
    """JSON of Python values and numpy arrays."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def _split(body: bytes, header_length: str | None) -> tuple[Any, memoryview | None]:
    if header_length is None:
        return parse_json(body), None
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 19:
        raise InferenceError("Inference-Header-Content-Length is not a whole number")
    length = int(header_length)
    if length > len(body):
        raise InferenceError(
            f"Inference-Header-Content-Length is {length}, the body has only {len(body)} bytes"
        )
    view = memoryview(body)
    return parse_json(view[:length], "the JSON part of the body"), view[length:]


def _decode_tensors(
    document: Mapping[str, Any], key: str, tail: memoryview | None, *, accepts_missing: bool
) -> tuple[Tensor, ...]:
    if key not in document:
        raise InferenceError(f"{key!r} is missing, expected an array of tensors")
    tensors: list[Tensor] = []
    offset = 0
    for index, item in enumerate(_array(document[key], key)):
        if type(item) is not dict:
            raise InferenceError(f"{key}[{index}] is {kind_of(item)}, expected an object")
        tensor, used = _decode_tensor(item, key, index, tail, offset, accepts_missing)
        tensors.append(tensor)
        offset += used
    if tail is not None and offset != len(tail):
        raise InferenceError(f"{len(tail) - offset} bytes are left after the last binary tensor")
    if len(tensors) > 1:
        check_names(tensors, key[:-1])
    return tuple(tensors)


def _decode_tensor(
    item: dict[str, Any], key: str, index: int, tail: memoryview | None, offset: int, accepts_missing: bool
) -> tuple[Tensor, int]:
    """The tensor, and how many bytes of the tail it took."""
    name = _name(item, key, index)
    datatype = find_datatype(name, item.get("datatype")).name
    if "shape" not in item:
        raise InferenceError(f"tensor {name!r}: shape is missing")
    shape = check_shape(name, item["shape"])
    # What is told where something is wrong is put together only then, or not at all: most tensors have none.
    parameters = _parameters(item, f"tensor {name!r}") if "parameters" in item else NO_PARAMETERS
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in item:
            raise InferenceError(f"tensor {name!r}: neither data nor binary_data_size")
        data = decode_data(name, datatype, shape, item["data"], accepts_missing=accepts_missing)
        return Tensor(name, datatype, shape, data, parameters), 0
    if "data" in item:
        raise InferenceError(f"tensor {name!r}: both data and binary_data_size")
    raw = _slice(name, size, tail, offset)
    data = decode_raw(name, datatype, shape, raw, accepts_missing=accepts_missing)
    rest = {key: value for key, value in parameters.items() if key != "binary_data_size"}
    return Tensor(name, datatype, shape, data, rest), len(raw)


def _slice(name: str, size: Any, tail: memoryview | None, offset: int) -> memoryview:
    if type(size) is not int or size < 0:
        raise InferenceError(f"tensor {name!r}: binary_data_size is not a whole number")
    if tail is None:
        raise InferenceError(
            f"tensor {name!r}: binary_data_size without the header Inference-Header-Content-Length"
        )
    if offset + size > len(tail):
        raise InferenceError(
            f"tensor {name!r}: binary_data_size is {size}, the body has {len(tail) - offset} bytes left"
        )
    return tail[offset : offset + size]


def _decode_output(item: Any, index: int) -> RequestedOutput:
    where = f"outputs[{index}]"
    item = _object(item, where)
    return RequestedOutput(_name(item, "outputs", index), _parameters(item, where))


def _join(document: dict[str, Any], key: str, tensors: list[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    parts: list[bytes] = []
    items: list[dict[str, Any]] = []
    for tensor, is_binary in tensors:
        item: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if is_binary:
            raw = encode_raw(tensor)
            item["parameters"] = {**tensor.parameters, "binary_data_size": len(raw)}
            parts.append(raw)
        else:
            item["data"] = encode_data(tensor)
            if tensor.parameters:
                item["parameters"] = dict(tensor.parameters)
        items.append(item)
    document[key] = items
    head = dump_json(document)
    if not parts:
        return head, None
    return b"".join([head, *parts]), len(head)


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InferenceError(f"{where} is {kind_of(value)}, expected an object")
    return value


def _array(value: Any, where: str) -> list[Any]:
    if type(value) is not list:
        raise InferenceError(f"{where!r} is {kind_of(value)}, expected an array")
    if len(value) > MAX_TENSORS:
        raise InferenceError(f"{where!r} has {len(value)} items, at most {MAX_TENSORS} allowed")
    return value


def _name(item: Mapping[str, Any], key: str, index: int) -> str:
    name = item.get("name")
    if type(name) is not str or not name or len(name) > MAX_NAME:
        raise InferenceError(
            f"{key}[{index}]: name is missing, or not a string of 1 to {MAX_NAME} characters"
        )
    return name


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise InferenceError(f"{key!r} is {kind_of(value)}, expected a string")
    return value


def _parameters(item: Mapping[str, Any], where: str) -> Parameters:
    parameters = item.get("parameters")
    if parameters is None:
        return NO_PARAMETERS
    for key, value in _object(parameters, f"{where}: parameters").items():
        if type(value) not in (bool, int, float, str):
            raise InferenceError(
                f"{where}: parameter {key[:80]!r} is {kind_of(value)}, expected a string, number or boolean"
            )
    return parameters  # type: ignore[no-any-return]
