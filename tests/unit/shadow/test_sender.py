"""The request that a shadow gets, and which requests it gets."""

from __future__ import annotations

import pytest
from unit.shadow.messages import ABOUT, GRPC_PATH, REQUEST

from glowplug.copies.exchange import Exchange, Message
from glowplug.copies.inference import is_inference
from glowplug.shadow.sender import path_of, request_bytes
from glowplug.spec import names


def sent(headers: dict[str, str], body: bytes = b"{}", **about: str) -> tuple[str, dict[str, str], bytes]:
    exchange = Exchange({**ABOUT, **about}, Message({**REQUEST, **headers}, body), Message({}))
    head, _, rest = request_bytes(exchange).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs)
    return first, dict(pairs), rest


def test_it_is_the_callers_request_for_the_other_revision() -> None:
    first, headers, body = sent({"content-type": "application/json", "x-request-id": "7"}, b"[1]")
    assert first == "POST /v2/models/flights/infer HTTP/1.1"
    assert headers == {
        "host": "flights.default", "content-type": "application/json", "x-request-id": "7", "content-length": "3",
        names.NAMESPACE_HEADER: "default", names.REVISION_HEADER: "flights-00002",
        names.SHADOW_HEADER: "default/flights-00001",
    }  # fmt: skip
    assert body == b"[1]"


def test_what_concerned_the_callers_way_is_left_out() -> None:
    ours = {
        "content-length": "999", "transfer-encoding": "chunked", "connection": "keep-alive", "grpc-timeout": "1S",
        "x-envoy-attempt-count": "1", "x-forwarded-for": "127.0.0.1", "x-glowplug-listener": "ingress",
        names.REVISION_HEADER: "other", names.NAMESPACE_HEADER: "other", names.TAG_HEADER: "prev",
        "accept-encoding": "gzip",
    }  # fmt: skip
    plain, full = sent({}), sent(ours)
    assert plain == full


def test_a_header_cannot_end_the_head() -> None:
    _, headers, _ = sent({"x-evil": "a\r\nhost: other", "x-good": "b"})
    assert "x-evil" not in headers and headers["x-good"] == "b"


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/v2/models/m/infer?a=1", "", "/v2/models/m/infer?a=1"),
        ("/serving/default/m/v2/models/m/infer", "/serving/default/m", "/v2/models/m/infer"),
        ("/serving/default/m", "/serving/default/m", "/"),
        ("/serving/default/m?x=1", "/serving/default/m", "/?x=1"),
    ],
)
def test_the_path_is_the_pods(path: str, prefix: str, expected: str) -> None:
    about = {**ABOUT, names.COPY_PREFIX: prefix}
    assert path_of(Exchange(about, Message({":path": path}), Message({}))) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),
        ({":path": "/v1/models/m:predict"}, True),
        ({":path": "/"}, True),
        ({":method": "GET"}, False),
        ({names.SHADOW_HEADER: "default/flights-00001"}, False),
        ({":path": "/v2/repository/models/m/load"}, False),
        ({":path": GRPC_PATH, "content-type": "application/grpc"}, True),
        ({":path": "/inference.GRPCInferenceService/RepositoryModelLoad", "content-type": "application/grpc"}, False),
    ],
)  # fmt: skip
def test_only_what_asks_for_an_answer_is_tried(headers: dict[str, str], expected: bool) -> None:
    assert is_inference(ABOUT, {**REQUEST, **headers}) is expected
