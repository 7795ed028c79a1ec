"""V1 over HTTP: `{"instances": [...]}` or `{"inputs": ...}` in, `{"predictions": [...]}` out.

V1 says neither names nor datatypes of tensors; both come from what the model declares. Three forms are taken: rows
that are values or arrays (one tensor), rows that are objects, and an object of columns (a tensor for each name).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from glowplug.errors import InferenceError
from glowplug.wire.datatypes import DATATYPES
from glowplug.wire.json_data import convert, infer_shape, rows_of
from glowplug.wire.tensors import InferRequest, InferResponse, Tensor, kind_of
from glowplug.wire.v2_grpc import TensorMetadata
from glowplug.wire.v2_json import MAX_NAME, MAX_TENSORS

DEFAULT_NAME = "input-0"


def payload_of(document: Any) -> Any:
    """What is under `instances` or `inputs`. Raises InferenceError (400) where neither or both are there."""
    if type(document) is not dict:
        raise InferenceError(f"the request is {kind_of(document)}, expected an object with 'instances'")
    keys = [key for key in ("instances", "inputs") if key in document]
    if len(keys) != 1:
        found = "both 'instances' and 'inputs' are there" if keys else "'instances' is missing"
        raise InferenceError(f"{found}, expected one of 'instances' (rows) and 'inputs' (rows or columns)")
    payload = document[keys[0]]
    if type(payload) is not list and not (keys[0] == "inputs" and type(payload) is dict):
        raise InferenceError(f"{keys[0]!r} is {kind_of(payload)}, expected an array")
    return payload


def decode_request(
    document: Any, *, model_name: str, declared: Sequence[TensorMetadata] = (), accepts_missing: bool = False
) -> InferRequest:
    """A V1 request as a V2 one. `declared` are the model's inputs. Raises InferenceError (400)."""
    payload = payload_of(document)
    if _is_v2(payload):
        raise InferenceError(f"this is a V2 body: POST it to /v2/models/{model_name}/infer")
    if type(payload) is list and payload and type(payload[0]) is dict and not _is_binary(payload[0]):
        payload = _columns(payload)
    specs = {spec.name: spec for spec in declared}
    if type(payload) is dict:
        if len(payload) > MAX_TENSORS:
            raise InferenceError(f"{len(payload)} columns, at most {MAX_TENSORS} allowed")
        inputs = tuple(
            _tensor(name, column, specs.get(name), accepts_missing) for name, column in payload.items()
        )
    else:
        spec = declared[0] if declared else None
        inputs = (_tensor(spec.name if spec else DEFAULT_NAME, payload, spec, accepts_missing),)
    request_id = document.get("id")
    return InferRequest(model_name, inputs, request_id if type(request_id) is str else "", document=document)


def encode_response(response: InferResponse) -> dict[str, Any]:
    """`predictions`: the rows of the only output, or for several an object a row.

    Outputs of different length have no rows; they are written by name.
    """
    if len(response.outputs) == 1:
        return {"predictions": rows_of(response.outputs[0])}
    columns = {tensor.name: rows_of(tensor) for tensor in response.outputs}
    if len({len(column) for column in columns.values()}) > 1:
        return {"predictions": columns}
    return {
        "predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    }


def encode_request(request: InferRequest) -> dict[str, Any]:
    """`instances`: the rows of the only input, or for several an object a row."""
    predictions = encode_response(InferResponse(request.model_name, request.inputs))["predictions"]
    return {"instances" if type(predictions) is list else "inputs": predictions}


def decode_response(document: Any, *, model_name: str) -> InferResponse:
    """`predictions` as one tensor `predictions`, or one for each name. Raises InferenceError (400)."""
    predictions = document.get("predictions") if type(document) is dict else None
    if type(predictions) is not list and type(predictions) is not dict:
        raise InferenceError("the answer has no 'predictions'")
    if type(predictions) is list and predictions and type(predictions[0]) is dict:
        predictions = _columns(predictions)
    columns = predictions if type(predictions) is dict else {"predictions": predictions}
    outputs = tuple(_tensor(name, column, None, True) for name, column in columns.items())
    return InferResponse(model_name, outputs)


def _is_v2(payload: Any) -> bool:
    """Whether rows are V2's tensors: {"name": "x", "datatype": "FP32", "shape": [1], ...}."""
    if type(payload) is not list or not payload or type(payload[0]) is not dict:
        return False
    first = payload[0]
    return (
        type(first.get("name")) is str
        and type(first.get("shape")) is list
        and first.get("datatype") in DATATYPES
    )


def _columns(rows: list[Any]) -> dict[str, list[Any]]:
    names = rows[0].keys()
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for index, row in enumerate(rows):
        if type(row) is not dict or row.keys() != names:
            raise InferenceError(f"instances[{index}] has other names than instances[0]")
        for name, value in row.items():
            columns[name].append(value)
    return columns


def _tensor(name: str, data: Any, spec: TensorMetadata | None, accepts_missing: bool) -> Tensor:
    if not name or len(name) > MAX_NAME:
        raise InferenceError(f"a column's name is empty, or longer than {MAX_NAME} characters")
    if type(data) is not list:
        data = [data]
    shape, flat = infer_shape(name, data)
    flat = [_plain(name, item) if type(item) is dict else item for item in flat]
    datatype = spec.datatype if spec is not None else _guess(name, flat)
    kind = DATATYPES[datatype]
    return Tensor(name, datatype, shape, convert(name, kind, shape, flat, accepts_missing=accepts_missing))


def _is_binary(item: Mapping[str, Any]) -> bool:
    return item.keys() == {"b64"}


def _plain(name: str, item: Mapping[str, Any]) -> bytes:
    """TensorFlow Serving's way to put bytes into JSON: {"b64": "..."}."""
    if not _is_binary(item) or type(item["b64"]) is not str:
        raise InferenceError(f"tensor {name!r}: an object where a value was expected")
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise InferenceError(f"tensor {name!r}: 'b64' is not base64") from None


def _guess(name: str, flat: list[Any]) -> str:
    """The datatype of values for which the model declares none."""
    types = set(map(type, flat))
    if types <= {bool} and types:
        return "BOOL"
    if types <= {str, bytes} and types:
        return "BYTES"
    if types <= {int} and types and min(flat) >= -(2**63) and max(flat) < 2**63:
        return "INT64"
    if types <= {int, float, type(None)}:
        return "FP64"
    raise InferenceError(f"tensor {name!r}: values of different kinds")
