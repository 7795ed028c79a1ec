"""Unary gRPC for the load: our own HTTP/2 on gevent's sockets, and never a second try.

grpcio has a thread pool and an event loop of its own, which gevent has to be threaded through; a generator has to be
cheaper than what it measures. Many calls share a connection; where a server allows no more streams, another is opened.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import Semaphore

from glowplug.wire.http2 import ClientConnection, Limits, Stream
from glowplug.wire.http2.header_coding import Headers, encode
from glowplug_loadtest.sockets import connect

MAX_MESSAGE_BYTES = 64 * 2**20
_READ_BYTES = 262_144
_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class CallFailed(Exception):
    """Another status than OK, or no status: the connection ended, or the server had not begun the call."""


class _Connection:
    """One connection with a greenlet that reads and one that writes; the `Caller` of its ClientConnection."""

    def __init__(self, url: str, authority: str, timeout_s: float) -> None:
        self._socket = connect(url, authority, timeout_s, alpn="h2" if url.startswith("https:") else "")
        self._has_news = Event()
        self.http2 = ClientConnection(self, Limits(max_message_bytes=MAX_MESSAGE_BYTES), self._has_news.set)
        self.http2.start()
        self._greenlets = [gevent.spawn(self._read), gevent.spawn(self._write)]

    def close(self) -> None:
        gevent.killall(self._greenlets)
        self._socket.close()

    def _read(self) -> None:
        try:
            while not self.http2.is_finished and (data := self._socket.recv(_READ_BYTES)):
                self.http2.receive(data, time.monotonic())
        except OSError as error:
            self.http2.why_lost = str(error)
        self.http2.lost()
        self._has_news.set()

    def _write(self) -> None:
        try:
            while True:
                self._has_news.wait()
                self._has_news.clear()
                # What other greenlets are about to send goes out with it.
                gevent.sleep(0)
                while data := self.http2.take():
                    self._socket.sendall(data)
                if self.http2.is_finished:
                    break
        except OSError as error:
            self.http2.why_lost = str(error)
            self.http2.lost()
        self._socket.close()

    # Caller: `state` is the AsyncResult of the call.

    def answered(self, state: AsyncResult, message: bytes) -> None:
        state.set(message)

    def refused(self, state: AsyncResult, code: int, text: str, trailers: Headers) -> None:
        name = _CODES[code] if 0 <= code < len(_CODES) else str(code)
        state.set_exception(CallFailed(f"grpc {name}: {text}" if text else f"grpc {name}"))

    def unsent(self, state: AsyncResult, why: str) -> None:
        state.set_exception(CallFailed(f"not begun by the server: {why}"))

    def lost(self, state: AsyncResult, why: str) -> None:
        state.set_exception(CallFailed(f"connection lost: {why}"))

    def changed(self) -> None:
        """Room is looked for by each call."""


class GrpcClient:
    """Calls of one method of one server."""

    def __init__(self, url: str, authority: str, path: str, timeout_s: float) -> None:
        self._url = url
        self._authority = authority
        self._timeout_s = timeout_s
        self._block = encode(
            [
                (":method", "POST"),
                (":scheme", urlsplit(url).scheme),
                (":path", path),
                (":authority", authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", "glowplug-loadtest"),
            ]
        )
        self._connections: list[_Connection] = []
        self._opening = Semaphore()

    def call(self, message: bytes) -> bytes:
        """The message that answers. Raises OSError or CallFailed; the caller sets the time limit (gevent.Timeout)."""
        connection = self._with_room()
        result = AsyncResult()
        stream: Stream = connection.http2.call(self._block, message, result)
        try:
            answer: bytes = result.get()
            return answer
        finally:
            if stream.is_open:
                connection.http2.cancel(stream)

    def close(self) -> None:
        """Closes all connections."""
        for connection in self._connections:
            connection.close()

    def _with_room(self) -> _Connection:
        if (found := self._found()) is not None:
            return found
        with self._opening:
            if (found := self._found()) is not None:
                return found
            connection = _Connection(self._url, self._authority, self._timeout_s)
            self._connections.append(connection)
            return connection

    def _found(self) -> _Connection | None:
        if any(not each.http2.is_usable and not each.http2.streams for each in self._connections):
            self._connections = [each for each in self._connections if each.http2.is_usable]
        return next((each for each in self._connections if each.http2.has_room), None)
