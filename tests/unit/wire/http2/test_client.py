"""The client's end of a connection, against the server's end and against raw frames."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.wire.http2.lab import END, Recorder, grpc, limits, parse

from glowplug.wire.http2 import ClientConnection, Limits, ServerConnection, frames, status
from glowplug.wire.http2.frames import frame
from glowplug.wire.http2.header_coding import encode

BLOCK = encode(
    [(":method", "POST"), (":scheme", "http"), (":path", "/x"), ("content-type", "application/grpc")]
)
HEAD = encode([(":status", "200"), ("content-type", "application/grpc")])
OK = encode([("grpc-status", "0")])


class Notes:
    """A `Caller` that writes down what became of its calls."""

    def __init__(self) -> None:
        self.ends: dict[Any, tuple[Any, ...]] = {}

    def _end(self, state: Any, *what: Any) -> None:
        assert state not in self.ends, "a call ended twice"
        self.ends[state] = what

    def answered(self, state: Any, message: bytes) -> None:
        self._end(state, "answered", message)

    def refused(self, state: Any, code: int, text: str, trailers: dict[str, str]) -> None:
        self._end(state, "refused", code, text)

    def unsent(self, state: Any, why: str) -> None:
        self._end(state, "unsent")

    def lost(self, state: Any, why: str) -> None:
        self._end(state, "lost")

    def changed(self) -> None:
        pass


class Lab:
    """A client, what it wrote, and frames to it."""

    def __init__(self, bounds: Limits | None = None) -> None:
        self.notes = Notes()
        self.client = ClientConnection(self.notes, bounds or limits(), lambda: None)
        self.client.start()
        greeting = self.client.take()
        assert greeting.startswith(frames.PREFACE)
        self.settings = parse(greeting[len(frames.PREFACE) :])

    def call(self, state: Any, message: bytes = b"hi") -> Any:
        return self.client.call(BLOCK, message, state)

    def send(self, *parts: bytes) -> None:
        self.client.receive(b"".join(parts), 0.0)

    def greet(self, **values: int) -> None:
        numbers = {getattr(frames, name): value for name, value in values.items()}
        self.send(frames.settings(numbers))

    def head(self, number: int = 1) -> bytes:
        return frame(frames.HEADERS, frames.END_HEADERS, number, HEAD)

    def tail(self, number: int = 1, block: bytes = OK) -> bytes:
        return frame(frames.HEADERS, frames.END_HEADERS | END, number, block)

    def only(self, block: bytes, number: int = 1) -> bytes:
        return self.tail(number, encode([(":status", "200")]) + block)


def test_the_greeting_allows_no_pushes() -> None:
    values = dict(frames.parse_settings(Lab().settings[0].payload))
    assert values[frames.ENABLE_PUSH] == 0


@given(st.lists(st.binary(max_size=300_000), min_size=1, max_size=3), st.integers(1, 70_000))
def test_the_two_ends_understand_each_other(messages: list[bytes], size: int) -> None:
    """Whatever the sizes, and the pieces in which the bytes arrive."""
    notes = Notes()
    bounds = Limits(max_message_bytes=300_000, stream_window=70_000, connection_window=100_000)
    client = ClientConnection(notes, bounds, lambda: None)
    server = ServerConnection(Recorder(), bounds, lambda: None)
    client.start()
    server.start()
    for index, message in enumerate(messages):
        client.call(BLOCK, message, index)
    moving = True
    while moving:
        moving = False
        for one, other in ((client, server), (server, client)):
            while data := one.take():
                moving = True
                for start in range(0, len(data), size):
                    other.receive(data[start : start + size], 0.0)
    assert notes.ends == {index: ("answered", message) for index, message in enumerate(messages)}
    assert not client.streams
    assert not server.streams


@pytest.mark.parametrize(
    ("parts", "end"),
    [
        (lambda lab: (lab.head(), lab_data(grpc(b"a")), lab.tail()), ("answered", b"a")),
        (lambda lab: (lab.head(), lab_data(grpc(b"a")[:3]), lab_data(grpc(b"a")[3:]), lab.tail()), ("answered", b"a")),
        (lambda lab: (lab.only(encode([("grpc-status", "5"), ("grpc-message", "n%C3%B6")])),), ("refused", 5, "nö")),
        (lambda lab: (lab.head(), lab.tail(block=encode([("grpc-status", "x")]))), ("refused", 2, "")),
        (lambda lab: (lab.only(OK),), ("refused", status.INTERNAL, "an answer without a message")),
        (lambda lab: (lab.head(), lab_data(b"\0\0"), lab.tail()), ("refused", 13, "the answer is cut off")),
        (lambda lab: (lab.tail(1, encode([(":status", "503")])),), ("refused", 14, "HTTP 503 without a grpc-status")),
        (
            lambda lab: (frame(frames.HEADERS, 4, 1, encode([(":status", "404")])), lab_data(b"<html>", END)),
            ("refused", status.UNIMPLEMENTED, "HTTP 404 without a grpc-status"),
        ),
        (lambda lab: (lab.head(), lab_data(grpc(b"a"), END)), ("refused", 2, "HTTP 200 without a grpc-status")),
        (lambda lab: (frames.reset(1, frames.REFUSED_STREAM),), ("unsent",)),
        (lambda lab: (frames.reset(1, frames.CANCEL),), ("refused", 1, "the stream was reset with HTTP/2 error 8")),
        (lambda lab: (frames.reset(1, 2),), ("refused", 13, "the stream was reset with HTTP/2 error 2")),
        (lambda lab: (frames.goaway(0, 0),), ("unsent",)),
        (lambda lab: (frame(frames.PUSH_PROMISE, 4, 1, bytes(4)),), ("lost",)),
        (lambda lab: (lab.head(3),), ("lost",)),
        (
            lambda lab: (frame(1, 4, 1, encode([(":status", "100")])), lab.head(), lab_data(grpc(b"")), lab.tail()),
            ("answered", b""),
        ),
    ],
)  # fmt: skip
def test_how_a_call_may_end(parts: Any, end: tuple[Any, ...]) -> None:
    lab = Lab()
    lab.greet()
    lab.call("one")
    lab.send(*parts(lab))
    assert lab.notes.ends == {"one": end}
    assert not lab.client.streams
    lab.client.lost()
    assert len(lab.notes.ends) == 1


def lab_data(payload: bytes, flags: int = 0, number: int = 1) -> bytes:
    return frame(frames.DATA, flags, number, payload)


@pytest.mark.parametrize(
    "parts",
    [
        lambda lab: (lab_data(b"x"),),
        lambda lab: (lab.tail(),),
        lambda lab: (lab.head(), lab.head()),
        lambda lab: (lab.head(), frame(frames.HEADERS, 4, 1, OK)),
        lambda lab: (lab.head(), lab_data(grpc(b"a") + grpc(b"b"))),
        lambda lab: (lab.head(), lab_data(grpc(b"a", 1))),
        lambda lab: (lab.head(), lab_data(b"\0\0\0\x03\xe9")),
    ],
)
def test_wrong_answers_end_their_call_and_no_other(parts: Any) -> None:
    lab = Lab()
    lab.greet()
    lab.call("one")
    lab.call("two")
    lab.client.take()
    lab.send(*parts(lab))
    assert lab.notes.ends["one"][0] == "refused"
    (found,) = [item for item in parse(lab.client.take()) if item.kind == frames.RST_STREAM]
    assert found.stream_id == 1
    # What is still on the way is of no account.
    lab.send(lab_data(grpc(b"x")), lab.tail(1), lab.head(3), lab_data(grpc(b"b"), 0, 3), lab.tail(3))
    assert lab.notes.ends["two"] == ("answered", b"b")


def test_goaway_ends_those_that_were_not_begun_and_waits_for_the_rest() -> None:
    lab = Lab()
    lab.greet()
    for name in ("one", "two", "three"):
        lab.call(name)
    lab.send(frames.goaway(2**31 - 1, 0))
    assert not lab.client.is_usable
    assert not lab.notes.ends
    lab.send(frames.goaway(1, 0))
    assert lab.notes.ends == {"two": ("unsent",), "three": ("unsent",)}
    assert not lab.client.is_finished
    lab.send(lab.head(), lab_data(grpc(b"a")), lab.tail())
    assert lab.notes.ends["one"] == ("answered", b"a")
    assert lab.client.is_finished


def test_the_servers_limit_on_streams_is_kept() -> None:
    lab = Lab()
    assert lab.client.has_room
    lab.greet(MAX_CONCURRENT_STREAMS=2)
    lab.call("one")
    stream = lab.call("two")
    assert not lab.client.has_room
    assert lab.client.is_usable
    lab.client.cancel(stream)
    assert lab.client.has_room
    assert not lab.notes.ends


def test_a_cancelled_call_is_told_nothing_more() -> None:
    lab = Lab()
    lab.greet()
    lab.client.cancel(lab.call("one"))
    assert parse(lab.client.take())[-1].code == frames.CANCEL
    lab.send(lab.head(), lab_data(grpc(b"a")), lab.tail())
    assert not lab.notes.ends
    assert not lab.client.is_finished


def test_an_answer_before_the_request_is_out_stops_it() -> None:
    lab = Lab()
    lab.greet()
    lab.call("one", b"x" * 100_000)
    lab.client.take()
    lab.send(lab.only(encode([("grpc-status", "8")])))
    assert lab.notes.ends["one"][:2] == ("refused", 8)
    assert [item.kind for item in parse(lab.client.take())] == [frames.RST_STREAM]
    lab.send(frames.window_update(0, 100_000))
    assert lab.client.take() == b""


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_handled(data: bytes, size: int) -> None:
    lab = Lab()
    lab.greet()
    lab.call("one")
    for start in range(0, len(data), size):
        lab.send(data[start : start + size])
    lab.client.lost()
    assert len(lab.notes.ends) == 1
