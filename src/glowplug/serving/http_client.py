"""A small HTTP/1.1 client with kept connections, for the hop from a transformer to its predictor.

httpx takes half of such a hop's CPU time, and a third of a second to import; this needs asyncio and httptools.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import httptools

READ_BYTES = 256 * 1024
MAX_IDLE = 64


@dataclass(slots=True)
class Answer:
    """A response with its whole body; header names are lower-case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Collector:
    """httptools' callbacks for one response."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.chunks: list[bytes] = []
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def on_message_complete(self) -> None:
        self.is_complete = True


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpClient:
    """Requests to one host. Used by one event loop; `aclose` when done."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._idle: list[Connection] = []

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """One request and its response; raises OSError or ConnectionError where it cannot be had.

        A kept connection that the server closed meanwhile is replaced once: then nothing of the request was served.
        """
        head = self._head(method, path, headers, len(body))
        while self._idle:
            connection = self._idle.pop()
            if connection[0].at_eof() or connection[1].is_closing():
                connection[1].close()
                continue
            try:
                return await self._exchange(connection, head + body)
            except _ClosedBeforeAnswer:
                continue
        connection = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=READ_BYTES)
        return await self._exchange(connection, head + body)

    def _head(self, method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}:{self._port}", f"content-length: {length}"]
        lines += [
            f"{name}: {value}" for name, value in headers.items() if "\r" not in value and "\n" not in value
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    async def _exchange(self, connection: Connection, data: bytes) -> Answer:
        reader, writer = connection
        collector = _Collector()
        parser = httptools.HttpResponseParser(collector)
        is_kept = False
        try:
            writer.write(data)
            await writer.drain()
            while not collector.is_complete:
                chunk = await reader.read(READ_BYTES)
                if not chunk:
                    raise _ClosedBeforeAnswer(
                        f"{self._host}:{self._port} closed the connection without an answer"
                    )
                parser.feed_data(chunk)
            is_kept = bool(parser.should_keep_alive()) and len(self._idle) < MAX_IDLE
        except (ConnectionResetError, BrokenPipeError) as error:
            raise _ClosedBeforeAnswer(str(error)) from error
        except httptools.HttpParserError as error:
            raise ConnectionError(f"{self._host}:{self._port} does not answer in HTTP") from error
        finally:
            if is_kept:
                self._idle.append(connection)
            else:
                writer.close()
        collector.answer.status = parser.get_status_code()
        collector.answer.body = b"".join(collector.chunks)
        return collector.answer

    async def aclose(self) -> None:
        """Closes the kept connections."""
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()


class _ClosedBeforeAnswer(ConnectionError):
    """The connection ended before a whole answer came."""
