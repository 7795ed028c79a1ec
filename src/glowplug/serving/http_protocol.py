"""HTTP/1.1 on a connection: httptools' parser in, whole responses out.

Written on asyncio.Protocol itself because of two measurements: a general ASGI server adds 0.15 s to the start of the
process (it brings a command line and a reloader) and as much CPU to a small request as the rest of its way through
here; and uvicorn's own loop wakes ten times a second for ever, which many idle pods on one machine feel.

A small request is read, decoded and queued for its model's next batch in the callback that brought its bytes, and
answered in the one that ran the batch: no task, no future, no timer. Any other request is a task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

import httptools

from glowplug.errors import InferenceError
from glowplug.serving.http import (
    DirectCall,
    HttpRequest,
    HttpResponse,
    error_response,
    too_large,
)

MAX_HEADER_BYTES = 64 * 1024
# A client that is still sending does not read the refusal, so this much of what it sends is read and dropped.
MAX_DROPPED_BYTES = 256 * 2**20
# From a request's first byte to its last.
READ_TIMEOUT_S = 300
# Requests that a client may send ahead on one connection before it is made to wait.
MAX_AHEAD = 16
# Header names and URLs up to so many bytes are looked up among those seen last, which bounds what is kept.
MAX_KNOWN = 256

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Endpoints(Protocol):
    """Who answers; `begin` may be None for every request, then `answer` is asked."""

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> DirectCall | None: ...

    async def answer(self, request: HttpRequest) -> HttpResponse: ...


class HttpService:
    """What the connections of one listener share."""

    def __init__(self, endpoints: Endpoints, *, max_body_bytes: int, keep_alive_s: float) -> None:
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
        # One timer for the life of the connection, which looks at the deadline when it fires: to move a timer for
        # each request would cost more than to parse one.
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._waiting: deque[tuple[HttpRequest | HttpResponse, bool]] = deque()
        self._is_answering = False
        self._is_advancing = False
        self._current: tuple[bool, bool] = (False, False)
        self._work: asyncio.Task[None] | DirectCall | None = None
        self._is_paused = False
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
        if self._is_answering and self._work is not None:
            # Nobody is left to answer, and its place is free for somebody else.
            self._work.cancel()
            self._is_answering = isinstance(self._work, asyncio.Task)

    def data_received(self, data: bytes) -> None:
        if self._is_closing or self._is_broken:
            return
        was_in_message = self._is_in_message
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request was taken as plain HTTP/1.1, which the protocol allows; the parser reads no further, and the
            # answer closes the connection.
            self._is_broken = True
        except httptools.HttpParserError:
            self._refuse(InferenceError("the request is not HTTP/1.1"))
        if self._is_in_message and not was_in_message and not self._is_answering:
            self._arm(READ_TIMEOUT_S)

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

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        key = _known_header(name) if len(name) <= MAX_KNOWN else _header(name)
        self._headers[key] = value.decode("latin-1")

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(InferenceError(f"the headers are larger than {MAX_HEADER_BYTES} bytes", code=431))
            raise ValueError("headers too large")

    def on_headers_complete(self) -> None:
        declared = self._headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._service.max_body_bytes:
            self._refusal = too_large(self._service.max_body_bytes)
        if "expect" in self._headers and self._headers["expect"].lower() == "100-continue":
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
        self._deadline = None
        is_kept = bool(self._parser.should_keep_alive()) and not self._parser.should_upgrade()
        item: HttpRequest | HttpResponse
        try:
            if self._refusal is not None:
                raise self._refusal
            item = self._request()
        except InferenceError as error:
            item, is_kept = error_response(error), False
        self._waiting.append((item, is_kept))
        if len(self._waiting) > MAX_AHEAD and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._advance()

    def _request(self) -> HttpRequest:
        url = self._url
        path, query = _split_known_url(url) if len(url) <= MAX_KNOWN else _split_url(url)
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        return HttpRequest(self._parser.get_method().decode(), path, query, self._headers, body)

    def _advance(self) -> None:
        """Starts on the next request, and on those after it as long as they are answered at once."""
        if self._is_advancing or self._is_answering:
            return
        self._is_advancing = True
        while self._waiting and not (self._is_answering or self._is_closing):
            item, is_kept = self._waiting.popleft()
            if isinstance(item, HttpResponse):
                self._write(item, is_kept=is_kept, is_head=False)
            else:
                self._start(item, is_kept)
        self._is_advancing = False
        if not (self._is_answering or self._is_closing):
            self._rest()

    def _rest(self) -> None:
        """Everything that has come is answered."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        self._arm(READ_TIMEOUT_S if self._is_in_message else self._service.keep_alive_s)

    def _start(self, request: HttpRequest, is_kept: bool) -> None:
        self._is_answering = True
        self._current = (is_kept, request.method == "HEAD")
        self._work = self._service.endpoints.begin(request, self._answer)
        if self._work is None:
            self._work = task = self._loop.create_task(self._serve(request), name="http request")
            self._service.tasks.add(task)
            task.add_done_callback(self._service.tasks.discard)

    async def _serve(self, request: HttpRequest) -> None:
        self._answer(await self._service.endpoints.answer(request))

    def _answer(self, response: HttpResponse) -> None:
        self._is_answering = False
        if self._transport.is_closing():
            return
        is_kept, is_head = self._current
        self._write(response, is_kept=is_kept, is_head=is_head)
        if not self._is_closing:
            self._advance()

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
        """Closes the connection in so long, unless it is armed anew or a request is being answered then."""
        now = self._loop.time()
        self._deadline = now + delay_s
        if self._timer is None:
            self._timer = self._loop.call_later(min(delay_s, self._service.keep_alive_s), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._deadline is None or self._is_answering:
            # It is armed again when everything is answered.
            return
        left_s = self._deadline - self._loop.time()
        if left_s <= 0:
            self.close()
        else:
            self._arm(left_s)

    def _disarm(self) -> None:
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _header(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _split_url(url: bytes) -> tuple[str, str]:
    """Path and query, percent-encoded. Raises InferenceError (400)."""
    try:
        parts = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise InferenceError("the request's URL is not valid") from None
    return (parts.path or b"/").decode("latin-1"), (parts.query or b"").decode("latin-1")


# The same few come with every request.
_known_header = lru_cache(maxsize=256)(_header)
_split_known_url = lru_cache(maxsize=256)(_split_url)
