"""A peer made of raw frames, and handlers that write down what they are told."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpack import Decoder, Encoder

from glowplug.wire.http2 import Limits, ServerConnection, Stream, frames
from glowplug.wire.http2.frames import frame

END = frames.END_STREAM
REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/x.Y/Echo"),
    (":authority", "here"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)
SMALL = Limits(max_message_bytes=1000, max_streams=4)


def grpc(message: bytes, is_compressed: int = 0) -> bytes:
    """A message as DATA frames carry it."""
    return struct.pack(">BL", is_compressed, len(message)) + message


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a RST_STREAM or GOAWAY."""
        at = 4 if self.kind == frames.GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")


def parse(data: bytes) -> list[Frame]:
    """Whole frames."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        stream_id = int.from_bytes(data[5:9], "big")
        assert len(data) >= 9 + size, "half a frame was written"
        found.append(Frame(data[3], data[4], stream_id, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


class Recorder:
    """A `Handler`; answers each call with its messages joined, unless it `is_holding`."""

    def __init__(self, is_holding: bool = False) -> None:
        self.is_holding = is_holding
        self.told: list[tuple[str, int, Any]] = []
        self.streams: dict[int, Stream] = {}

    def request(self, stream: Stream, headers: Mapping[str, str]) -> None:
        self.told.append(("request", stream.id, dict(headers)))
        self.streams[stream.id] = stream
        stream.state = b""

    def message(self, stream: Stream, data: bytes) -> None:
        self.told.append(("message", stream.id, data))
        stream.state += data

    def ended(self, stream: Stream) -> None:
        self.told.append(("ended", stream.id, None))
        if not self.is_holding:
            stream.reply(stream.state)

    def reset(self, stream: Stream) -> None:
        self.told.append(("reset", stream.id, None))

    def names(self, stream_id: int) -> list[str]:
        return [name for name, number, _ in self.told if number == stream_id]


class Peer:
    """A client of frames before a ServerConnection."""

    def __init__(self, handler: Any = None, limits: Limits = SMALL, *, greets: bool = True) -> None:
        self.handler = handler if handler is not None else Recorder()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.wakes = 0
        self.server = ServerConnection(self.handler, limits, self._wake)
        self.server.start()
        self.now = 0.0
        self.first = self.out()
        if greets:
            acks = self.send(frames.PREFACE + frames.settings({}))
            assert [(item.kind, item.flags) for item in acks] == [(frames.SETTINGS, frames.ACK)]

    def _wake(self) -> None:
        self.wakes += 1

    def out(self) -> list[Frame]:
        data = b""
        while more := self.server.take():
            data += more
        return parse(data)

    def send(self, *parts: bytes) -> list[Frame]:
        self.server.receive(b"".join(parts), self.now)
        return self.out()

    def block(self, fields: Any = REQUEST, **more: str) -> bytes:
        pairs = [*fields, *((name.replace("_", "-"), value) for name, value in more.items())]
        return self.encoder.encode(pairs)

    def headers(self, stream_id: int, flags: int = 0, fields: Any = REQUEST, **more: str) -> bytes:
        return frame(frames.HEADERS, flags | frames.END_HEADERS, stream_id, self.block(fields, **more))

    def data(self, stream_id: int, payload: bytes, flags: int = END) -> bytes:
        return frame(frames.DATA, flags, stream_id, payload)

    def call(self, stream_id: int, message: bytes = b"hi") -> bytes:
        return self.headers(stream_id) + self.data(stream_id, grpc(message))

    def read_block(self, item: Frame) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.decoder.decode(item.payload)}

    def answer(self, found: list[Frame], stream_id: int) -> tuple[str, bytes]:
        """grpc-status and body of a stream in what was sent."""
        status, body = "", b""
        for item in found:
            if item.stream_id != stream_id:
                continue
            if item.kind == frames.DATA:
                body += item.payload
            elif item.kind == frames.HEADERS:
                fields = self.read_block(item)
                if item.flags & END:
                    status = fields["grpc-status"]
        return status, body


def limits(**changed: Any) -> Limits:
    """The small limits, changed."""
    return replace(SMALL, **changed)
