"""What Envoy says of a request that goes through it: the messages of its ext_proc service, bytes -> values, pure.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ext_proc/v3/external_processor.proto
"""

from __future__ import annotations

from dataclasses import dataclass, field

from glowplug.wire.protobuf import BYTES, VARINT, fields

PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"

# The numbers of ProcessingRequest's fields.
_REQUEST_HEADERS, _ANSWER_HEADERS, _REQUEST_BODY, _ANSWER_BODY, _REQUEST_TRAILERS, _ANSWER_TRAILERS = range(
    2, 8
)
_OF_ANSWER = (_ANSWER_HEADERS, _ANSWER_BODY, _ANSWER_TRAILERS)
_OF_HEADERS = (_REQUEST_HEADERS, _ANSWER_HEADERS)
_OF_BODY = (_REQUEST_BODY, _ANSWER_BODY)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the request, or of the answer to it; `is_last`: that side ends with it."""

    is_answer: bool
    is_last: bool
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def parse_part(data: bytes) -> Part | None:
    """The part that a ProcessingRequest carries; None for one that carries none.

    Raises InferenceError for what is no such message.
    """
    for number, wire, value in fields(memoryview(data)):
        if wire != BYTES or not _REQUEST_HEADERS <= number <= _ANSWER_TRAILERS:
            continue
        is_answer = number in _OF_ANSWER
        if number in _OF_HEADERS:
            headers = _headers(value, 1)
            return Part(is_answer, _flag(value, 3), headers)
        if number in _OF_BODY:
            return Part(is_answer, _flag(value, 2), body=_bytes(value, 1))
        return Part(is_answer, True, _headers(value, 1))
    return None


def _headers(message: memoryview, map_number: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, wire, header_map in fields(message):
        if number != map_number or wire != BYTES:
            continue
        for inner, kind, header in fields(header_map):
            if inner == 1 and kind == BYTES:
                name, value = _header(header)
                found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _header(message: memoryview) -> tuple[str, str]:
    """HeaderValue: the value is in one of two fields."""
    texts = {n: str(value, "utf-8", "replace") for n, wire, value in fields(message) if wire == BYTES}
    return texts.get(1, ""), texts.get(2, "") or texts.get(3, "")


def _bytes(message: memoryview, wanted: int) -> bytes:
    return next((bytes(v) for number, wire, v in fields(message) if number == wanted and wire == BYTES), b"")


def _flag(message: memoryview, wanted: int) -> bool:
    return any(bool(v) for number, wire, v in fields(message) if number == wanted and wire == VARINT)
