"""The server's end of a connection, and gRPC's calls on it: callbacks to a handler, answers from it at any time."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from glowplug.wire.http2 import frames, status
from glowplug.wire.http2.connection import Connection
from glowplug.wire.http2.frames import PREFACE, ConnectionFailed, StreamFailed
from glowplug.wire.http2.header_coding import TooManyHeaders, encode
from glowplug.wire.http2.header_rules import request_headers, trailers
from glowplug.wire.http2.limits import Limits
from glowplug.wire.http2.messages import (
    PREFIX,
    PREFIX_BYTES,
    MessageRefused,
    PartialMessage,
    check_size,
    encode_text,
    inflate,
    is_known_encoding,
)
from glowplug.wire.http2.stream import Stream

# A status text is one header field, and clients bound all of them together: 8 KiB for gRPC's own.
MAX_TEXT_BYTES = 6 * 1024

_DRAIN_PING = b"glowplug"
_CONTENT_TYPE = ("content-type", "application/grpc")
_HEAD = encode([(":status", "200"), _CONTENT_TYPE])
_OK = encode([("grpc-status", "0")])
# HEADERS, then the head of a DATA frame and the prefix of its message: all that precedes a message, in one go.
_REPLY = struct.Struct(f">HBBBL{len(_HEAD)}sHBBBLBL")
_TRAILERS = struct.Struct(f">HBBBL{len(_OK)}s")
_NOT_GRPC = b"only gRPC is served here: POST with content-type application/grpc\n"


class Handler(Protocol):
    """Who answers the calls. None of the four may raise, and `headers` may be shared with other streams."""

    def request(self, stream: Stream, headers: Mapping[str, str]) -> None: ...
    def message(self, stream: Stream, data: bytes) -> None: ...
    def ended(self, stream: Stream) -> None: ...
    def reset(self, stream: Stream) -> None: ...


class ServerConnection(Connection):
    """One client's connection. The first thing to be sent is there from the start."""

    def __init__(self, handler: Handler, limits: Limits, wake: Callable[[], None]) -> None:
        super().__init__(limits, wake)
        self._handler = handler
        self._preface = PREFACE
        self._is_draining = False
        # The last stream that is served, once that has been announced.
        self._last_served = frames.MAX_STREAM_ID

    def start(self) -> None:
        """Sends our settings."""
        limits = self.limits
        values = {
            frames.MAX_CONCURRENT_STREAMS: limits.max_streams,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window,
            frames.MAX_FRAME_SIZE: limits.max_frame_bytes,
            frames.MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
        grown = limits.connection_window - frames.DEFAULT_WINDOW
        self.outbox.write(frames.settings(values) + (frames.window_update(0, grown) if grown else b""))

    @property
    def has_begun(self) -> bool:
        """Whether the client has said that it speaks HTTP/2."""
        return not self._preface

    def receive(self, data: bytes, now: float) -> None:
        if self._preface and not self.is_finished:
            size = min(len(data), len(self._preface))
            if data[:size] != self._preface[:size]:
                self.fail(frames.PROTOCOL_ERROR, "this is not HTTP/2")
                return
            self._preface = self._preface[size:]
            data = data[size:]
            if not data:
                return
        super().receive(data, now)

    def begin_drain(self) -> None:
        """Tells the client to begin no more calls. Those that it sent before it knew are served.

        What it sends until our PING is back may have been on the way; what comes later has been told (RFC 9113, 6.8).
        """
        if self._is_draining or self.is_finished:
            return
        self._is_draining = True
        self.outbox.write(
            frames.goaway(frames.MAX_STREAM_ID, frames.NO_ERROR)
            + frames.frame(frames.PING, 0, 0, _DRAIN_PING)
        )

    def _ponged(self, payload: bytes) -> None:
        if self._is_draining and payload == _DRAIN_PING and self._last_served == frames.MAX_STREAM_ID:
            self._last_served = self._last_peer_id
            self.outbox.write(frames.goaway(self._last_peer_id, frames.NO_ERROR))
            self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._last_served != frames.MAX_STREAM_ID and not self.streams:
            self.is_finished = True

    def _peer_leaves(self, last_stream_id: int, code: int) -> None:
        # A client that says so has no more calls, and closes when its last is answered.
        self._last_served = self._last_peer_id
        self._finish_if_done()

    # A call's headers.

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self._last_peer_id or not stream_id & 1

    def _on_block(self, stream_id: int, block: bytes, is_end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._on_trailers(stream, block, is_end)
            return
        if not stream_id & 1:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "a client's stream has an odd number")
        if stream_id <= self._last_peer_id:
            if stream_id not in self._forgotten:
                raise ConnectionFailed(frames.STREAM_CLOSED, "HEADERS on a stream that has ended")
            self._useless()
            self._decoder.skip(block)
            return
        self._last_peer_id = stream_id
        try:
            headers = self._decoder.headers(block, request_headers)
        except TooManyHeaders:
            headers = {}
        if stream_id > self._last_served or len(self.streams) >= self.limits.max_streams:
            raise StreamFailed(frames.REFUSED_STREAM, "no more streams")
        self.streams[stream_id] = stream = Stream(self, stream_id, True)
        self._begin(stream, headers)
        if is_end:
            if stream.content_left:
                raise StreamFailed(frames.PROTOCOL_ERROR, "a content-length, but no body")
            self._end_remote(stream)

    def _on_trailers(self, stream: Stream, block: bytes, is_end: bool) -> None:
        if not stream.is_remote_open:
            self._decoder.skip(block)
            raise StreamFailed(frames.STREAM_CLOSED, "HEADERS after the stream's end")
        with contextlib.suppress(TooManyHeaders):
            trailers(self._decoder.decode(block)[0])
        if not is_end:
            raise StreamFailed(frames.PROTOCOL_ERROR, "trailers that do not end the stream")
        if stream.content_left:
            raise StreamFailed(frames.PROTOCOL_ERROR, "the body is not as long as content-length says")
        self._end_remote(stream)

    def _begin(self, stream: Stream, headers: Mapping[str, str]) -> None:
        if not headers:
            limit = self.limits.max_header_list_bytes
            stream.reply_error(status.RESOURCE_EXHAUSTED, f"the headers are larger than {limit} bytes")
            return
        length = headers.get("content-length")
        if length is not None:
            if not (length.isascii() and length.isdigit()) or len(length) > 18:
                raise StreamFailed(frames.PROTOCOL_ERROR, "content-length is no number")
            stream.content_left = int(length)
        content = headers.get("content-type", "")
        if headers[":method"] != "POST" or not (
            content == "application/grpc" or content.startswith(("application/grpc+", "application/grpc;"))
        ):
            # Answered when it has ended, as HTTP clients expect it.
            return
        encoding = headers.get("grpc-encoding", "identity")
        if not is_known_encoding(encoding):
            text = f"grpc-encoding {encoding[:80]!r} is not known"
            self._end(stream, status.UNIMPLEMENTED, text, [("grpc-accept-encoding", "identity,gzip,deflate")])
            return
        stream.encoding = encoding
        self._handler.request(stream, headers)

    # A call's messages.

    def _data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        if not stream.is_open or not stream.encoding:
            return
        try:
            while start < stop and stream.is_open:
                start = self._next_message(stream, data, start, stop)
        except MessageRefused as error:
            self.reply_error(stream, error.code, error.text)

    def _next_message(self, stream: Stream, data: bytes, start: int, stop: int) -> int:
        partial = stream.partial
        limit = self.limits.max_message_bytes
        if partial is None:
            body = start + PREFIX_BYTES
            if body <= stop:
                is_compressed, size = PREFIX.unpack_from(data, start)
                check_size(size, limit)
                if body + size <= stop:
                    self._deliver(stream, is_compressed, data[body : body + size])
                    return body + int(size)
            stream.partial = partial = PartialMessage()
        before = partial.have
        try:
            start = partial.add(data, start, stop, limit)
        finally:
            self._buffered += partial.have - before
        message = partial.take()
        if message is not None:
            self._release(stream)
            self._deliver(stream, partial.is_compressed, message)
        elif self._buffered > self.limits.max_buffered_bytes:
            raise MessageRefused(
                status.RESOURCE_EXHAUSTED, "this connection has too many unfinished messages"
            )
        return start

    def _deliver(self, stream: Stream, is_compressed: int, message: bytes) -> None:
        if is_compressed:
            if is_compressed != 1:
                raise MessageRefused(status.INTERNAL, "a message's first byte is neither 0 nor 1")
            message = inflate(message, stream.encoding, self.limits.max_message_bytes)
        self._handler.message(stream, message)

    def _remote_ended(self, stream: Stream) -> None:
        if not stream.is_open:
            return
        if not stream.encoding:
            self._refuse_other(stream)
        elif stream.partial is not None:
            self.reply_error(stream, status.INTERNAL, "the last message is cut off")
        else:
            self._handler.ended(stream)

    def _dropped(self, stream: Stream, code: int) -> None:
        if stream.encoding:
            self._handler.reset(stream)
        self._finish_if_done()

    # Answers.

    def reply(self, stream: Stream, message: bytes) -> None:
        stream.is_open = False
        outbox, stream_id, size = self.outbox, stream.id, len(message)
        framed = size + PREFIX_BYTES
        tail = _TRAILERS.pack(
            0, len(_OK), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream_id, _OK
        )
        is_at_once = outbox.fits(stream, framed)
        head = _REPLY.pack(
            0, len(_HEAD), frames.HEADERS, frames.END_HEADERS, stream_id, _HEAD,
            framed >> 8 & 0xFFFF, framed & 0xFF, frames.DATA, 0, stream_id, 0, size,
        )  # fmt: skip
        if is_at_once:
            outbox.window -= framed
            stream.credit -= framed
            outbox.write(b"".join((head, message, tail)))
            self._sent(stream)
        else:
            outbox.write(head[: frames.HEAD_BYTES + len(_HEAD)])
            outbox.send(stream, head[-PREFIX_BYTES:] + message, tail)

    def reply_error(self, stream: Stream, code: int, text: str, more: Sequence[tuple[str, str]] = ()) -> None:
        self._end(stream, code, text, [*more])

    def _end(self, stream: Stream, code: int, text: str, more: list[tuple[str, str]]) -> None:
        """Answers with trailers only."""
        fields = [(":status", "200"), _CONTENT_TYPE, ("grpc-status", str(code))]
        if text:
            fields.append(("grpc-message", _cut(encode_text(text))))
        self._write_block(stream, encode(fields + more), frames.END_STREAM)
        self._sent(stream)

    def _write_block(self, stream: Stream, block: bytes, flags: int) -> None:
        stream.is_open = False
        self.outbox.write(frames.headers_frames(stream.id, block, flags, self.outbox.max_frame))

    def _refuse_other(self, stream: Stream) -> None:
        """What is not gRPC is answered as HTTP."""
        fields = [(":status", "415"), ("content-type", "text/plain"), ("content-length", str(len(_NOT_GRPC)))]
        self._write_block(stream, encode(fields), 0)
        self.outbox.send(stream, _NOT_GRPC, b"")

    def _sent(self, stream: Stream) -> None:
        if stream.is_remote_open:
            # RFC 9113, 8.1: the answer is whole, and the rest of the request is not wanted.
            self._forget(stream.id)
            self.outbox.write(frames.reset(stream.id, frames.NO_ERROR))
        self._close(stream)
        self._allowance.earn()
        self._finish_if_done()


def _cut(text: str) -> str:
    """At most MAX_TEXT_BYTES of an encoded text, not in the middle of a %XX."""
    if len(text) <= MAX_TEXT_BYTES:
        return text
    cut = text[:MAX_TEXT_BYTES]
    percent = cut.rfind("%", -2)
    return cut[:percent] if percent >= 0 else cut
