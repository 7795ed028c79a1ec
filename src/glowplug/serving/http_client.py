"""A small HTTP/1.1 client with kept connections, for the hop from a transformer to its predictor.

httpx takes half of such a hop's CPU time, and a third of a second to import; this needs asyncio and httptools. A call
is one write, one future and one timer: no stream, no task.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httptools

MAX_IDLE = 64


@dataclass(slots=True)
class Answer:
    """A response with its whole body; header names are lower-case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HttpClient:
    """Requests to one host. Used by one event loop; `aclose` when done."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._idle: list[_Connection] = []

    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """One request and its response, connecting included.

        Raises asyncio.TimeoutError, and OSError or ConnectionError where no answer can be had. A kept connection that
        the server closed meanwhile is replaced once: then nothing of the request was served.
        """
        loop = asyncio.get_running_loop()
        data = self._head(method, path, headers, len(body)) + body
        ends_at = None if timeout_s is None else loop.time() + timeout_s
        while self._idle:
            connection = self._idle.pop()
            if connection.is_lost:
                continue
            try:
                return await self._exchange(connection, data, ends_at)
            except ClosedBeforeAnswer:
                continue
        opening = loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        left_s = None if ends_at is None else ends_at - loop.time()
        _, connection = await asyncio.wait_for(opening, left_s)
        return await self._exchange(connection, data, ends_at)

    def _head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}:{self._port}", f"content-length: {length}"]
        lines += [
            f"{name}: {value}" for name, value in headers.items() if "\r" not in value and "\n" not in value
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    async def _exchange(self, connection: _Connection, data: bytes, ends_at: float | None) -> Answer:
        answer = connection.send(data)
        timer = None if ends_at is None else answer.get_loop().call_at(ends_at, _expire, answer)
        is_whole = False
        try:
            result = await answer
            is_whole = True
        except httptools.HttpParserError as error:
            raise ConnectionError(f"{self._host}:{self._port} does not answer in HTTP") from error
        finally:
            if timer is not None:
                timer.cancel()
            if is_whole and connection.is_kept and not connection.is_lost and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
            else:
                connection.close()
        return result

    async def aclose(self) -> None:
        """Closes the kept connections."""
        while self._idle:
            self._idle.pop().close()


class ClosedBeforeAnswer(ConnectionError):
    """The connection ended before a whole answer came."""


def _expire(answer: asyncio.Future[Answer]) -> None:
    if not answer.done():
        answer.set_exception(asyncio.TimeoutError())


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._waiting: asyncio.Future[Answer] | None = None
        self.is_kept = False
        self.is_lost = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, data: bytes) -> asyncio.Future[Answer]:
        """The answer to come. Its exception is ClosedBeforeAnswer or httptools.HttpParserError.

        Raises ClosedBeforeAnswer where the connection is gone already.
        """
        if self.is_lost or self._transport.is_closing():
            raise ClosedBeforeAnswer("the connection was closed before anything was sent")
        self._waiting = answer = self._loop.create_future()
        self._transport.write(data)
        return answer

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            # Nothing was asked, as above.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def on_message_begin(self) -> None:
        if self._waiting is None:
            # A second answer to one question: the next one could not be told from it.
            self.close()
        self._answer = Answer()
        self._chunks: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        waiting = self._waiting
        if waiting is None or 100 <= status < 200:
            return
        answer = self._answer
        answer.status = status
        answer.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.is_kept = bool(self._parser.should_keep_alive())
        self._waiting = None
        if not waiting.done():
            waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._fail(ClosedBeforeAnswer(str(exc) if exc else "the connection was closed without an answer"))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def close(self) -> None:
        """Closes the connection."""
        self.is_lost = True
        self._transport.abort()
