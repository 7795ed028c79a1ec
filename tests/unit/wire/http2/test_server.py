"""The server's end of a connection, by raw frames: calls, bounds, and what is wrong (RFC 9113)."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.wire.http2.lab import END, REQUEST, Peer, Recorder, grpc, limits

from glowplug.wire.http2 import Stream, frames, status
from glowplug.wire.http2.frames import frame

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11


def code_of(found: list[Any], kind: int) -> int | None:
    codes = [item.code for item in found if item.kind == kind]
    return codes[0] if codes else None


def test_a_call() -> None:
    peer = Peer()
    head, body, tail = peer.send(peer.call(1))
    assert peer.read_block(head) == {":status": "200", "content-type": "application/grpc"}
    assert (body.kind, body.flags, body.payload) == (frames.DATA, 0, grpc(b"hi"))
    assert peer.read_block(tail) == {"grpc-status": "0"}
    assert tail.flags & END
    assert peer.handler.names(1) == ["request", "message", "ended"]
    assert not peer.server.streams
    assert peer.handler.told[0][2] == dict(REQUEST)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.data())
def test_bytes_may_come_in_any_pieces(messages: list[bytes], data: st.DataObject) -> None:
    """Of the connection into reads, and of a message into frames; padding and priority are of no account."""
    peer = Peer(greets=False)
    body = b"".join(map(grpc, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    sent = [frames.PREFACE, frames.settings({})]
    block = peer.block()
    at = data.draw(st.integers(0, len(block)))
    priority = b"\0\0\0\0\x10"
    padded = frames.PADDED | frames.HAS_PRIORITY
    sent.append(frame(frames.HEADERS, padded, 1, b"\x03" + priority + block[:at] + bytes(3)))
    sent.append(frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[at:]))
    sent += [peer.data(1, bytes([2]) + part + b"ab", frames.PADDED) for part in parts]
    sent.append(peer.data(1, b""))
    wire = b"".join(sent)
    size = data.draw(st.integers(1, 200))
    for start in range(0, len(wire), size):
        peer.server.receive(wire[start : start + size], 0.0)
    assert [told[2] for told in peer.handler.told if told[0] == "message"] == messages
    assert peer.answer(peer.out(), 1) == ("0", grpc(b"".join(messages)))


def test_answers_are_given_in_any_order_and_once() -> None:
    peer = Peer(Recorder(is_holding=True))
    assert peer.send(peer.call(1), peer.call(3)) == []
    first, second = peer.handler.streams[1], peer.handler.streams[3]
    wakes = peer.wakes
    second.reply(b"2")
    first.reply_error(status.NOT_FOUND, "nö")
    assert peer.wakes == wakes + 1
    first.reply(b"1")
    assert not first.is_open
    found = peer.out()
    assert peer.answer(found, 3) == ("0", grpc(b"2"))
    (only,) = [item for item in found if item.stream_id == 1]
    assert peer.read_block(only) == {
        ":status": "200", "content-type": "application/grpc", "grpc-status": "5", "grpc-message": "n%C3%B6",
    }  # fmt: skip


def test_an_answer_before_the_request_has_ended_ends_it() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.headers(1), peer.data(1, grpc(b"one"), 0))
    peer.handler.streams[1].reply(b"enough")
    found = peer.out()
    assert peer.answer(found, 1)[0] == "0"
    assert (found[-1].kind, found[-1].code) == (frames.RST_STREAM, 0)
    # What was on the way is of no account.
    assert peer.send(peer.data(1, grpc(b"two"), 0), peer.headers(1, END)) == []
    assert peer.handler.names(1) == ["request", "message"]


def test_a_stream_without_end_gives_its_window_back() -> None:
    peer = Peer(Recorder(is_holding=True), limits(stream_window=1000, max_message_bytes=300))
    peer.send(peer.headers(1))
    given_back = {0: 0, 1: 0}
    for _ in range(100):
        for item in peer.send(peer.data(1, grpc(b"x" * 295), 0)):
            assert item.kind == frames.WINDOW_UPDATE
            given_back[item.stream_id] += item.code
    assert given_back[1] >= 100 * 300 - 1000
    assert peer.handler.names(1) == ["request"] + ["message"] * 100


def test_a_large_answer_waits_for_the_windows() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}), peer.call(1), peer.call(3))
    peer.handler.streams[1].reply(b"a" * 100)
    peer.handler.streams[3].reply(b"b" * 5)
    found = peer.out()
    assert [len(item.payload) for item in found if item.kind == frames.DATA] == [10, 10]
    assert peer.answer(found, 3)[0] == "0"
    # The window of all streams grows by a setting, that of one by an update; zero takes none away.
    more = peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 30}))
    assert [len(item.payload) for item in more if item.kind == frames.DATA] == [20]
    assert peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}), frames.window_update(1, 25))[1:] == []
    rest = peer.send(frames.window_update(1, 100))
    assert [len(item.payload) for item in rest if item.kind == frames.DATA] == [75]
    assert peer.answer(rest, 1)[0] == "0"
    assert not peer.server.streams


def test_a_stream_without_window_holds_no_other_up() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}), peer.call(1), peer.call(3))
    peer.handler.streams[1].reply(b"a")
    peer.handler.streams[3].reply(b"b")
    peer.out()
    assert peer.answer(peer.send(frames.window_update(3, 10)), 3)[1] == grpc(b"b")
    assert peer.answer(peer.send(frames.window_update(1, 10)), 1)[1] == grpc(b"a")


def test_streams_share_the_connections_window() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 2**20}), peer.call(1), peer.call(3))
    peer.server.outbox.is_paused = True
    for stream in peer.handler.streams.values():
        stream.reply(b"x" * 100_000)
    peer.server.outbox.is_paused = False
    sent = {1: 0, 3: 0}
    for item in [*peer.out(), *peer.send(frames.window_update(0, 2**20))]:
        if item.kind == frames.DATA:
            sent[item.stream_id] += len(item.payload)
            # Neither has to wait for the other's end.
            assert abs(sent[1] - sent[3]) <= 2 * 16384
    assert sent == {1: 100_005, 3: 100_005}


@pytest.mark.parametrize("window", [0, 65_535])
def test_thousands_of_answers_that_wait_cost_nothing_while_they_wait(window: int) -> None:
    """A client that opens no window: neither an answer nor an update looks at the others that wait."""
    count = 3000
    peer = Peer(Recorder(is_holding=True), limits(max_streams=count))
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: window}))
    peer.send(*[peer.call(number) for number in range(1, 2 * count, 2)])
    looks = 0

    class Counted(int):
        def __add__(self, other: int) -> int:
            nonlocal looks
            looks += 1
            return int(self) + other

    peer.server.outbox.initial_window = Counted(window)
    for stream in peer.handler.streams.values():
        stream.reply(b"x" * 60)
    peer.out()
    for _ in range(1000):
        peer.send(frames.window_update(0, 1))
    assert looks < 4 * count + 4 * 1000
    peer.server.outbox.initial_window = window
    rest = peer.send(frames.window_update(0, 2**20), frames.settings({frames.INITIAL_WINDOW_SIZE: 2**20}))
    assert not peer.server.streams
    assert peer.answer(rest, 2 * count - 1)[0] == "0"


def test_a_transport_that_has_enough_gets_no_more_data() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(
        frames.window_update(0, 2**24), frames.settings({frames.INITIAL_WINDOW_SIZE: 2**24}), peer.call(1)
    )
    peer.handler.streams[1].reply(b"x" * 5 * 2**20)
    first = peer.server.take()
    assert len(first) < 2 * 2**20
    peer.server.outbox.is_paused = True
    assert peer.server.take() == b""
    peer.server.outbox.is_paused = False
    assert sum(len(item.payload) for item in peer.out() if item.kind == frames.DATA) > 3 * 2**20


def test_a_reset_stream_is_told_once_and_its_answer_is_dropped() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.call(1), frames.reset(1, 8), frames.reset(1, 8))
    assert peer.handler.names(1) == ["request", "message", "ended", "reset"]
    peer.handler.streams[1].reply(b"late")
    assert peer.out() == []
    peer.server.lost()
    assert peer.handler.names(1)[-2:] == ["ended", "reset"]


def test_a_lost_connection_resets_its_streams() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.call(1), peer.headers(3))
    peer.server.lost()
    assert peer.handler.names(1)[-1] == peer.handler.names(3)[-1] == "reset"
    assert peer.server.is_finished


def test_messages_are_bounded_from_their_prefix() -> None:
    peer = Peer()
    found = peer.send(peer.headers(1), peer.data(1, b"\0\0\0\x03\xe9", 0))
    assert peer.answer(found, 1)[0] == str(status.RESOURCE_EXHAUSTED)
    found = peer.send(peer.headers(3), peer.data(3, b"\0\0\0", 0), peer.data(3, b"\x03\xe9", 0))
    assert peer.answer(found, 3)[0] == str(status.RESOURCE_EXHAUSTED)
    found = peer.send(peer.headers(5), peer.data(5, grpc(b"x" * 1001)))
    assert peer.answer(found, 5)[0] == str(status.RESOURCE_EXHAUSTED)
    assert not any(name == "message" for name, _, _ in peer.handler.told)
    assert peer.send(peer.data(1, b"x" * 500, 0)) == []


def test_unfinished_messages_are_bounded_together() -> None:
    peer = Peer(limits=limits(max_buffered_bytes=1500))
    half = grpc(b"x" * 1000)[:800]
    assert peer.send(peer.headers(1), peer.data(1, half, 0)) == []
    found = peer.send(peer.headers(3), peer.data(3, half, 0))
    assert peer.answer(found, 3)[0] == str(status.RESOURCE_EXHAUSTED)
    # What the first held is free when it ends, and when it is reset.
    peer.send(frames.reset(1, 8))
    assert peer.send(peer.headers(5), peer.data(5, half, 0)) == []
    assert peer.answer(peer.send(peer.data(5, b"x" * 205)), 5)[0] == "0"
    assert peer.send(peer.headers(7), peer.data(7, half, 0)) == []


@pytest.mark.parametrize(
    ("encoding", "data", "code"),
    [
        ("gzip", grpc(gzip.compress(b"hi", mtime=0), 1), status.OK),
        ("gzip", grpc(b"hi", 0), status.OK),
        ("deflate", grpc(zlib.compress(b"hi"), 1), status.OK),
        ("gzip", grpc(gzip.compress(bytes(100_000)), 1), status.RESOURCE_EXHAUSTED),
        ("gzip", grpc(b"nonsense", 1), status.INTERNAL),
        ("gzip", grpc(gzip.compress(b"hi", mtime=0)[:-9], 1), status.INTERNAL),
        ("identity", grpc(b"hi", 1), status.INTERNAL),
        ("identity", grpc(b"hi", 7), status.INTERNAL),
        ("identity", grpc(b"hi")[:-1], status.INTERNAL),
        ("snappy", grpc(b"hi", 1), status.UNIMPLEMENTED),
    ],
)
def test_compression(encoding: str, data: bytes, code: int) -> None:
    peer = Peer()
    found = peer.send(peer.headers(1, grpc_encoding=encoding), peer.data(1, data))
    assert found[0].kind == frames.HEADERS
    fields = peer.read_block(next(item for item in found if item.flags & END))
    assert fields["grpc-status"] == str(code)
    assert ("grpc-accept-encoding" in fields) == (code == status.UNIMPLEMENTED)


def test_what_is_not_grpc_is_answered_as_http() -> None:
    peer = Peer()
    get = ((":method", "GET"), (":scheme", "http"), (":path", "/"))
    head, body = peer.send(peer.headers(1, END, get))
    assert peer.read_block(head)[":status"] == "415"
    assert b"gRPC" in body.payload
    web = [(name, "application/grpc-web" if name == "content-type" else value) for name, value in REQUEST]
    head, _ = peer.send(peer.headers(3, 0, web), peer.data(3, b"xyz"))
    assert peer.read_block(head)[":status"] == "415"
    assert peer.handler.told == []
    peer.send(peer.headers(5, 0, web), frames.reset(5, 8))
    assert peer.handler.told == []


def test_a_status_text_is_bounded_and_whole() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.call(1))
    peer.handler.streams[1].reply_error(13, "ü%\n" * 5000)
    text = peer.read_block(peer.out()[0])["grpc-message"]
    assert len(text) <= 6 * 1024
    assert text.startswith("%C3%BC%25%0A")
    assert len(text) % 3 == 0


# Draining.


def test_a_drain_serves_what_was_sent_before_the_client_knew() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.call(1))
    peer.server.begin_drain()
    away, ping = peer.out()
    assert int.from_bytes(away.payload[:4], "big") == 2**31 - 1
    peer.send(peer.call(3))
    (last,) = peer.send(frame(frames.PING, frames.ACK, 0, ping.payload))
    assert (last.kind, int.from_bytes(last.payload[:4], "big")) == (frames.GOAWAY, 3)
    (refused,) = peer.send(peer.call(5))
    assert (refused.kind, refused.code) == (frames.RST_STREAM, REFUSED)
    for number in (1, 3):
        assert not peer.server.is_finished
        peer.handler.streams[number].reply(b"done")
        assert peer.answer(peer.out(), number)[0] == "0"
    assert peer.server.is_finished


def test_a_drained_connection_ends_with_its_last_stream_reset() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.call(1))
    peer.server.begin_drain()
    peer.send(frame(frames.PING, frames.ACK, 0, peer.out()[1].payload))
    peer.send(frames.reset(1, 8))
    assert peer.server.is_finished


def test_a_client_that_leaves_is_answered_first() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.call(1), frames.goaway(0, 0))
    assert not peer.server.is_finished
    peer.handler.streams[1].reply(b"")
    assert peer.server.is_finished


# Bounds on what a client may cost.


def test_streams_are_bounded_and_more_are_refused() -> None:
    peer = Peer(Recorder(is_holding=True))
    found = peer.send(*[peer.call(number) for number in (1, 3, 5, 7, 9)])
    assert [(item.kind, item.stream_id, item.code) for item in found] == [(frames.RST_STREAM, 9, REFUSED)]
    assert peer.handler.names(9) == []
    peer.handler.streams[1].reply(b"")
    assert peer.answer(peer.out(), 1)[0] == "0"
    assert peer.send(peer.call(11)) == []


@pytest.mark.parametrize(
    "useless",
    [
        frame(frames.PING, 0, 0, bytes(8)),
        frames.settings({}),
        frame(frames.PRIORITY, 0, 1, bytes(5)),
        frame(0x77, 0, 0),
        frame(frames.DATA, 0, 1),
        frames.reset(1, 8),
    ],
)
def test_floods_end_the_connection_and_what_is_useful_pays(useless: bytes) -> None:
    peer = Peer(Recorder(is_holding=True), limits(useless_burst=50))
    peer.send(peer.headers(1))
    peer.send(*[useless] * 40)
    assert not peer.server.is_finished
    assert code_of(peer.send(*[useless] * 40), frames.GOAWAY) == CALM
    assert peer.server.is_finished
    peer = Peer(limits=limits(useless_burst=50))
    peer.send(peer.call(1))
    for number in range(3, 401, 2):
        assert peer.answer(peer.send(useless, peer.call(number)), number)[0] == "0"
    # Time pays as well: five a second here.
    peer.now = 100.0
    peer.send(*[useless] * 40)
    assert not peer.server.is_finished


def test_rapid_resets_end_the_connection() -> None:
    peer = Peer(Recorder(is_holding=True), limits(useless_burst=100))
    found = peer.send(*[peer.call(number) + frames.reset(number, 8) for number in range(1, 1000, 2)])
    assert code_of(found, frames.GOAWAY) == CALM
    assert len(peer.handler.streams) <= 102


def test_answers_that_are_not_read_end_the_connection() -> None:
    peer = Peer(limits=limits(useless_burst=10**6))
    ping = frame(frames.PING, 0, 0, bytes(8))
    for _ in range(5):
        peer.send(*[ping] * 900)
    peer.server.outbox.is_paused = True
    for _ in range(2):
        peer.send(*[ping] * 900)
    assert peer.server.is_finished


def test_too_many_headers_are_refused_and_the_connection_goes_on() -> None:
    peer = Peer(limits=limits(max_header_list_bytes=2000))
    found = peer.send(peer.headers(1, END, x="y" * 1500, z="y" * 1500))
    assert peer.answer(found, 1)[0] == str(status.RESOURCE_EXHAUSTED)
    assert peer.handler.told == []
    assert peer.answer(peer.send(peer.call(3)), 3)[0] == "0"


@pytest.mark.parametrize("fragment", [b"", b"x" * 1000])
def test_a_header_block_without_end_is_bounded(fragment: bytes) -> None:
    peer = Peer(limits=limits(max_header_list_bytes=20_000))
    sent = [frame(frames.HEADERS, 0, 1, fragment)] + [frame(frames.CONTINUATION, 0, 1, fragment)] * 70
    assert code_of(peer.send(*sent), frames.GOAWAY) == CALM


def test_a_bug_in_a_handler_is_not_swallowed() -> None:
    class Broken(Recorder):
        def ended(self, stream: Stream) -> None:
            raise RuntimeError("bug")

    peer = Peer(Broken())
    with pytest.raises(RuntimeError):
        peer.send(peer.call(1))


# What is wrong. A stream's error leaves the connection alone; a connection's ends it.

SETTINGS_AGAIN = frames.settings({frames.ENABLE_PUSH: 2})


def malformed(drop: str = "", **more: str) -> list[tuple[str, str]]:
    fields = [(name, value) for name, value in REQUEST if name != drop]
    return [*fields, *((name.replace("_", "-"), value) for name, value in more.items())]


@pytest.mark.parametrize(
    "fields",
    [
        malformed(":path"),
        malformed(":method"),
        malformed(":scheme"),
        [(":path", "") if name == ":path" else (name, value) for name, value in REQUEST],
        [*REQUEST, (":path", "/late")],
        [(":status", "200"), *REQUEST],
        [(":method", "POST"), *REQUEST],
        malformed(Upper="x"),
        malformed(connection="close"),
        malformed(transfer_encoding="chunked"),
        malformed("te", te="gzip"),
        malformed(x="a\nb"),
        malformed(x=" a"),
        malformed(content_length="1a"),
        [*REQUEST, ("", "x")],
    ],
)
def test_malformed_requests_are_reset(fields: list[tuple[str, str]]) -> None:
    peer = Peer()
    (found,) = peer.send(peer.headers(1, 0, fields), peer.data(1, grpc(b"")))
    assert (found.kind, found.stream_id, found.code) == (frames.RST_STREAM, 1, PROTOCOL)
    assert peer.handler.told == []
    assert peer.answer(peer.send(peer.call(3)), 3)[0] == "0"


@pytest.mark.parametrize(
    ("length", "body"), [("3", grpc(b"hello")), ("30", grpc(b"hello")), ("0", grpc(b"")), ("1", None)]
)
def test_a_body_is_as_long_as_it_says(length: str, body: bytes | None) -> None:
    peer = Peer()
    head = peer.headers(1, END if body is None else 0, content_length=length)
    (found,) = peer.send(head, b"" if body is None else peer.data(1, body))
    assert (found.kind, found.code) == (frames.RST_STREAM, PROTOCOL)


def test_trailers_of_a_request() -> None:
    peer = Peer()
    body = peer.data(1, grpc(b"hi"), 0)
    assert peer.answer(peer.send(peer.headers(1), body, peer.headers(1, END, [("x", "y")])), 1)[0] == "0"
    for number, flags, fields in ((3, 0, [("x", "y")]), (5, END, [(":path", "/")])):
        found = peer.send(peer.headers(number), peer.headers(number, flags, fields))
        assert code_of(found, frames.RST_STREAM) == PROTOCOL
        assert peer.handler.names(number) == ["request", "reset"]
    found = peer.send(peer.headers(7, content_length="9"), peer.headers(7, END, [("x", "y")]))
    assert code_of(found, frames.RST_STREAM) == PROTOCOL


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(frames.DATA, 0, 0, b"x"), PROTOCOL),
        (frame(frames.DATA, 0, 9, b"x"), PROTOCOL),
        (frame(frames.DATA, frames.PADDED, 1, b"\x02x"), PROTOCOL),
        (frame(frames.DATA, frames.PADDED, 1, b""), SIZE),
        (frame(frames.DATA, 0, 1, bytes(2**16 + 1)), SIZE),
        (frame(frames.HEADERS, frames.END_HEADERS, 0, b""), PROTOCOL),
        (frame(frames.HEADERS, frames.END_HEADERS, 2, b"\x82"), PROTOCOL),
        (frame(frames.HEADERS, frames.END_HEADERS, 3, b"\xff\xff"), COMPRESSION),
        (frame(frames.HEADERS, 0, 3, b"") + frame(frames.DATA, 0, 1, b"x"), PROTOCOL),
        (frame(frames.HEADERS, 0, 3, b"") + frame(frames.CONTINUATION, 4, 5, b""), PROTOCOL),
        (frame(frames.HEADERS, frames.HAS_PRIORITY, 3, b"\0\0"), SIZE),
        (frame(frames.HEADERS, frames.HAS_PRIORITY | 4, 3, b"\0\0\0\x03\0"), PROTOCOL),
        (frame(frames.CONTINUATION, 4, 1, b""), PROTOCOL),
        (frame(frames.PRIORITY, 0, 0, bytes(5)), PROTOCOL),
        (frame(frames.RST_STREAM, 0, 1, bytes(3)), SIZE),
        (frame(frames.RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
        (frame(frames.RST_STREAM, 0, 9, bytes(4)), PROTOCOL),
        (frame(frames.SETTINGS, 0, 1, b""), PROTOCOL),
        (frame(frames.SETTINGS, 0, 0, b"x"), SIZE),
        (frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), SIZE),
        (SETTINGS_AGAIN, PROTOCOL),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}), FLOW),
        (frames.settings({frames.MAX_FRAME_SIZE: 100}), PROTOCOL),
        (frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), PROTOCOL),
        (frame(frames.PING, 0, 1, bytes(8)), PROTOCOL),
        (frame(frames.PING, 0, 0, bytes(7)), SIZE),
        (frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL),
        (frame(frames.GOAWAY, 0, 0, bytes(7)), SIZE),
        (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
        (frames.window_update(0, 0), PROTOCOL),
        (frames.window_update(9, 1), PROTOCOL),
        (frames.window_update(0, 2**31 - 1), FLOW),
    ],
)
def test_connection_errors(wire: bytes, code: int) -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.headers(1))
    found = peer.send(wire)
    assert found[-1].kind == frames.GOAWAY
    assert found[-1].code == code
    assert peer.server.is_finished
    assert peer.handler.names(1) == ["request", "reset"]
    assert peer.send(peer.call(3)) == []


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frames.window_update(1, 0), PROTOCOL),
        (frames.window_update(1, 2**31 - 1), FLOW),
        (frame(frames.PRIORITY, 0, 1, bytes(4)), SIZE),
        (frame(frames.PRIORITY, 0, 1, b"\0\0\0\x01\0"), PROTOCOL),
    ],
)
def test_stream_errors(wire: bytes, code: int) -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.headers(1))
    (found,) = peer.send(wire)
    assert (found.kind, found.stream_id, found.code) == (frames.RST_STREAM, 1, code)
    assert peer.handler.names(1) == ["request", "reset"]
    assert not peer.server.is_finished


def test_streams_that_have_ended() -> None:
    peer = Peer(Recorder(is_holding=True))
    # Half closed: the client's end has been.
    found = peer.send(peer.call(1), peer.data(1, b"x"))
    assert code_of(found, frames.RST_STREAM) == CLOSED
    found = peer.send(peer.call(3), peer.headers(3, END, [("x", "y")]))
    assert code_of(found, frames.RST_STREAM) == CLOSED
    # Updates and resets of streams that are over may have been on the way.
    assert peer.send(frames.window_update(1, 5), frames.reset(3, 8)) == []
    peer.send(peer.call(5), frames.reset(5, 8))
    assert code_of(peer.send(peer.data(5, b"x")), frames.RST_STREAM) == CLOSED
    peer.send(peer.call(7), frames.reset(7, 8))
    assert code_of(peer.send(peer.headers(7)), frames.GOAWAY) == CLOSED


def test_numbers_of_streams_only_grow() -> None:
    peer = Peer(Recorder(is_holding=True))
    peer.send(peer.call(5))
    assert code_of(peer.send(peer.headers(3)), frames.GOAWAY) == CLOSED


def test_windows_hold() -> None:
    small = limits(stream_window=100, connection_window=65_535, max_message_bytes=10**6)
    peer = Peer(limits=small)
    found = peer.send(peer.headers(1), peer.data(1, b"\0" * 101, 0))
    assert code_of(found, frames.RST_STREAM) == FLOW
    peer = Peer(limits=limits(max_frame_bytes=2**17, connection_window=65_535))
    found = peer.send(peer.headers(1), peer.data(1, b"\0" * 65_536, 0))
    assert code_of(found, frames.GOAWAY) == FLOW


@pytest.mark.parametrize("wire", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX"])
def test_what_is_not_http2(wire: bytes) -> None:
    peer = Peer(greets=False)
    assert code_of(peer.send(wire), frames.GOAWAY) == PROTOCOL
    assert not peer.server.has_begun
    peer = Peer(greets=False)
    assert code_of(peer.send(frames.PREFACE + frame(frames.PING, 0, 0, bytes(8))), frames.GOAWAY) == PROTOCOL


# Bytes that nobody meant.


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_handled(data: bytes, size: int) -> None:
    peer = Peer()
    for start in range(0, len(data), size):
        peer.send(data[start : start + size])


@given(st.data())
def test_frames_at_random_are_handled(data: st.DataObject) -> None:
    peer = Peer()
    calls = [peer.call(number, b"x" * 20) for number in (1, 3)]
    for _ in range(data.draw(st.integers(0, 12))):
        kind, number = data.draw(st.integers(0, 10)), data.draw(st.sampled_from([0, 1, 2, 3, 5, 7]))
        flags = data.draw(st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]))
        payload = data.draw(st.sampled_from([b"", bytes(4), bytes(8), grpc(b"a"), b"\0\0\0\1", *calls]))
        peer.send(frame(kind, flags, number, payload) if data.draw(st.booleans()) else calls[0])
    for stream in list(peer.handler.streams.values()):
        stream.reply(b"late")
    peer.out()
    told = [item for item in peer.handler.told if item[0] in ("reset",)]
    assert len({number for _, number, _ in told}) == len(told)
