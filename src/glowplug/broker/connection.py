"""HTTP/1.1 on one connection of the ingress: httptools' parser in, short answers out.

A body is refused by its declared length before any of it is read, and by what has come where none is declared; all
bodies together are bounded, too. A small request is parsed and left to the log in the callback that brought it, without
a task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import httptools

MAX_HEADER_BYTES = 64 * 1024
# A client that is still sending does not read the refusal, so this much of what it sends is read and dropped.
MAX_DROPPED_BYTES = 256 * 2**20
# From a request's first byte to its last.
READ_TIMEOUT_S = 300.0
# Requests that a client may send ahead before it is made to wait.
_MAX_AHEAD = 16


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request; header names are in lower case. `path` is as it was sent, with its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """`text` says what is wrong; an accepted event has none."""

    status: int
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Handler(Protocol):
    """Who answers requests."""

    def handle(self, request: Request, answer: Callable[[Response], None]) -> None:
        """Answers once, now or later, on the event loop."""


class Service:
    """What the connections of one ingress share. `refused` counts answers that no handler gave, by status."""

    def __init__(
        self, handler: Handler, *, max_body_bytes: int, max_held_bytes: int, keep_alive_s: float
    ) -> None:
        self.handler = handler
        self.max_body_bytes = max_body_bytes
        self.max_held_bytes = max_held_bytes
        self.keep_alive_s = keep_alive_s
        self.held_bytes = 0
        self.is_stopping = False
        self.connections: set[Connection] = set()

    def has_requests(self) -> bool:
        """Whether anything that came is not answered yet."""
        return any(connection.is_busy for connection in self.connections)


class Connection(asyncio.Protocol):
    """One connection. Its requests are answered one after the other, in order."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._waiting: deque[tuple[Request | Response, bool, int]] = deque()
        self._is_answering = False
        self._is_advancing = False
        self._is_kept = True
        self._held = 0
        self._is_paused = False
        self._is_closing = False
        self._is_broken = False
        self._is_in_message = False
        self._size = 0
        self._reset()

    @property
    def is_busy(self) -> bool:
        return self._is_answering or bool(self._waiting)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._service.connections.add(self)
        self._arm(self._service.keep_alive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._service.connections.discard(self)
        self._service.held_bytes -= self._size + sum(size for *_, size in self._waiting)
        self._size = 0
        self._waiting.clear()
        self._disarm()

    def data_received(self, data: bytes) -> None:
        if self._is_closing or self._is_broken:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request was taken as plain HTTP/1.1, which the protocol allows; its answer closes the connection.
            self._is_broken = True
        except httptools.HttpParserError:
            self._refuse(Response(400, "the request is not HTTP/1.1"))

    def eof_received(self) -> bool:
        """An answer at hand is still sent."""
        if not self.is_busy:
            self._loop.call_soon(self.close)
        self._is_kept = False
        return True

    def on_message_begin(self) -> None:
        self._reset()
        self._is_in_message = True
        if not self._is_answering:
            self._arm(READ_TIMEOUT_S)

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._chunks: list[bytes] = []
        # Of this body, what counts as held; and what came in all.
        self._size = 0
        self._came = 0
        self._refusal: Response | None = None

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        key = name.decode("latin-1").lower()
        if key in self._headers and key.startswith("ce-"):
            self._refusal = Response(400, f"{key[3:]} is given twice")
        self._headers[key] = value.decode("latin-1")

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(Response(431, f"the headers are larger than {MAX_HEADER_BYTES} bytes"))
            raise ValueError("headers too large")

    def on_headers_complete(self) -> None:
        declared = self._headers.get("content-length", "")
        size = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 19 else 0
        if size > self._service.max_body_bytes:
            self._refusal = self._too_large(size)
        elif size + self._service.held_bytes > self._service.max_held_bytes:
            self._refusal = _no_room()
        if self._headers.get("expect", "").lower() == "100-continue":
            if self._refusal is not None:
                self._refuse(self._refusal)
            elif not self.is_busy:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        self._came += len(chunk)
        service = self._service
        if self._refusal is None and self._came > service.max_body_bytes:
            self._refusal = self._too_large(self._came)
        if self._refusal is None and service.held_bytes + len(chunk) > service.max_held_bytes:
            self._refusal = _no_room()
        if self._refusal is None:
            self._chunks.append(chunk)
            self._size += len(chunk)
            service.held_bytes += len(chunk)
            return
        self._let_go()
        if self._came > service.max_body_bytes + MAX_DROPPED_BYTES:
            self._refuse(self._refusal)

    def _too_large(self, size: int) -> Response:
        limit = self._service.max_body_bytes
        return Response(413, f"the body has {size} bytes or more, expected at most {limit}")

    def _let_go(self) -> None:
        self._chunks.clear()
        self._service.held_bytes -= self._size
        self._size = 0

    def on_message_complete(self) -> None:
        if self._is_closing or self._is_broken:
            return
        self._is_in_message = False
        self._deadline = None
        is_kept = bool(self._parser.should_keep_alive()) and not self._parser.should_upgrade()
        if self._refusal is not None:
            self._let_go()
            self._waiting.append((self._refusal, False, 0))
        else:
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            method = self._parser.get_method().decode()
            request = Request(method, self._url.decode("latin-1"), self._headers, body)
            self._waiting.append((request, is_kept, self._size))
        self._chunks, self._size = [], 0
        if len(self._waiting) > _MAX_AHEAD and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._advance()

    def _advance(self) -> None:
        """Starts on the next request, and on those after it as long as they are answered at once."""
        if self._is_advancing:
            return
        self._is_advancing = True
        while self._waiting and not (self._is_answering or self._is_closing):
            item, is_kept, self._held = self._waiting.popleft()
            self._is_kept = self._is_kept and is_kept
            self._is_answering = True
            if isinstance(item, Response):
                self._answer(item)
            else:
                self._service.handler.handle(item, self._answer)
        self._is_advancing = False
        if not (self.is_busy or self._is_closing):
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            self._arm(READ_TIMEOUT_S if self._is_in_message else self._service.keep_alive_s)

    def _answer(self, response: Response) -> None:
        self._is_answering = False
        self._service.held_bytes -= self._held
        self._held = 0
        if self._is_closing or self._transport.is_closing():
            return
        self._write(response)
        if not self._is_closing:
            self._advance()

    def _write(self, response: Response) -> None:
        is_kept = self._is_kept and not self._service.is_stopping
        body = f"{response.text}\n".encode("utf-8", "replace") if response.text else b""
        lines = [f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, '')}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if body:
            lines.append("content-type: text/plain; charset=utf-8")
        lines.append(f"content-length: {len(body)}")
        lines.append("\r\n" if is_kept else "connection: close\r\n\r\n")
        self._transport.write("\r\n".join(lines).encode("latin-1", "replace") + body)
        if not is_kept:
            self.close()

    def _refuse(self, response: Response) -> None:
        """Answers what cannot be read further; requests that were whole before it are answered first."""
        if self._is_closing or self._is_broken:
            return
        self._is_broken = True
        self._let_go()
        self._waiting.append((response, False, 0))
        self._advance()

    def close(self) -> None:
        """Closes the connection once what was written is sent."""
        self._is_closing = True
        self._disarm()
        self._transport.close()

    def close_if_idle(self) -> None:
        """Closes the connection unless a request is being answered."""
        if not self.is_busy:
            self.close()

    def _arm(self, delay_s: float) -> None:
        """Closes the connection in so long, unless it is armed anew or a request is being answered then."""
        self._deadline = self._loop.time() + delay_s
        if self._timer is None:
            self._timer = self._loop.call_later(min(delay_s, self._service.keep_alive_s), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._deadline is None or self.is_busy:
            # It is armed again when everything is answered.
            return
        left_s = self._deadline - self._loop.time()
        if left_s <= 0:
            self.close()
        else:
            self._timer = self._loop.call_later(left_s, self._on_time)

    def _disarm(self) -> None:
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _no_room() -> Response:
    return Response(503, "too many events are being read and written", {"retry-after": "1"})


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
