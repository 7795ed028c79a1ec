"""An HTTP/2 connection (RFC 9113) without I/O: bytes in by `receive`, bytes out by `take`.

What server and client have in common: frames, settings, windows, pings, and the bounds on what a peer may cost. The
two differ in what a header block means, and in that the client begins the streams.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from glowplug.wire.http2 import frames
from glowplug.wire.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HAS_PRIORITY,
    HEAD,
    HEAD_BYTES,
    HEADERS,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PADDED,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    ConnectionFailed,
    StreamFailed,
)
from glowplug.wire.http2.header_coding import HeaderDecoder
from glowplug.wire.http2.limits import Allowance, Limits
from glowplug.wire.http2.outbox import Outbox
from glowplug.wire.http2.stream import Stream

# A header block in more frames than this is an attack (CVE-2024-27316); most are one.
MAX_CONTINUATIONS = 64
# Streams that we ended and whose peer may not know yet.
MAX_FORGOTTEN = 1000
# Answers to PING and SETTINGS that the peer does not read.
MAX_UNREAD_ANSWERS = 1000

# What each setting may be (RFC 9113, 6.5.2), and the error where it is not.
_BOUNDS = {
    frames.ENABLE_PUSH: (0, 1, PROTOCOL_ERROR),
    frames.INITIAL_WINDOW_SIZE: (0, MAX_WINDOW, FLOW_CONTROL_ERROR),
    frames.MAX_FRAME_SIZE: (2**14, 2**24 - 1, PROTOCOL_ERROR),
}


class Connection:
    """`wake` is called when `take` has something, where before it had nothing."""

    def __init__(self, limits: Limits, wake: Callable[[], None]) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        # It ends once what was written is sent.
        self.is_finished = False
        self.outbox = Outbox(wake, self._sent)
        self._decoder = HeaderDecoder(limits.max_header_list_bytes)
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._last_peer_id = 0
        self._has_settings = False
        # A header block of which not all has come: stream, flags, parts.
        self._block: tuple[int, int, list[bytes]] | None = None
        self._received = 0
        self._buffered = 0
        self._forgotten: OrderedDict[int, None] = OrderedDict()
        burst = max(limits.useless_burst, limits.max_streams)
        self._allowance = Allowance(burst, burst / 10)
        self._unread_answers = 0
        self._now = 0.0
        self._others: dict[int, Callable[[int, int, bytes], None]] = {
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            CONTINUATION: self._on_continuation,
        }

    def take(self) -> bytes:
        """What is to be written now; empty when there is no more."""
        data = self.outbox.take()
        if data and not self.outbox.is_paused:
            self._unread_answers = 0
        return data

    def receive(self, data: bytes, now: float) -> None:
        """Handles what came; `now` is in seconds of any steady clock. What is wrong with it is told to the peer."""
        if self.is_finished:
            return
        self._now = now
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        try:
            self._read(data)
        except ConnectionFailed as error:
            self.fail(error.code, str(error))

    def fail(self, code: int, why: str) -> None:
        """Ends the connection at once, with a GOAWAY."""
        self.outbox.write(frames.goaway(self._last_peer_id, code, why))
        self.is_finished = True
        self.lost()

    def lost(self) -> None:
        """Nothing more can be received or sent: every stream is at its end."""
        self.is_finished = True
        for stream in list(self.streams.values()):
            self._drop(stream)

    def _read(self, data: bytes) -> None:
        offset, end, largest = 0, len(data), self.limits.max_frame_bytes
        while end - offset >= HEAD_BYTES and not self.is_finished:
            high, low, kind, flags, stream_id = HEAD.unpack_from(data, offset)
            size = high << 8 | low
            if size > largest:
                raise ConnectionFailed(FRAME_SIZE_ERROR, f"a frame has {size} bytes")
            start = offset + HEAD_BYTES
            stop = start + size
            if stop > end:
                break
            stream_id &= MAX_STREAM_ID
            if self._block is not None and kind != CONTINUATION:
                raise ConnectionFailed(PROTOCOL_ERROR, "a header block is interrupted")
            if not self._has_settings:
                self._check_first(kind, flags)
            offset = stop
            try:
                if kind == DATA:
                    self._on_data(flags, stream_id, data, start, stop)
                elif kind == HEADERS:
                    self._on_headers(flags, stream_id, data[start:stop])
                elif kind in self._others:
                    self._others[kind](flags, stream_id, data[start:stop])
                else:
                    self._useless()
            except StreamFailed as error:
                self.end_stream(stream_id, error.code)
        if offset < end and not self.is_finished:
            self._keep(data[offset:] if offset else data)

    def _keep(self, rest: bytes) -> None:
        """What is no whole frame, until it is."""
        self._parts.append(rest)
        self._have = len(rest)
        self._need = HEAD_BYTES
        if self._have >= HEAD_BYTES:
            self._need += int.from_bytes(rest[:3], "big")

    def _check_first(self, kind: int, flags: int) -> None:
        if kind != frames.SETTINGS or flags & frames.ACK:
            raise ConnectionFailed(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        self._has_settings = True

    def _useless(self, cost: float = 1.0) -> None:
        if not self._allowance.spend(self._now, cost):
            raise ConnectionFailed(frames.ENHANCE_YOUR_CALM, "too many frames without use")

    def _answer(self, data: bytes) -> None:
        """Sends a frame that the peer made us send."""
        self._unread_answers += 1
        if self._unread_answers > MAX_UNREAD_ANSWERS:
            raise ConnectionFailed(frames.ENHANCE_YOUR_CALM, "answers are not read")
        self.outbox.write(data)

    # What the two kinds of connection do with a stream.

    def _on_block(self, stream_id: int, block: bytes, is_end: bool) -> None:
        raise NotImplementedError

    def _is_idle(self, stream_id: int) -> bool:
        """Whether the stream has not begun."""
        raise NotImplementedError

    def _data(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        raise NotImplementedError

    def _remote_ended(self, stream: Stream) -> None:
        raise NotImplementedError

    def _dropped(self, stream: Stream, code: int) -> None:
        """The stream is over, and its answer was not given or did not come."""
        raise NotImplementedError

    def reply(self, stream: Stream, message: bytes) -> None:
        """See Stream.reply; for a server."""
        raise NotImplementedError

    def reply_error(self, stream: Stream, code: int, text: str, more: Sequence[tuple[str, str]] = ()) -> None:
        """See Stream.reply_error; for a server."""
        raise NotImplementedError

    # Frames of a stream.

    def _on_data(self, flags: int, stream_id: int, data: bytes, start: int, stop: int) -> None:
        size = stop - start
        self._received += size
        window = self.limits.connection_window
        if self._received > window:
            raise ConnectionFailed(FLOW_CONTROL_ERROR, "more than the connection's window")
        if self._received * 2 > window:
            self.outbox.write(frames.window_update(0, self._received))
            self._received = 0
        stream = self.streams.get(stream_id)
        if stream is None or not stream.is_remote_open:
            self._data_on_closed(stream_id)
            return
        if flags & PADDED:
            start, stop = _without_padding(data, start, stop)
        if size:
            stream.received += size
            if stream.received > self.limits.stream_window:
                raise StreamFailed(FLOW_CONTROL_ERROR, "more than the stream's window")
        if stream.content_left is not None:
            stream.content_left -= stop - start
            if stream.content_left < 0 or (flags & END_STREAM and stream.content_left):
                raise StreamFailed(PROTOCOL_ERROR, "the body is not as long as content-length says")
        if start < stop:
            self._data(stream, data, start, stop)
        elif not flags & END_STREAM:
            self._useless()
        if flags & END_STREAM:
            self._end_remote(stream)
        elif stream.received * 2 > self.limits.stream_window and stream.is_open:
            self.outbox.write(frames.window_update(stream_id, stream.received))
            stream.received = 0

    def _end_remote(self, stream: Stream) -> None:
        stream.is_remote_open = False
        if self.streams.get(stream.id) is stream:
            self._remote_ended(stream)

    def _data_on_closed(self, stream_id: int) -> None:
        if self._is_idle(stream_id):
            raise ConnectionFailed(PROTOCOL_ERROR, "DATA on a stream that has not begun")
        if stream_id not in self._forgotten:
            self._useless()
            raise StreamFailed(STREAM_CLOSED, "DATA on a stream that has ended")

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        start, stop = 0, len(payload)
        if flags & PADDED:
            start, stop = _without_padding(payload, start, stop)
        if flags & HAS_PRIORITY:
            if stop - start < 5:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            if frames.parse_u32(payload[start:]) & MAX_STREAM_ID == stream_id:
                # The block must still be read, for the sake of the dynamic table: end the connection instead.
                raise ConnectionFailed(PROTOCOL_ERROR, "a stream depends on itself")
            start += 5
        block = payload if stop - start == len(payload) else payload[start:stop]
        if flags & END_HEADERS:
            self._on_block(stream_id, block, bool(flags & END_STREAM))
        else:
            self._block = (stream_id, flags, [block])

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, parts = self._block
        parts.append(payload)
        if len(parts) > MAX_CONTINUATIONS or sum(map(len, parts)) > self.limits.max_header_list_bytes:
            raise ConnectionFailed(frames.ENHANCE_YOUR_CALM, "a header block is too large")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(stream_id, b"".join(parts), bool(first_flags & END_STREAM))

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "RST_STREAM has not 4 bytes")
        if self._is_idle(stream_id):
            raise ConnectionFailed(PROTOCOL_ERROR, "RST_STREAM of a stream that has not begun")
        self._useless()
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._drop(stream, frames.parse_u32(payload))

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._useless()
        if not stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY of the connection")
        if len(payload) != 5:
            raise StreamFailed(FRAME_SIZE_ERROR, "PRIORITY has not 5 bytes")
        if frames.parse_u32(payload) & MAX_STREAM_ID == stream_id:
            raise StreamFailed(PROTOCOL_ERROR, "a stream depends on itself")

    # Frames of the connection.

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS of a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionFailed(FRAME_SIZE_ERROR, "SETTINGS has a wrong length")
        self._useless()
        if flags & frames.ACK:
            return
        values = frames.parse_settings(payload)
        for key, value in values:
            low, high, code = _BOUNDS.get(key, (0, 2**32, 0))
            if not low <= value <= high:
                raise ConnectionFailed(code, f"setting {key} is {value}")
        # Before what they let go.
        self._answer(frames.frame(frames.SETTINGS, frames.ACK, 0))
        for key, value in values:
            self._set(key, value)

    def _set(self, key: int, value: int) -> None:
        if key == frames.INITIAL_WINDOW_SIZE:
            outbox = self.outbox
            has_grown = value > outbox.initial_window
            outbox.initial_window = value
            if has_grown and outbox.stuck:
                # All of them are looked at, for one small frame.
                self._useless(1 + outbox.stuck / 100)
                outbox.windows_grew()
        elif key == frames.MAX_FRAME_SIZE:
            # Larger ones would only make others wait.
            self.outbox.max_frame = min(value, self.limits.max_frame_bytes)

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFailed(PROTOCOL_ERROR, "PUSH_PROMISE was not allowed")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "PING has not 8 bytes")
        self._useless()
        if flags & frames.ACK:
            self._ponged(payload)
        else:
            self._answer(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _ponged(self, payload: bytes) -> None:
        """Our PING came back."""

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailed(PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "GOAWAY is too short")
        self._useless()
        self._peer_leaves(frames.parse_u32(payload) & MAX_STREAM_ID, frames.parse_u32(payload[4:]))

    def _peer_leaves(self, last_stream_id: int, code: int) -> None:
        """The peer takes no streams of ours above `last_stream_id`."""

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "WINDOW_UPDATE has not 4 bytes")
        increment = frames.parse_u32(payload) & MAX_WINDOW
        failed: type[ConnectionFailed | StreamFailed] = StreamFailed if stream_id else ConnectionFailed
        if self._is_idle(stream_id):
            failed = ConnectionFailed
        if not increment or (stream_id and failed is ConnectionFailed):
            raise failed(PROTOCOL_ERROR, "WINDOW_UPDATE by nothing, or of a stream that has not begun")
        outbox = self.outbox
        if not stream_id:
            outbox.window += increment
            if outbox.window > MAX_WINDOW:
                raise failed(FLOW_CONTROL_ERROR, "the window is too large")
            outbox.pump()
        elif stream := self.streams.get(stream_id):
            stream.credit += increment
            if outbox.initial_window + stream.credit > MAX_WINDOW:
                raise failed(FLOW_CONTROL_ERROR, "the window is too large")
            outbox.stream_window_grew(stream)

    # The ends of streams.

    def end_stream(self, stream_id: int, code: int) -> None:
        """Ends a stream with RST_STREAM, begun or not."""
        self._forget(stream_id)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._drop(stream, code)
        self._answer(frames.reset(stream_id, code))

    def _forget(self, stream_id: int) -> None:
        self._forgotten[stream_id] = None
        if len(self._forgotten) > MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)

    def _drop(self, stream: Stream, code: int = frames.CANCEL) -> None:
        """Takes the stream away; who still waits for its answer is told."""
        self._close(stream)
        if stream.is_open:
            stream.is_open = False
            self._dropped(stream, code)

    def _close(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        self.outbox.forget(stream)
        stream.is_remote_open = False
        self._release(stream)

    def _release(self, stream: Stream) -> None:
        """Gives back what is held of a message that is not whole."""
        if stream.partial is not None:
            self._buffered -= stream.partial.have
            stream.partial = None

    def _sent(self, stream: Stream) -> None:
        """The body of a stream, and what ends it, are all out."""
        raise NotImplementedError


def _without_padding(data: bytes, start: int, stop: int) -> tuple[int, int]:
    if start == stop:
        raise ConnectionFailed(FRAME_SIZE_ERROR, "a padded frame is empty")
    padding = data[start]
    if padding >= stop - start:
        raise ConnectionFailed(PROTOCOL_ERROR, "the padding is longer than its frame")
    return start + 1, stop - padding
