"""Bodies in Kubernetes' protobuf encoding, which the typed clients of newer Go programs send (`kubectl create
configmap`, `kubectl auth can-i`): bytes to the same object that JSON would have given. Pure; answers are always JSON.

The envelope is "k8s\\0" and a `runtime.Unknown`; what is inside follows `protobuf_fields.txt`. A field without a
value there is left out, as Go's `omitempty` does.
https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import orjson

from glowplug.apiserver.codec import Object
from glowplug.errors import BadRequest, UnsupportedMedia

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_MESSAGES = {
    ("v1", "Namespace"): "core.Namespace",
    ("v1", "ConfigMap"): "core.ConfigMap",
    ("v1", "Secret"): "core.Secret",
    ("v1", "ServiceAccount"): "core.ServiceAccount",
    ("v1", "Event"): "core.Event",
    ("v1", "Pod"): "core.Pod",
    ("batch/v1", "Job"): "batch.Job",
    ("coordination.k8s.io/v1", "Lease"): "coordination.Lease",
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): "authorization.SelfSubjectAccessReview",
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): "authorization.SelfSubjectRulesReview",
    ("authentication.k8s.io/v1", "SelfSubjectReview"): "authentication.SelfSubjectReview",
}
_MAX_DEPTH = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class _Field(NamedTuple):
    name: str
    type: str
    is_repeated: bool
    is_map: bool
    keeps_zero: bool
    is_inline: bool


def decode(body: bytes) -> Object:
    """The object in `body`. Raises BadRequest for broken bytes, UnsupportedMedia for a kind without a table."""
    if not body.startswith(_MAGIC):
        raise BadRequest("the body of the request is not Kubernetes protobuf: it does not begin with k8s\\0")
    try:
        return _envelope(body[len(_MAGIC) :])
    except (IndexError, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise BadRequest(f"the body of the request is broken protobuf: {error}") from error


def _envelope(data: bytes) -> Object:
    api_version = kind = ""
    raw = b""
    for number, value in _fields(data):
        if number == 1:
            meta = dict(_fields(_bytes(value)))
            api_version, kind = _text(meta.get(1, b"")), _text(meta.get(2, b""))
        elif number == 2:
            raw = _bytes(value)
    # DeleteOptions are the same in every group.
    message = "meta.DeleteOptions" if kind == "DeleteOptions" else _MESSAGES.get((api_version, kind))
    if message is None:
        raise UnsupportedMedia(
            f"{api_version} {kind} is not read as protobuf here",
            hint="send JSON or YAML: `kubectl create ... --dry-run=client -o yaml | kubectl apply -f -`",
        )
    return {"apiVersion": api_version, "kind": kind, **_message(message, raw, 0)}


@cache
def _tables() -> dict[str, dict[int, _Field]]:
    text = resources.files("glowplug.apiserver").joinpath("protobuf_fields.txt").read_text()
    lines = (line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: dict(_field(one) for one in fields if one) for name, *fields in lines}


def _field(text: str) -> tuple[int, _Field]:
    number, name, type_ = text.split(":")
    bare = type_.rstrip("!^")
    return int(number), _Field(
        name=name,
        type=bare.lstrip("*%"),
        is_repeated=bare.startswith("*"),
        is_map=bare.startswith("%"),
        keeps_zero=type_.endswith("!"),
        is_inline=type_.endswith("^"),
    )


def _message(name: str, data: bytes, depth: int) -> Object:
    if depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} levels deep")
    table = _tables()[name]
    found: Object = {}
    for number, wire in _fields(data):
        field = table.get(number)
        if field is not None:
            _put(found, field, wire, depth)
    return found


def _put(found: Object, field: _Field, wire: int | bytes, depth: int) -> None:
    if field.is_map:
        entry = dict(_fields(_bytes(wire)))
        value = _value(field.type, entry.get(2, b""), depth)
        found.setdefault(field.name, {})[_text(entry.get(1, b""))] = value
    elif field.is_repeated:
        found.setdefault(field.name, []).append(_value(field.type, wire, depth))
    elif field.is_inline:
        found.update(_value(field.type, wire, depth))
    else:
        value = _value(field.type, wire, depth)
        if value is not None and (value or field.keeps_zero):
            found[field.name] = value


def _value(type_: str, wire: int | bytes, depth: int) -> Any:
    if type_ == "i":
        return _signed(_int(wire))
    if type_ == "b":
        return bool(_int(wire))
    data = _bytes(wire)
    if type_ == "s":
        return _text(data)
    if type_ == "y":
        return base64.b64encode(data).decode()
    if type_ in _SPECIAL:
        return _SPECIAL[type_](dict(_fields(data)))
    return _message(type_, data, depth + 1)


def _time(fields: dict[int, int | bytes], timespec: str = "seconds") -> str | None:
    if not fields:
        return None
    moment = _EPOCH + timedelta(
        seconds=_signed(_int(fields.get(1, 0))), microseconds=_int(fields.get(2, 0)) // 1000
    )
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def _micro_time(fields: dict[int, int | bytes]) -> str | None:
    return _time(fields, "microseconds")


def _int_or_string(fields: dict[int, int | bytes]) -> int | str:
    is_text = _int(fields.get(1, 0)) == 1
    return _text(fields.get(3, b"")) if is_text else _signed(_int(fields.get(2, 0)))


def _quantity(fields: dict[int, int | bytes]) -> str:
    return _text(fields.get(1, b""))


def _json(fields: dict[int, int | bytes]) -> Any:
    raw = _bytes(fields.get(1, b""))
    return orjson.loads(raw) if raw else None


_SPECIAL: dict[str, Any] = {
    "time": _time,
    "microtime": _micro_time,
    "intorstring": _int_or_string,
    "quantity": _quantity,
    "raw": _json,
    "fields": _json,
}


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and their values: whole numbers, or bytes for everything that has a length."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire_type = tag & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + size > len(data):
            raise ValueError(f"cut off at byte {len(data)}")
        yield tag >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number that is too long at byte {position}")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _int(wire: int | bytes) -> int:
    if not isinstance(wire, int):
        raise ValueError("bytes where a number was expected")
    return wire


def _bytes(wire: int | bytes) -> bytes:
    if not isinstance(wire, bytes):
        raise ValueError("a number where bytes were expected")
    return wire


def _text(wire: int | bytes) -> str:
    return _bytes(wire).decode()
