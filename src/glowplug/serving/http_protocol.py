"""HTTP/1.1 on a connection: httptools' parser in, whole responses out.

Written on asyncio.Protocol itself because of two measurements: a general ASGI server adds 0.15 s to the start of the
process (it brings a command line and a reloader) and as much CPU to a small request as the rest of its way through
here; and uvicorn's own loop wakes ten times a second for ever, which many idle pods on one machine feel.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Any

import httptools

from glowplug.errors import InferenceError
from glowplug.serving.http import HttpEndpoints, HttpRequest, HttpResponse, error_response, too_large

MAX_HEADER_BYTES = 64 * 1024
# A client that is still sending does not read the refusal, so this much of what it sends is read and dropped.
MAX_DROPPED_BYTES = 256 * 2**20
# From a request's first byte to its last.
READ_TIMEOUT_S = 300
# Requests that a client may send ahead on one connection before it is made to wait.
MAX_AHEAD = 16

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class HttpService:
    """What the connections of one listener share."""

    def __init__(self, endpoints: HttpEndpoints, *, max_body_bytes: int, keep_alive_s: float) -> None:
        self.endpoints = endpoints
        self.max_body_bytes = max_body_bytes
        self.keep_alive_s = keep_alive_s
        # From here on every response closes its connection, so that clients go elsewhere.
        self.is_draining = False
        self.connections: set[HttpProtocol] = set()
        self.tasks: set[asyncio.Task[None]] = set()


class HttpProtocol(asyncio.Protocol):
    """One connection. Requests on it are answered one after the other, in order."""

    def __init__(self, service: HttpService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[HttpRequest | HttpResponse, bool]] = deque()
        self._is_answering = False
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._is_broken = False
        self.on_message_begin()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._service.connections.add(self)
        self._arm(self._service.keep_alive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._waiting.clear()
        self._service.connections.discard(self)
        self._disarm()
        if self._is_answering and self._task is not None:
            # Nobody is left to answer, and its place is free for somebody else.
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_closing or self._is_broken:
            return
        if not self._is_in_message and not self._is_answering:
            self._arm(READ_TIMEOUT_S)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request was taken as plain HTTP/1.1, which the protocol allows; the parser reads no further.
            self._is_last = True
        except httptools.HttpParserError:
            self._refuse(InferenceError("the request is not HTTP/1.1"))

    def eof_received(self) -> bool:
        """A client that ends its side is gone, as for Envoy, nginx and Go; an answer at hand is still sent."""
        self._loop.call_soon(self.close)
        return True

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._refusal: InferenceError | None = None
        self._is_in_message = self._transport is not None
        self._is_last = False

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(InferenceError(f"the headers are larger than {MAX_HEADER_BYTES} bytes", code=431))
            raise ValueError("headers too large")

    def on_headers_complete(self) -> None:
        declared = self._headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._service.max_body_bytes:
            self._refusal = too_large(self._service.max_body_bytes)
        if self._headers.get("expect", "").lower() == "100-continue":
            if self._refusal is not None:
                self._refuse(self._refusal)
            elif not self._is_answering:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        limit = self._service.max_body_bytes
        if self._size > limit:
            self._refusal = self._refusal or too_large(limit)
            if self._size > limit + MAX_DROPPED_BYTES:
                self._refuse(self._refusal)
        if self._refusal is not None:
            self._chunks.clear()
        else:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        if self._is_closing:
            return
        self._is_in_message = False
        self._disarm()
        is_kept = bool(self._parser.should_keep_alive())
        item: HttpRequest | HttpResponse
        try:
            if self._refusal is not None:
                raise self._refusal
            item = self._request()
        except InferenceError as error:
            item, is_kept = error_response(error), False
        self._waiting.append((item, is_kept))
        if len(self._waiting) > MAX_AHEAD:
            self._transport.pause_reading()
        if not self._is_answering:
            self._next()

    def _request(self) -> HttpRequest:
        try:
            url = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            raise InferenceError("the request's URL is not valid") from None
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        method = self._parser.get_method().decode()
        path = (url.path or b"/").decode("latin-1")
        return HttpRequest(method, path, (url.query or b"").decode("latin-1"), self._headers, body)

    def _next(self) -> None:
        if not self._waiting:
            self._transport.resume_reading()
            if not self._is_in_message:
                self._arm(self._service.keep_alive_s)
            return
        item, is_kept = self._waiting.popleft()
        if isinstance(item, HttpResponse):
            self._write(item, is_kept=is_kept, is_head=False)
            return
        self._is_answering = True
        self._task = task = self._loop.create_task(self._answer(item, is_kept), name="http request")
        self._service.tasks.add(task)
        task.add_done_callback(self._service.tasks.discard)

    async def _answer(self, request: HttpRequest, is_kept: bool) -> None:
        response = await self._service.endpoints.answer(request)
        self._is_answering = False
        if self._transport.is_closing():
            return
        self._write(response, is_kept=is_kept and not self._is_last, is_head=request.method == "HEAD")
        if not self._is_closing:
            self._next()

    def _write(self, response: HttpResponse, *, is_kept: bool, is_head: bool) -> None:
        is_kept = is_kept and not self._service.is_draining
        parts = [_STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} \r\n".encode()]
        for name, value in response.headers.items():
            parts.append(f"{name}: {value}\r\n".encode("latin-1", "replace"))
        parts.append(b"content-length: %d\r\n" % len(response.body))
        parts.append(b"\r\n" if is_kept else b"connection: close\r\n\r\n")
        if not is_head:
            parts.append(response.body)
        self._transport.write(b"".join(parts))
        if not is_kept:
            self.close()

    def _refuse(self, error: InferenceError) -> None:
        """Answers what cannot be read further; requests that were whole before it are answered first."""
        if self._is_closing:
            return
        self._is_broken = True
        if self._is_answering or self._waiting:
            self._waiting.append((error_response(error), False))
            return
        self._write(error_response(error), is_kept=False, is_head=False)

    def close(self) -> None:
        """Closes the connection once what was written is sent."""
        self._is_closing = True
        self._disarm()
        self._transport.close()

    def close_if_idle(self) -> None:
        """Closes the connection unless a request is being read or answered."""
        if not (self._is_answering or self._waiting or self._is_in_message):
            self.close()

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(delay_s, self._on_timeout)

    def _on_timeout(self) -> None:
        if not self._is_answering:
            self.close()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
