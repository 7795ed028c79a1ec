"""What Envoy asks and is answered: the messages of its ext_authz and access log services, bytes <-> values, pure.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/auth/v3/external_auth.proto
https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/accesslog/v3/als.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from glowplug.spec import names
from glowplug.wire.protobuf import BYTES, field_bytes, field_varint, fields

CHECK = "/envoy.service.auth.v3.Authorization/Check"
LOGS = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"

_UNAVAILABLE = 14
_OVERWRITE_IF_EXISTS_OR_ADD = 2
_REMEMBERED = 4096


def asked_headers(question: bytes) -> dict[str, str]:
    """The headers of the request that a CheckRequest is about. Raises InferenceError for what is no such message."""
    # attributes.request.http.headers, a map.
    return dict(_map(view) for view in _path(memoryview(question), (1, 4, 2, 3)))


def ended_holds(entries: bytes) -> list[str]:
    """The holds whose requests are over, from a StreamAccessLogsMessage. Raises InferenceError as above."""
    # http_logs.log_entry.request.request_headers, a map with this one header.
    headers = (_map(view) for view in _path(memoryview(entries), (2, 1, 3, 13)))
    return [value for key, value in headers if key == names.HOLD_HEADER]


@lru_cache(_REMEMBERED)
def admitted(address: str) -> bytes:
    """The CheckResponse that sends a request to `address`."""
    ok = field_bytes(2, _header(names.DESTINATION_HEADER, address))
    return field_bytes(1, b"") + field_bytes(3, ok)


def refused(reason: str) -> bytes:
    """The CheckResponse that makes Envoy answer 503 (UNAVAILABLE to a gRPC client), with the reason."""
    status = field_bytes(1, field_varint(1, 503))
    denied = status + field_bytes(3, reason.encode())
    return field_bytes(1, field_varint(1, _UNAVAILABLE)) + field_bytes(2, denied)


def _header(key: str, value: str) -> bytes:
    pair = field_bytes(1, key.encode()) + field_bytes(2, value.encode())
    return field_bytes(1, pair) + field_varint(3, _OVERWRITE_IF_EXISTS_OR_ADD)


def _path(message: memoryview, numbers: tuple[int, ...]) -> Iterator[memoryview]:
    """Every submessage that is reached by these field numbers."""
    first, *rest = numbers
    for number, wire, value in fields(message):
        if number == first and wire == BYTES:
            if rest:
                yield from _path(value, tuple(rest))
            else:
                yield value


def _map(entry: memoryview) -> tuple[str, str]:
    texts = {number: str(value, "utf-8", "replace") for number, wire, value in fields(entry) if wire == BYTES}
    return texts.get(1, ""), texts.get(2, "")
