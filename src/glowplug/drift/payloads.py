"""What payload events say: the features that were asked about, the predictions that came back, the labels.

Bodies are as the model server had them: V1 or V2 JSON, V2 with binary tensors behind the JSON, V2 gRPC messages. What
cannot be read, or has not the profile's features, is said in a few words that are the same for the same fault: they
are counted by it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from glowplug.drift.grid import Floats
from glowplug.errors import InferenceError
from glowplug.wire import v1, v2_grpc, v2_json
from glowplug.wire.cloudevents import media_type
from glowplug.wire.events import CloudEvent, EventProblem
from glowplug.wire.tensors import InferRequest, InferResponse, Tensor

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
LABEL = "dev.glowplug.label.observed"
REVISION_HEADER = "knative-serving-revision"
VERSION = "glowplug.dev/version"
MAX_ROWS = 1_000_000
# A label beyond what a 32-bit number holds is a mistake, and its square may be infinite: no sum would recover.
MAX_LABEL = 3.4e38

_GRPC_TYPES = ("application/grpc", "application/grpc+proto", "application/x-protobuf", "application/protobuf")
_GRPC_PREFIX = 5
# Field 1 of a message, of type bytes: the model's name, with which every V2 message begins.
_MESSAGE_START = b"\x0a"
_MODEL = "model"


class Unfit(Exception):
    """A body that is not what the profile knows; the message is short and names no values."""


@dataclass(frozen=True)
class Labels:
    """NaN where unknown; float64 [rows]."""

    id: str
    inferenceservice: str
    namespace: str
    values: Floats


def features_of(event: CloudEvent, names: Sequence[str]) -> tuple[Floats, str]:
    """float32 [rows, names], and the request's own id ("" where it has none). Raises Unfit."""
    try:
        request = _request(event)
        return _matrix(request, names), request.id
    except InferenceError as error:
        raise Unfit(f"not readable: {error.message[:80]}") from error


def predictions_of(event: CloudEvent) -> tuple[Floats, str]:
    """float32 [rows], and the answer's own id. Of several outputs the first; of classes the likeliest's number.

    Raises Unfit.
    """
    try:
        response = _response(event)
    except InferenceError as error:
        raise Unfit(f"not readable: {error.message[:80]}") from error
    if not response.outputs or response.outputs[0].datatype == "BYTES":
        raise Unfit("the answer has no numbers")
    values = np.asarray(response.outputs[0].as_numpy(), dtype=np.float32)
    if values.ndim > 1 and math.prod(values.shape[1:]) > 1:
        values = values.reshape(len(values), -1).argmax(axis=1).astype(np.float32)
    return values.reshape(-1)[:MAX_ROWS], response.id


def labels_of(event: CloudEvent) -> Labels:
    """The labels in a `label.observed`. Raises EventProblem that names what is wrong."""
    if not event.text("subject"):
        raise EventProblem("subject is missing, expected the id of the request that the labels are of")
    try:
        document = orjson.loads(event.data or b"")
    except orjson.JSONDecodeError as error:
        raise EventProblem(f"data is not JSON: {error}") from None
    if type(document) is not dict:
        raise EventProblem(
            "data is no object, expected inferenceservice, namespace (default: default) and labels"
        )
    name, namespace = document.get("inferenceservice"), document.get("namespace", "default")
    for what, value in (("inferenceservice", name), ("namespace", namespace)):
        if type(value) is not str or not value:
            raise EventProblem(f"data.{what} = {str(value)[:80]}, expected a name")
    labels = document.get("labels")
    if type(labels) is not list or not 0 < len(labels) <= MAX_ROWS:
        raise EventProblem(f"data.labels must be an array of 1 to {MAX_ROWS} numbers, null where unknown")
    for place, value in enumerate(labels):
        if value is not None and not (type(value) in (int, float) and abs(value) <= MAX_LABEL):
            raise EventProblem(
                f"data.labels[{place}] = {str(value)[:80]!r}, expected null or a number up to {MAX_LABEL}"
            )
    values = np.array([math.nan if value is None else float(value) for value in labels])
    return Labels(event.text("subject"), str(name), str(namespace), values)


def revision_of(event: CloudEvent) -> str:
    """The revision that answered: a header that the logger was told to copy; "" where it was not."""
    try:
        document = orjson.loads(event.text("metadata") or "{}")
        found = {str(name).lower(): value for name, value in document.items()}.get(REVISION_HEADER, "")
        return str(found[0] if type(found) is list and found else found or "")[:253]
    except (ValueError, AttributeError):
        return ""


def version_of(event: CloudEvent) -> str:
    """The version that answered: what a rollout has stamped its pods with, else the revision; "" where neither is told.

    In a cluster no event tells the revision: Knative's queue-proxy takes the header off before KServe's agent sees it.
    """
    try:
        found = orjson.loads(event.text("annotations") or "{}").get(VERSION)
    except (ValueError, AttributeError):
        found = None
    return found[:253] if type(found) is str and found else revision_of(event)


def _request(event: CloudEvent) -> InferRequest:
    data = event.data or b""
    if (message := _message(event, data)) is not None:
        return v2_grpc.decode_infer_request(message, accepts_missing=True)
    document, tail = _parts(event, data)
    if type(document) is dict and type(document.get("inputs")) is list and _is_v2(document["inputs"]):
        return v2_json.decode_request_document(document, tail, model_name=_MODEL, accepts_missing=True)
    return v1.decode_request(document, model_name=_MODEL, accepts_missing=True)


def _response(event: CloudEvent) -> InferResponse:
    data = event.data or b""
    if (message := _message(event, data)) is not None:
        return v2_grpc.decode_infer_response(message)
    document, tail = _parts(event, data)
    if type(document) is dict and "outputs" in document:
        return v2_json.decode_response_document(document, tail)
    return v1.decode_response(document, model_name=_MODEL)


def _message(event: CloudEvent, data: bytes) -> bytes | None:
    """The gRPC message in an event, without the prefix that it has in a stream; None where it is JSON."""
    is_grpc = media_type(event.text("datacontenttype")) in _GRPC_TYPES
    if data[:1] == b"\0" and len(data) >= _GRPC_PREFIX:
        length = int.from_bytes(data[1:_GRPC_PREFIX], "big")
        if length == len(data) - _GRPC_PREFIX:
            return data[_GRPC_PREFIX:]
    # A newline may also begin JSON; then what follows is no length of a name.
    looks_so = data[:1] == _MESSAGE_START and data.lstrip()[:1] not in (b"{", b"[")
    return data if is_grpc or looks_so else None


def _parts(event: CloudEvent, data: bytes) -> tuple[Any, memoryview | None]:
    """The JSON document, and the binary tensors behind it.

    Where the JSON ends is said by a header, which glowplug's logger hands on and KServe's does not; and by the JSON
    itself.
    """
    length = event.text("headerlength")
    if length.isdecimal() and len(length) < 10:
        return v2_json.parse_json(data[: int(length)]), memoryview(data)[int(length) :]
    try:
        return orjson.loads(data), None
    except orjson.JSONDecodeError:
        pass
    try:
        _, end = json.JSONDecoder().raw_decode(data.decode("latin-1"))
    except (ValueError, RecursionError):
        raise InferenceError("the body is not JSON") from None
    return v2_json.parse_json(data[:end]), memoryview(data)[end:]


def _is_v2(inputs: list[Any]) -> bool:
    return not inputs or (type(inputs[0]) is dict and "datatype" in inputs[0])


def _matrix(request: InferRequest, names: Sequence[str]) -> Floats:
    if len(request.inputs) == 1 and (request.inputs[0].name not in names or len(names) == 1):
        return _of_one(request.inputs[0], len(names))
    found = {tensor.name: tensor for tensor in request.inputs}
    absent = [name for name in names if name not in found]
    unknown = [name for name in found if name not in names]
    if absent or unknown:
        what = f"no {absent[0][:60]!r}" if absent else f"unknown {unknown[0][:60]!r}"
        more = len(absent) + len(unknown) - 1
        raise Unfit(what + (f" and {more} more" if more else ""))
    columns = [_numbers(found[name]).reshape(-1) for name in names]
    if len({len(column) for column in columns}) > 1:
        raise Unfit("columns of different length")
    return np.stack(columns, axis=1)[:MAX_ROWS]


def _of_one(tensor: Tensor, width: int) -> Floats:
    values = _numbers(tensor)
    if values.ndim == 1:
        values = values.reshape(-1, width) if width == 1 or len(values) == width else values.reshape(1, -1)
    rows = values.reshape(len(values), -1) if values.size else values.reshape(0, width)
    if rows.shape[1] != width:
        raise Unfit(f"{rows.shape[1]} features, expected {width}")
    return np.asarray(rows[:MAX_ROWS])


def _numbers(tensor: Tensor) -> Floats:
    if tensor.datatype == "BYTES":
        raise Unfit(f"{tensor.name[:60]!r} is text")
    return np.asarray(tensor.as_numpy(), dtype=np.float32)
