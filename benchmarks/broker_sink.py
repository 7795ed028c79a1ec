"""A sink that costs next to nothing: it answers 202 and keeps each event's id, arrival at the Broker, and own time."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

_ID = re.compile(rb"ce-id: (\S+)")
_ARRIVAL = re.compile(rb"ce-knativearrivaltime: (\S+)")
_LENGTH = re.compile(rb"content-length: (\d+)")
_TAKEN = b"HTTP/1.1 202 \r\ncontent-length: 0\r\n\r\n"


class Sink:
    """`hangs`: takes requests and never answers."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs
        self.seen: list[tuple[bytes, bytes, float]] = []
        self.url = ""
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", 0
        )
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < whole:
                return
            self._data = self._data[whole:]
            id, arrival = _ID.search(head), _ARRIVAL.search(head)
            self._sink.seen.append((id[1] if id else b"", arrival[1] if arrival else b"", time.time()))
            if not self._sink.hangs:
                self._transport.write(_TAKEN)
