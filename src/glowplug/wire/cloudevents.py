"""CloudEvents 1.0 over HTTP, binary and structured, as KServe takes and answers them.

`time` is optional, as the specification has it. Reading needs only headers and body; what an answer needs of the
world (an id, the time) is passed in.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from glowplug.errors import InferenceError
from glowplug.wire.tensors import kind_of
from glowplug.wire.v2_json import dump_json, parse_json

STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch"
RESPONSE_TYPE = "io.kserve.inference.response"
RESPONSE_SOURCE = "io.kserve.inference.{model}"
_REQUIRED = ("specversion", "id", "source", "type")


@dataclass(frozen=True)
class Event:
    """An event that carried a request: its attributes (without the data) and which form it had."""

    attributes: Mapping[str, str]
    is_binary: bool


@dataclass(frozen=True)
class ResponsePolicy:
    """How answers are labelled; KServe's environment variables CE_TYPE, CE_SOURCE and CE_MERGE."""

    type: str = RESPONSE_TYPE
    source: str = ""
    merges_request: bool = False


def media_type(content_type: str) -> str:
    """The media type without parameters, lower-case."""
    return content_type.partition(";")[0].strip().lower()


def is_event(headers: Mapping[str, str]) -> bool:
    """Whether headers (lower-case names) announce an event in either form, or a batch."""
    return "ce-specversion" in headers or media_type(headers.get("content-type", "")).startswith(
        "application/cloudevents"
    )


def decode(headers: Mapping[str, str], body: bytes) -> tuple[Event, bytes | Any]:
    """The event, and its data: bytes in binary form, parsed JSON in structured form. Raises InferenceError (400)."""
    if "ce-specversion" in headers:
        attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
        _check(attributes)
        return Event(attributes, True), body
    content_type = media_type(headers.get("content-type", ""))
    if content_type.startswith(BATCH_TYPE):
        raise InferenceError("a batch of CloudEvents, expected one event", code=415)
    if content_type != STRUCTURED_TYPE:
        raise InferenceError(f"CloudEvents as {content_type[:80]}, expected {STRUCTURED_TYPE}", code=415)
    return decode_structured(parse_json(body))


def looks_structured(document: Any) -> bool:
    """Whether parsed JSON is a structured event though its content type does not say so, as KServe allows."""
    return type(document) is dict and "data" in document and all(key in document for key in _REQUIRED)


def decode_structured(document: Any) -> tuple[Event, Any]:
    """The event and its data from parsed JSON. Raises InferenceError (400)."""
    if type(document) is not dict:
        raise InferenceError(f"the CloudEvent is {kind_of(document)}, expected an object")
    attributes = {
        key: value if type(value) is str else str(value)
        for key, value in document.items()
        if key not in ("data", "data_base64") and type(value) in (str, int, bool)
    }
    _check(attributes)
    if "data_base64" in document:
        return Event(attributes, False), parse_json(_from_base64(document["data_base64"]), "data_base64")
    if "data" not in document:
        raise InferenceError("the CloudEvent has no data")
    data = document["data"]
    return Event(attributes, False), parse_json(data.encode(), "data") if type(data) is str else data


def _from_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InferenceError("data_base64 of the CloudEvent is not base64") from None


def _check(attributes: Mapping[str, str]) -> None:
    missing = [name for name in _REQUIRED if not attributes.get(name)]
    if missing:
        raise InferenceError(f"the CloudEvent has no {', '.join(missing)}")
    if not attributes["specversion"].startswith(("1.", "0.3")):
        raise InferenceError("the CloudEvent's specversion is neither 1.0 nor 0.3")


def encode_answer(
    event: Event, payload: bytes, *, model: str, policy: ResponsePolicy, event_id: str, time: str
) -> tuple[dict[str, str], bytes]:
    """Headers and body of the answer, in the form of the request. `payload` is JSON, `time` RFC 3339."""
    attributes = dict(event.attributes) if policy.merges_request else {}
    attributes.pop("datacontenttype", None)
    attributes.update(
        specversion="1.0",
        id=event_id,
        source=policy.source or RESPONSE_SOURCE.format(model=model),
        type=policy.type,
        time=time,
    )
    if event.is_binary:
        headers = {
            f"ce-{name}": quote(value, safe=" !#$&'()*+,/:;=?@[]~") for name, value in attributes.items()
        }
        return {**headers, "content-type": "application/json"}, payload
    document = dump_json({**attributes, "datacontenttype": "application/json"})
    return {"content-type": STRUCTURED_TYPE}, document[:-1] + b',"data":' + payload + b"}"
