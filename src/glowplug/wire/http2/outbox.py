"""The sending half of a connection: bytes to be written, and bodies that wait for the peer's windows.

What waits is bounded by the streams: each has one answer (or one request), and stays open until that is sent. At most
about a MiB is cut into frames ahead of the transport, so that a large answer lies in memory once and not twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from glowplug.wire.http2.frames import (
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_STREAM,
    HEAD,
)

if TYPE_CHECKING:
    from glowplug.wire.http2.stream import Stream

MAX_AHEAD_BYTES = 2**20


class Outbox:
    """`wake` is called when there is something to take where nothing was; `sent` when a stream's body is all out."""

    __slots__ = (
        "_ahead",
        "_parts",
        "_ready",
        "_sent",
        "_stuck",
        "_wake",
        "initial_window",
        "is_paused",
        "max_frame",
        "window",
    )

    def __init__(self, wake: Callable[[], None], sent: Callable[[Stream], None]) -> None:
        self._parts: list[bytes] = []
        self._ahead = 0
        self._wake = wake
        self._sent = sent
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = DEFAULT_FRAME_SIZE
        # Streams with something to send: those that wait for the connection, in turn, and those that wait for their own
        # window. The latter are not looked at until it grows: a client may have thousands of them, at no cost.
        self._ready: OrderedDict[int, Stream] = OrderedDict()
        self._stuck: dict[int, Stream] = {}
        # The transport has enough for now. Frames that are no DATA are still taken.
        self.is_paused = False

    @property
    def stuck(self) -> int:
        """How many streams wait for their own window."""
        return len(self._stuck)

    def write(self, data: bytes) -> None:
        """Frames that no window holds back."""
        if not self._parts:
            self._wake()
        self._parts.append(data)

    def take(self) -> bytes:
        """All that can be written now; empty when there is no more."""
        if self._ready:
            self.pump()
        parts = self._parts
        if not parts:
            return b""
        self._parts = []
        self._ahead = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def fits(self, stream: Stream, size: int) -> bool:
        """Whether a body can be sent at once, as one frame."""
        return (
            size <= self.window
            and size <= self.initial_window + stream.credit
            and size <= self.max_frame
            and not self.is_paused
        )

    def send(self, stream: Stream, body: bytes, tail: bytes) -> None:
        """Sends a body as the windows allow, then `tail`; without a tail, the last DATA frame ends the stream."""
        stream.pending = (memoryview(body), tail)
        self._ready[stream.id] = stream
        self.pump()

    def forget(self, stream: Stream) -> None:
        """Drops what was to be sent on a stream."""
        if stream.pending is not None:
            stream.pending = None
            self._ready.pop(stream.id, None)
            self._stuck.pop(stream.id, None)

    def stream_window_grew(self, stream: Stream) -> None:
        """The peer takes more of one stream."""
        if self._stuck.pop(stream.id, None) is not None:
            self._ready[stream.id] = stream
            self.pump()

    def windows_grew(self) -> None:
        """The peer takes more of every stream."""
        self._ready.update(self._stuck)
        self._stuck.clear()
        self.pump()

    def pump(self) -> None:
        """Sends what the windows allow, a frame of each stream in turn."""
        ready = self._ready
        while ready and self.window > 0 and not self.is_paused and self._ahead < MAX_AHEAD_BYTES:
            stream_id, stream = ready.popitem(last=False)
            if self.initial_window + stream.credit <= 0:
                self._stuck[stream_id] = stream
                continue
            self._send_one(stream)
            if stream.pending is not None:
                ready[stream_id] = stream

    def _send_one(self, stream: Stream) -> None:
        assert stream.pending is not None
        body, tail = stream.pending
        size = min(len(body), self.max_frame, self.window, self.initial_window + stream.credit)
        is_last = size == len(body)
        flags = END_STREAM if is_last and not tail else 0
        self.window -= size
        stream.credit -= size
        self._ahead += size
        head = HEAD.pack(size >> 8, size & 0xFF, DATA, flags, stream.id)
        self.write(b"".join((head, body[:size], tail if is_last else b"")))
        if is_last:
            self.forget(stream)
            self._sent(stream)
        else:
            stream.pending = (body[size:], tail)
