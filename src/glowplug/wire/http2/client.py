"""The client's end of a connection: unary gRPC calls, and what became of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from glowplug.wire.http2 import frames, status
from glowplug.wire.http2.connection import Connection
from glowplug.wire.http2.frames import PREFACE, ConnectionFailed, StreamFailed
from glowplug.wire.http2.header_coding import Headers, TooManyHeaders
from glowplug.wire.http2.header_rules import response_headers
from glowplug.wire.http2.limits import Limits
from glowplug.wire.http2.messages import (
    PREFIX,
    PREFIX_BYTES,
    MessageRefused,
    PartialMessage,
    check_size,
    decode_text,
)
from glowplug.wire.http2.stream import Stream

# What a stream's RST_STREAM means (gRPC's PROTOCOL-HTTP2.md); others are INTERNAL.
_OF_RESET = {
    frames.REFUSED_STREAM: status.UNAVAILABLE,
    frames.CANCEL: status.CANCELLED,
    frames.ENHANCE_YOUR_CALM: status.RESOURCE_EXHAUSTED,
}


class Caller(Protocol):
    """Who made the calls. None of these may raise; `state` is what was given to `call`."""

    def answered(self, state: Any, message: bytes) -> None:
        """The call succeeded."""

    def refused(self, state: Any, code: int, text: str, trailers: Headers) -> None:
        """The call ended with another status; `trailers` are gRPC's and those of whoever answered."""

    def unsent(self, state: Any, why: str) -> None:
        """The server has not begun the call, and it may be made again elsewhere."""

    def lost(self, state: Any, why: str) -> None:
        """The connection ended, and nobody knows how far the call came."""

    def changed(self) -> None:
        """There may be room for more calls, or none on this connection any more."""


class _Answer:
    """What has come of an answer."""

    __slots__ = ("headers", "message", "state")

    def __init__(self, state: Any) -> None:
        self.state = state
        self.headers: Headers | None = None
        self.message: bytes | None = None


class ClientConnection(Connection):
    """One connection to a server."""

    def __init__(self, caller: Caller, limits: Limits, wake: Callable[[], None]) -> None:
        super().__init__(limits, wake)
        self._caller = caller
        self._next_id = 1
        self._max_streams = frames.MAX_STREAM_ID
        self.why_lost = "the connection was closed"
        # The server takes no more calls here.
        self.is_leaving = False

    def start(self) -> None:
        """Sends the preface and our settings."""
        limits = self.limits
        values = {
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_FRAME_SIZE: limits.max_frame_bytes,
            frames.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
        window = frames.window_update(0, limits.connection_window - frames.DEFAULT_WINDOW)
        self.outbox.write(PREFACE + frames.settings(values) + window)

    @property
    def is_usable(self) -> bool:
        """Whether calls may be made here, now or when others have ended."""
        return not (self.is_leaving or self.is_finished)

    @property
    def has_settings(self) -> bool:
        """Whether the other side has shown that it speaks HTTP/2."""
        return self._has_settings

    @property
    def has_room(self) -> bool:
        """Whether one more call may be made now."""
        return self.is_usable and len(self.streams) < self._max_streams

    def call(self, block: bytes, message: bytes, state: Any) -> Stream:
        """Begins a call: `block` is its encoded header fields. `has_room` must hold."""
        stream_id = self._next_id
        self._next_id += 2
        if self._next_id > frames.MAX_STREAM_ID:
            self.is_leaving = True
        self.streams[stream_id] = stream = Stream(self, stream_id, True)
        stream.state = _Answer(state)
        outbox = self.outbox
        head = frames.headers_frames(stream_id, block, 0, outbox.max_frame)
        prefix = PREFIX.pack(0, len(message))
        size = len(message) + PREFIX_BYTES
        if outbox.fits(stream, size):
            outbox.window -= size
            stream.credit -= size
            data = frames.HEAD.pack(size >> 8, size & 0xFF, frames.DATA, frames.END_STREAM, stream_id)
            outbox.write(b"".join((head, data, prefix, message)))
        else:
            outbox.write(head)
            outbox.send(stream, prefix + message, b"")
        return stream

    def cancel(self, stream: Stream) -> None:
        """The caller waits no longer; it is told nothing more of this call."""
        if stream.is_open:
            stream.is_open = False
            self._forget(stream.id)
            self._close(stream)
            self.outbox.write(frames.reset(stream.id, frames.CANCEL))
            self._after_stream()

    def ping(self) -> None:
        """Asks the server for a sign of life."""
        self.outbox.write(frames.frame(frames.PING, 0, 0, b"glowplug"))

    def fail(self, code: int, why: str) -> None:
        self.why_lost = f"the server broke the protocol: {why}"
        super().fail(code, why)

    def lost(self) -> None:
        self.is_finished = True
        for stream in list(self.streams.values()):
            self._close(stream)
            if stream.is_open:
                stream.is_open = False
                self._caller.lost(stream.state.state, self.why_lost)

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id >= self._next_id or not stream_id & 1

    def _set(self, key: int, value: int) -> None:
        if key == frames.MAX_CONCURRENT_STREAMS:
            self._max_streams = value
            self._caller.changed()
        else:
            super()._set(key, value)

    def _peer_leaves(self, last_stream_id: int, code: int) -> None:
        self.is_leaving = True
        for stream in list(self.streams.values()):
            if stream.id > last_stream_id and stream.is_open:
                stream.is_open = False
                self._close(stream)
                self._caller.unsent(stream.state.state, "the server takes no more calls")
        self._after_stream()

    # Answers.

    def _on_block(self, stream_id: int, block: bytes, is_end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is None or not stream.is_remote_open:
            if self._is_idle(stream_id):
                raise ConnectionFailed(frames.PROTOCOL_ERROR, "HEADERS on a stream that has not begun")
            self._decoder.skip(block)
            return
        try:
            headers = self._decoder.headers(block, response_headers)
        except TooManyHeaders:
            raise StreamFailed(frames.PROTOCOL_ERROR, "the headers are too large") from None
        answer: _Answer = stream.state
        is_first = answer.headers is None
        if (":status" in headers) is not is_first:
            raise StreamFailed(frames.PROTOCOL_ERROR, ":status is missing, or among the trailers")
        if is_first and headers[":status"][0] == "1" and not is_end:
            return
        if is_first:
            answer.headers = headers
        elif not is_end:
            raise StreamFailed(frames.PROTOCOL_ERROR, "trailers that do not end the stream")
        if is_end:
            self._finish(stream, headers)

    def _data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        answer: _Answer = stream.state
        if answer.headers is None:
            raise StreamFailed(frames.PROTOCOL_ERROR, "DATA before HEADERS")
        if answer.headers[":status"] != "200":
            return
        try:
            while start < stop:
                start = self._read_message(stream, answer, data, start, stop)
        except MessageRefused as error:
            self._refuse(stream, error.code, error.text)

    def _read_message(self, stream: Stream, answer: _Answer, data: bytes, start: int, stop: int) -> int:
        if answer.message is not None:
            raise MessageRefused(status.INTERNAL, "more than one message answers a unary call")
        body = start + PREFIX_BYTES
        limit = self.limits.max_message_bytes
        partial = stream.partial
        if partial is None and body <= stop:
            is_compressed, size = PREFIX.unpack_from(data, start)
            check_size(size, limit)
            if body + size <= stop:
                return self._take(answer, is_compressed, data[body : body + size], body + size)
        if partial is None:
            stream.partial = partial = PartialMessage()
        start = partial.add(data, start, stop, limit)
        message = partial.take()
        if message is not None:
            stream.partial = None
            return self._take(answer, partial.is_compressed, message, start)
        return start

    def _take(self, answer: _Answer, is_compressed: int, message: bytes, offset: int) -> int:
        if is_compressed:
            raise MessageRefused(status.INTERNAL, "the answer is compressed, which was not asked for")
        answer.message = message
        return offset

    def _refuse(self, stream: Stream, code: int, text: str) -> None:
        if stream.is_open:
            state = stream.state.state
            self.cancel(stream)
            self._caller.refused(state, code, text, {})

    def _remote_ended(self, stream: Stream) -> None:
        """The body was the last: there are no trailers."""
        answer: _Answer = stream.state
        self._finish(stream, answer.headers or {})

    def _finish(self, stream: Stream, trailers: Headers) -> None:
        if stream.pending is not None:
            # It was answered before it was all sent.
            self._forget(stream.id)
            self.outbox.write(frames.reset(stream.id, frames.NO_ERROR))
        is_cut = stream.partial is not None
        self._close(stream)
        stream.is_open = False
        self._allowance.earn()
        answer: _Answer = stream.state
        head = answer.headers or {}
        found = trailers.get("grpc-status")
        http = head.get(":status", "200")
        if found is not None:
            code, text = status.parse(found), decode_text(trailers.get("grpc-message", ""))
        else:
            code, text = status.of_http(int(http)), f"HTTP {http} without a grpc-status"
        if code:
            self._caller.refused(answer.state, code, text, trailers)
        elif answer.message is None:
            what = "the answer is cut off" if is_cut else "an answer without a message"
            self._caller.refused(answer.state, status.INTERNAL, what, trailers)
        else:
            self._caller.answered(answer.state, answer.message)
        self._after_stream()

    def _dropped(self, stream: Stream, code: int) -> None:
        state = stream.state.state
        if code == frames.REFUSED_STREAM:
            self._caller.unsent(state, "the server refused the stream")
        else:
            text = f"the stream was reset with HTTP/2 error {code}"
            self._caller.refused(state, _OF_RESET.get(code, status.INTERNAL), text, {})
        self._after_stream()

    def _sent(self, stream: Stream) -> None:
        """The request is out; the stream ends with its answer."""

    def _after_stream(self) -> None:
        if self.is_leaving and not self.streams:
            self.is_finished = True
        self._caller.changed()
