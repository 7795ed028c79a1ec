"""Two answers to one request: what came of it."""

from __future__ import annotations

import pytest
from unit.shadow.messages import GRPC_PATH, answer, as_grpc, as_json, as_v2, response

from glowplug.copies.exchange import Message
from glowplug.shadow.comparing import Comparison, Outcome, compare
from glowplug.shadow.differences import Tolerance
from glowplug.wire import v2_json
from glowplug.wire.tensors import InferRequest, RequestedOutput

PATH = "/v2/models/flights/infer"
USUAL = Tolerance(1e-4, 1e-6)


def outcome(ours: Message, theirs: Message, path: str = PATH) -> Outcome:
    return compare(path, ours, theirs, USUAL).outcome


def test_the_same_bytes_are_equal_whatever_they_are() -> None:
    assert compare(PATH, answer(b"\xff"), answer(b"\xff"), USUAL) == Comparison(Outcome.EQUAL, distance=0.0)


@pytest.mark.parametrize("make", [as_v2, as_grpc], ids=["rest", "grpc"])
def test_equal_close_and_different_tensors(make) -> None:
    path = GRPC_PATH if make is as_grpc else PATH
    assert outcome(make(1.0, 2.0), make(1.0, 2.0), path) is Outcome.EQUAL
    assert outcome(make(1.0, 2.0), make(1.0, 2.00001), path) is Outcome.CLOSE
    found = compare(path, make(1.0, 2.0), make(1.0, 2.5), USUAL)
    assert found == Comparison(Outcome.DIFFERENT, "output y[1]: 2.0 and 2.5", pytest.approx(0.2))


def test_another_id_is_no_difference() -> None:
    assert outcome(as_v2(1.0, id="1"), as_v2(1.0, id="2")) is Outcome.EQUAL


def binary(*values: float) -> Message:
    wanted = InferRequest("flights", (), outputs=(RequestedOutput("y", {"binary_data": True}),))
    body, length = v2_json.encode_response(response(*values), wanted)
    assert length is not None
    return answer(body, inference_header_content_length=str(length))


def test_the_binary_form_is_compared_with_itself_and_with_json() -> None:
    assert outcome(binary(1.0), binary(1.00001)) is Outcome.CLOSE
    assert outcome(binary(1.0), as_v2(2.0)) is Outcome.DIFFERENT
    assert outcome(as_v2(1.0), binary(1.0)) is Outcome.EQUAL


def test_v1_and_any_other_json() -> None:
    ours = as_json({"predictions": [1.0, 2.0]})
    assert outcome(ours, as_json({"predictions": [1.0, 2.00001]})) is Outcome.CLOSE
    assert outcome(ours, as_json({"predictions": [1.0, 3.0]})) is Outcome.DIFFERENT


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (200, 500, Outcome.ERROR), (200, 400, Outcome.ERROR), (500, 200, Outcome.DIFFERENT),
        (400, 503, Outcome.DIFFERENT), (400, 422, Outcome.EQUAL), (500, 503, Outcome.EQUAL),
    ],
)  # fmt: skip
def test_classes_of_http(ours: int, theirs: int, expected: Outcome) -> None:
    assert outcome(answer(b"a", ours), answer(b"b", theirs)) is expected


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(0, 3, Outcome.ERROR), (0, 13, Outcome.ERROR), (3, 0, Outcome.DIFFERENT), (3, 13, Outcome.DIFFERENT),
     (3, 9, Outcome.EQUAL), (13, 14, Outcome.EQUAL)],
)  # fmt: skip
def test_classes_of_grpc(ours: int, theirs: int, expected: Outcome) -> None:
    assert outcome(as_grpc(1.0, code=ours), as_grpc(1.0, code=theirs), GRPC_PATH) is expected


def test_the_statuses_are_named() -> None:
    assert compare(PATH, answer(), answer(status=500), USUAL).what == "status 200 and status 500"
    assert compare(PATH, as_grpc(1.0), as_grpc(code=14), USUAL).what == "status OK and status UNAVAILABLE"


@pytest.mark.parametrize(
    ("ours", "theirs", "path"),
    [
        (answer(b"a"), answer(b"b"), PATH),
        (as_json({"a": 1}, content_encoding="gzip"), as_json({"a": 2}), PATH),
        (as_grpc(1.0), as_grpc(2.0), "/other.Service/Call"),
        (as_grpc(1.0), Message(as_grpc().headers, b"\1\0\0\0\0"), GRPC_PATH),
        (as_grpc(1.0), Message(as_grpc().headers, b"\0\0\0\0\2\xff\xff"), GRPC_PATH),
        (as_json({"outputs": [{"name": "y"}]}), as_json({"outputs": []}), PATH),
    ],
)
def test_what_cannot_be_read_is_not_compared(ours: Message, theirs: Message, path: str) -> None:
    assert outcome(ours, theirs, path) is Outcome.NOT_COMPARABLE


def test_a_shadow_with_other_types_differs() -> None:
    body, _ = v2_json.encode_response(response(1.0))
    other = body.replace(b"FP32", b"FP64")
    assert outcome(answer(body), answer(other)) is Outcome.DIFFERENT
