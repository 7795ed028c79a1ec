"""What Envoy says is read, and what it is answered is what Envoy's protobuf would write."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from glowplug.activator import questions
from glowplug.errors import InferenceError
from glowplug.wire.protobuf import field_bytes, field_varint

HEADERS = st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), max_size=5)


def map_entries(number: int, headers: dict[str, str]) -> bytes:
    pairs = (field_bytes(1, k.encode()) + field_bytes(2, v.encode()) for k, v in headers.items())
    return b"".join(field_bytes(number, pair) for pair in pairs)


@given(HEADERS, st.binary(max_size=20))
def test_the_headers_of_a_question(headers: dict[str, str], other: bytes) -> None:
    http = field_bytes(1, b"id") + map_entries(3, headers) + field_bytes(4, other)
    request = field_varint(1, 5) + field_bytes(2, http)
    attributes = field_bytes(1, b"") + field_bytes(4, request)
    assert questions.asked_headers(field_bytes(1, attributes)) == headers


@given(st.lists(st.sampled_from(["a", "b-1", "c"]), max_size=4))
def test_the_holds_that_have_ended(holds: list[str]) -> None:
    def entry(hold: str) -> bytes:
        request = field_bytes(2, b"http") + map_entries(13, {"x-other": "1", "x-glowplug-hold": hold})
        return field_bytes(1, field_bytes(1, b"common") + field_bytes(3, request))

    message = field_bytes(1, b"identifier") + field_bytes(2, b"".join(map(entry, holds)))
    assert questions.ended_holds(message) == holds


@given(st.binary(max_size=200))
def test_what_is_no_message_is_an_error_and_nothing_else(data: bytes) -> None:
    for read in (questions.asked_headers, questions.ended_holds):
        with contextlib.suppress(InferenceError):
            read(data)


def test_answers() -> None:
    # OkHttpResponse with one header, to be overwritten; DeniedHttpResponse with 503 and a body.
    pair = b"\n\x19x-envoy-original-dst-host\x12\x0b127.0.0.1:7"
    header = b"\n" + bytes([len(pair)]) + pair + b"\x18\x02"
    ok = b"\x12" + bytes([len(header)]) + header
    assert questions.admitted("127.0.0.1:7") == b"\n\x00\x1a" + bytes([len(ok)]) + ok
    assert questions.refused("no") == b"\n\x02\x08\x0e\x12\x09\n\x03\x08\xf7\x03\x1a\x02no"
