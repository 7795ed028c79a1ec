"""What RFC 9113 (8.2, 8.3) asks of the fields of a request, a response and trailers."""

from __future__ import annotations

import re
from functools import lru_cache

from glowplug.wire.http2.frames import PROTOCOL_ERROR, StreamFailed
from glowplug.wire.http2.header_coding import Field, Headers

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+", re.ASCII)
# CR, LF and NUL would end a field in HTTP/1.1; spaces around a value are nobody's meaning.
_BAD_VALUE = re.compile(r"[\r\n\0]|^[ \t]|[ \t]$")
_OF_A_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_OF_A_REQUEST = frozenset({":method", ":scheme", ":path", ":authority"})


def request_headers(fields: list[Field]) -> Headers:
    """The fields of a request as a dict, pseudo-header fields among them. Raises StreamFailed."""
    headers = _collect(fields, _OF_A_REQUEST)
    path = headers.get(":path")
    if headers.get(":method") == "CONNECT":
        if path is not None or ":scheme" in headers or ":authority" not in headers:
            raise StreamFailed(PROTOCOL_ERROR, "a CONNECT request has :authority alone")
    elif not path or ":method" not in headers or ":scheme" not in headers:
        raise StreamFailed(PROTOCOL_ERROR, "a request needs :method, :scheme and :path")
    elif headers.get("te", "trailers") != "trailers":
        raise StreamFailed(PROTOCOL_ERROR, "te is something else than trailers")
    return headers


def response_headers(fields: list[Field]) -> Headers:
    """The fields of a response, or of its trailers (without `:status`), as a dict. Raises StreamFailed."""
    headers = _collect(fields, frozenset({":status"}))
    status = headers.get(":status", "200")
    if len(status) != 3 or not status.isdigit():
        raise StreamFailed(PROTOCOL_ERROR, ":status is no number")
    return headers


def trailers(fields: list[Field]) -> Headers:
    """The fields that follow a request's body. Raises StreamFailed."""
    return _collect(fields, frozenset())


def _collect(fields: list[Field], pseudo: frozenset[str]) -> Headers:
    headers: Headers = {}
    is_regular = False
    for name, value in fields:
        if name[:1] == ":":
            if is_regular or name not in pseudo or name in headers:
                raise StreamFailed(PROTOCOL_ERROR, f"a pseudo-header field {name[:20]} does not belong there")
        else:
            is_regular = True
            if not _is_name(name):
                raise StreamFailed(PROTOCOL_ERROR, "a field's name is not valid")
            if name in headers:
                # RFC 9113, 8.2.3: a cookie may come in crumbs.
                value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        # The pattern is slow, and nearly every value is plain.
        if not (value.isprintable() and value[:1] != " " != value[-1:]) and _BAD_VALUE.search(value):
            raise StreamFailed(PROTOCOL_ERROR, "a field's value is not valid")
        headers[name] = value
    return headers


@lru_cache(1024)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in _OF_A_CONNECTION
