"""CloudEvents 1.0 over HTTP for whoever hands events on: strict, and nothing of an event is changed.

Any of the three forms (binary, structured, batched) in, binary or structured out. Data are kept as the bytes that
came, JSON in a structured event too: a number that Python's floats cannot hold is still what it was. For what a model
server takes and answers see `cloudevents`, which is as lenient as KServe.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import orjson

from glowplug.errors import GlowplugError
from glowplug.wire.cloudevents import BATCH_TYPE, STRUCTURED_TYPE, media_type
from glowplug.wire.json_members import JsonProblem, array_elements, object_members

BATCH_JSON_TYPE = BATCH_TYPE + "+json"
JSON_TYPE = "application/json"
Value = str | int | bool

_REQUIRED = ("specversion", "id", "source", "type")
_NAME = re.compile(r"[a-z0-9]+")
# RFC 3339, as far as its form goes.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_MEDIA_TYPE = re.compile(r"[^\s/;]+/[^\s/;]+\s*(;.*)?", re.DOTALL)
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_INT_RANGE = range(-(2**31), 2**31)
# Printable ASCII but for the space, the quote and the percent sign.
_ESCAPED = re.compile(r'[^!-~]|["%]')
_HEADER_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class EventProblem(GlowplugError):
    """What came is no CloudEvent; `status` is HTTP's word for it. The message names the attribute."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event: its attributes, extensions among them, and its data as bytes; None where it has none."""

    attributes: Mapping[str, Value]
    data: bytes | None = None

    def text(self, name: str) -> str:
        """An attribute in its canonical string form; empty where it is absent."""
        return text_of(self.attributes.get(name, ""))

    def with_attributes(self, **changes: Value) -> CloudEvent:
        return CloudEvent({**self.attributes, **changes}, self.data)


def text_of(value: Value) -> str:
    """A value's canonical string form."""
    if value is True or value is False:
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def is_json(content_type: str) -> bool:
    """Whether a media type says JSON."""
    subtype = media_type(content_type).rpartition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def has_event(headers: Mapping[str, str]) -> bool:
    """Whether headers (names in lower case) announce an event, or several, in any form."""
    content_type = media_type(headers.get("content-type", ""))
    return "ce-specversion" in headers or content_type.startswith("application/cloudevents")


def decode(headers: Mapping[str, str], body: bytes) -> tuple[CloudEvent, ...]:
    """The events of a message; several where it is a batch. `headers` has names in lower case. Raises EventProblem."""
    content_type = media_type(headers.get("content-type", ""))
    if content_type == STRUCTURED_TYPE:
        return (_structured(_text(body), ""),)
    if content_type == BATCH_JSON_TYPE:
        return _batch(_text(body))
    if content_type.startswith("application/cloudevents"):
        what = f"CloudEvents as {content_type[:80]}, expected {STRUCTURED_TYPE} or {BATCH_JSON_TYPE}"
        raise EventProblem(what, 415)
    return (_binary(headers, body),)


def encode_binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of the binary form."""
    headers = {
        f"ce-{name}": _to_header(text_of(value))
        for name, value in event.attributes.items()
        if name != "datacontenttype"
    }
    if content_type := event.text("datacontenttype"):
        headers["content-type"] = content_type
    return headers, event.data or b""


def encode_structured(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of the structured form."""
    return {"content-type": f"{STRUCTURED_TYPE}; charset=utf-8"}, structured_json(event)


def structured_json(event: CloudEvent) -> bytes:
    """The event as a JSON object."""
    head = orjson.dumps(dict(event.attributes))
    return head if event.data is None else head[:-1] + b"," + _data_member(event, event.data) + b"}"


def _data_member(event: CloudEvent, data: bytes) -> bytes:
    content_type = event.text("datacontenttype")
    if is_json(content_type) and _is_json(data):
        return b'"data":' + data
    if media_type(content_type).startswith("text/"):
        try:
            return b'"data":' + orjson.dumps(data.decode())
        except UnicodeDecodeError:
            pass
    return b'"data_base64":"' + base64.b64encode(data) + b'"'


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _binary(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    if "ce-specversion" not in headers:
        content_type = headers.get("content-type", "none")[:80]
        raise EventProblem(
            "specversion is missing: there is no header ce-specversion, and the content type is "
            f"{content_type}, not {STRUCTURED_TYPE} or {BATCH_JSON_TYPE}"
        )
    attributes: dict[str, Value] = {
        name[3:]: _from_header(name[3:], value) for name, value in headers.items() if name.startswith("ce-")
    }
    for name in ("data", "data_base64", "datacontenttype"):
        if name in attributes:
            raise EventProblem(f"{name} must not be sent as a header ce-{name}")
    if content_type := headers.get("content-type", ""):
        attributes["datacontenttype"] = content_type
    _check(attributes, "")
    return CloudEvent(attributes, body or None)


def _from_header(name: str, value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if not value.isascii():
        # Parsers hand over bytes as Latin-1. What is not escaped is UTF-8, or else of an old client.
        with contextlib.suppress(UnicodeError):
            value = value.encode("latin-1").decode()
    try:
        return unquote(value, errors="strict") if "%" in value else value
    except UnicodeError:
        raise EventProblem(f"{name[:80]} is not UTF-8") from None


def _to_header(text: str) -> str:
    # Most have nothing to escape, which is seen in a tenth of the time.
    return quote(text, safe=_HEADER_SAFE) if _ESCAPED.search(text) else text


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EventProblem(f"the body is not UTF-8 at byte {error.start}") from None


def _batch(text: str) -> tuple[CloudEvent, ...]:
    try:
        elements = list(array_elements(text))
    except JsonProblem as error:
        raise EventProblem(f"the batch: {error}") from None
    return tuple(_structured(raw, f"event {index}: ") for index, raw in enumerate(elements))


def _structured(text: str, where: str) -> CloudEvent:
    attributes: dict[str, Value] = {}
    held: dict[str, tuple[Any, str]] = {}
    try:
        for name, value, raw in object_members(text):
            if name in attributes or name in held:
                raise EventProblem(f"{where}{name[:80]} is given twice")
            if value is None:
                continue
            if name in ("data", "data_base64"):
                held[name] = (value, raw)
            elif isinstance(value, (str, bool)) or (isinstance(value, int) and value in _INT_RANGE):
                attributes[name] = value
            else:
                raise EventProblem(
                    f"{where}{name[:80]} = {raw[:80]}, expected text, a 32-bit integer or a boolean"
                )
    except JsonProblem as error:
        raise EventProblem(f"{where}{error}") from None
    _check(attributes, where)
    return CloudEvent(attributes, _held_data(attributes, held, where))


def _held_data(attributes: dict[str, Value], held: Mapping[str, tuple[Any, str]], where: str) -> bytes | None:
    if len(held) == 2:
        raise EventProblem(f"{where}data and data_base64 are both given, expected one")
    if "data_base64" in held:
        try:
            return base64.b64decode(held["data_base64"][0], validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise EventProblem(f"{where}data_base64 is not base64") from None
    if "data" not in held:
        return None
    value, raw = held["data"]
    # Without a content type they are JSON, which a binary form has to say.
    content_type = text_of(attributes.setdefault("datacontenttype", JSON_TYPE))
    if isinstance(value, str) and not is_json(content_type):
        return value.encode("utf-8", "surrogatepass")
    return raw.encode("utf-8", "surrogatepass")


def _check(attributes: Mapping[str, Value], where: str) -> None:
    missing = [name for name in _REQUIRED if name not in attributes]
    if missing:
        raise EventProblem(f"{where}{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise EventProblem(
                f"{where}{name[:80]!r} is no attribute: names are lower-case letters and digits"
            )
        if isinstance(value, str) and _CONTROL.search(value):
            raise EventProblem(f"{where}{name} has a control character")
    if attributes["specversion"] != "1.0":
        raise EventProblem(
            f"{where}specversion = {text_of(attributes['specversion'])[:80]!r}, expected '1.0'"
        )
    for problem in _malformed(attributes):
        raise EventProblem(where + problem)


def _malformed(attributes: Mapping[str, Value]) -> Iterable[str]:
    for name in (*_REQUIRED, "subject", "time", "dataschema", "datacontenttype"):
        value = attributes.get(name)
        if value is not None and not isinstance(value, str):
            yield f"{name} = {text_of(value)}, expected text"
        elif value == "":
            yield f"{name} is empty"
    forms = {"time": (_TIME, "a time as in RFC 3339"), "dataschema": (_ABSOLUTE, "an absolute URI")}
    forms["datacontenttype"] = (_MEDIA_TYPE, "a media type")
    for name, (form, expected) in forms.items():
        value = attributes.get(name)
        if isinstance(value, str) and not form.fullmatch(value):
            yield f"{name} = {value[:80]!r}, expected {expected}"
    source = attributes.get("source")
    if isinstance(source, str) and any(character in source for character in ' "<>\\^`{|}'):
        yield f"source = {source[:80]!r}, expected a URI-reference"
