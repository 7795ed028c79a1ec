"""Posts events to sinks over HTTP/1.1 with kept connections: one pool for all triggers.

A call is one write, one future and one timer: a general client takes several times the CPU time of such a call. It
never raises for what the other side does: no answer is an answer, too. Redirects are not followed: a sink that answers
with one has not taken the event.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httptools

from glowplug.broker.verdict import Answer

_MAX_IDLE = 64
# Of all sinks.
_MAX_KEPT = 512
_MAX_HEAD_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0
_Origin = tuple[str, str, int]


class HttpClient:
    """Used by one event loop; `close` when done. An answer's body may have `max_body_bytes`."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._kept = 0
        self._tls: ssl.SSLContext | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        """One request and its answer, within so long, connecting included."""
        try:
            parts = urlsplit(url)
            origin = (
                parts.scheme,
                parts.hostname or "",
                parts.port or (443 if parts.scheme == "https" else 80),
            )
        except ValueError as error:
            return _none(f"{url!r} is no URL: {error}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return _none(f"{url!r} is no HTTP URL")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        data = _head(path, parts.netloc.rpartition("@")[2], headers, len(body)) + body
        try:
            return await self._send(origin, data, asyncio.get_running_loop().time() + timeout_s)
        except asyncio.TimeoutError:
            return _none(f"no answer from {url} within {timeout_s:g} s")
        except httptools.HttpParserError:
            return _none(f"{url} does not answer in HTTP")
        except OSError as error:
            return _none(f"{url}: {error.strerror or error or type(error).__name__}")

    async def _send(self, origin: _Origin, data: bytes, ends_at: float) -> Answer:
        idle = self._idle.setdefault(origin, [])
        while idle:
            connection = idle.pop()
            self._kept -= 1
            if connection.is_lost:
                continue
            try:
                return await self._exchange(origin, connection, data, ends_at)
            except _ClosedBeforeAnswer:
                # As it was kept, the server may have closed it meanwhile; an event may come twice.
                continue
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        # Such names are this computer (RFC 6761), whatever its resolver knows.
        address = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
        opening = loop.create_connection(
            lambda: _Connection(self._max_body_bytes), address, port,
            ssl=self._context() if scheme == "https" else None, server_hostname=host if scheme == "https" else None,
        )  # fmt: skip
        _, connection = await asyncio.wait_for(opening, min(_CONNECT_TIMEOUT_S, ends_at - loop.time()))
        return await self._exchange(origin, connection, data, ends_at)

    async def _exchange(
        self, origin: _Origin, connection: _Connection, data: bytes, ends_at: float
    ) -> Answer:
        answer = connection.send(data)
        timer = answer.get_loop().call_at(ends_at, _expire, answer)
        is_whole = False
        try:
            result = await answer
            is_whole = True
        finally:
            timer.cancel()
            idle = self._idle.setdefault(origin, [])
            is_kept = is_whole and connection.is_kept and not connection.is_lost
            if is_kept and len(idle) < _MAX_IDLE and self._kept < _MAX_KEPT:
                idle.append(connection)
                self._kept += 1
            else:
                connection.close()
        return result

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def close(self) -> None:
        """Closes the kept connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        self._kept = 0


class _ClosedBeforeAnswer(ConnectionError):
    """The connection ended before a whole answer came."""


def _none(why: str) -> Answer:
    return Answer(0, {}, why.encode("utf-8", "replace"))


def _head(path: str, host: str, headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {length}"]
    lines += [
        f"{name}: {value}" for name, value in headers.items() if "\r" not in value and "\n" not in value
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _expire(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(asyncio.TimeoutError())


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_answering = False
        self._has_head = False
        self.is_kept = False
        self.is_lost = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, data: bytes) -> asyncio.Future[Answer]:
        """The answer to come, or ConnectionError, or httptools.HttpParserError."""
        if self.is_lost or self._transport.is_closing():
            raise _ClosedBeforeAnswer("the connection was closed before anything was sent")
        self._waiting = answer = asyncio.get_running_loop().create_future()
        self._is_answering = self._has_head = False
        self._transport.write(data)
        return answer

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            # Nothing was asked: the next answer could not be told from this one.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_message_begin(self) -> None:
        if self._waiting is None:
            self.close()
        self._headers, self._chunks, self._size = {}, [], 0
        self._is_answering = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > _MAX_HEAD_BYTES:
            self._fail(ConnectionError(f"the answer's headers are larger than {_MAX_HEAD_BYTES} bytes"))
            self.close()
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._size = 0
        self._has_head = self._parser.get_status_code() >= 200

    def on_body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._max_body_bytes:
            self._fail(ConnectionError(f"the answer is larger than {self._max_body_bytes} bytes"))
            self.close()
            return
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._waiting is None or 100 <= status < 200:
            return
        self.is_kept = bool(self._parser.should_keep_alive())
        waiting, self._waiting = self._waiting, None
        if not waiting.done():
            waiting.set_result(Answer(status, self._headers, b"".join(self._chunks)))
        self._chunks = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._has_head and not self._headers.keys() & {"content-length", "transfer-encoding"}:
            # An answer without a length ends with its connection.
            self.on_message_complete()
        elif self._is_answering:
            self._fail(ConnectionError("the connection was closed within the answer"))
        self._fail(_ClosedBeforeAnswer(str(exc) if exc else "the connection was closed without an answer"))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def close(self) -> None:
        """Closes the connection."""
        self.is_lost = True
        self._transport.abort()
