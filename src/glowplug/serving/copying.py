"""Copies of requests and answers, handed over by the server itself once an answer is on its way.

On a machine that logs payloads or tries shadows, its ingress says with a header which requests are copied, and how; the
name of the header is a secret, so it is gone before a model sees the request. Elsewhere this module is not imported.

To hand over is to write frames (`copies.frames`) to a unix socket that is never waited for: 10 us between two requests,
of which the caller sees nothing. What finds no room is counted. Nothing is raised into a request's way.
Used by one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from glowplug.copies.encoding import PIECE_BYTES, encode
from glowplug.copies.exchange import Message
from glowplug.copies.settings import Settings, Taker
from glowplug.serving.http import DirectCall, HttpRequest, HttpResponse
from glowplug.serving.http_protocol import Endpoints
from glowplug.wire.http2 import Stream
from glowplug.wire.http2.messages import PREFIX, encode_text
from glowplug.wire.http2.server import Handler

log = logging.getLogger("glowplug.serving.copying")

# What Linux gives to everybody (wmem_max); it takes twice as much. As in `copy.lua`.
SEND_BUFFER_BYTES = 212_992
# The milliseconds until the answer: as Envoy says it, where Envoy copies.
_TIME = "x-envoy-upstream-service-time"
_GRPC = "application/grpc"
_settings_of = lru_cache(256)(Settings.from_header)


class _Line:
    """The connection to one taker."""

    def __init__(self, taker: Taker) -> None:
        self.taker = taker
        self._socket: socket.socket | None = None
        # No other process has it, and after a fork a new one is made.
        self._here = f"{os.getpid()}.{os.urandom(6).hex()}"
        self._number = 0
        self._lost = 0

    def copy(self, settings_text: str, request: Message, answer: Message) -> None:
        """Hands the exchange over, or counts it."""
        try:
            self._number += 1
            frames = encode(
                f"{self._here}.{self._number}", _settings_of(settings_text), request, answer,
                max_body_bytes=self.taker.max_body_bytes, answer_headers=self.taker.answer_headers,
            )  # fmt: skip
            if sum(map(len, frames)) <= 2 * PIECE_BYTES:
                frames = [b"".join(frames)]
            if not all(map(self._send, frames)):
                self._lose()
        except Exception:
            log.exception("a request could not be copied")
            self._lose()

    def _send(self, data: bytes) -> bool:
        """Whether all of it was taken. A socket that is full is left to its reader, who takes what is whole in it; how
        many may wait so is the listener's affair."""
        if self._socket is not None and self._is_sent(self._socket, data):
            return True
        self.close()
        with contextlib.suppress(OSError):
            self._socket = self._connected()
        return self._socket is not None and self._is_sent(self._socket, data)

    def _is_sent(self, to: socket.socket, data: bytes) -> bool:
        try:
            return to.send(data) == len(data)
        except OSError:
            return False

    def _connected(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found.setblocking(False)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            found.connect(self.taker.socket)
        except OSError:
            found.close()
            raise
        return found

    def _lose(self) -> None:
        self._lost += 1
        if not self.taker.lost:
            return
        with contextlib.suppress(OSError):
            number = os.open(os.path.join(self.taker.lost, self._here), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(number, b"%d" % self._lost, 0)
            finally:
                os.close(number)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Asked:
    """One request that is to be copied, and by whom it is asked."""

    __slots__ = ("_began_at", "_loop", "_texts", "headers")

    def __init__(self, texts: list[tuple[_Line, str]], headers: dict[str, str]) -> None:
        self._texts = texts
        self.headers = headers
        self._began_at = time.monotonic()
        self._loop = asyncio.get_running_loop()

    def answered(self, headers: Mapping[str, str], body: bytes, answer: Message) -> None:
        """Copies it when the answer, which has just been given to the transport, has left: transports write at the end
        of a turn of the loop, and what they were given in a callback of that turn is written in the next."""
        took_ms = int((time.monotonic() - self._began_at) * 1000)
        timed = Message({**answer.headers, _TIME: str(took_ms)}, answer.body)
        self._loop.call_soon(self._loop.call_soon, self._copy, Message(headers, body), timed)

    def _copy(self, request: Message, answer: Message) -> None:
        for line, text in self._texts:
            line.copy(text, request, answer)


class Copying:
    """What a server copies. `close` when done."""

    def __init__(self, takers: Sequence[Taker]) -> None:
        self._lines = [_Line(taker) for taker in takers]
        self._secrets = frozenset(taker.header for taker in takers)

    def asked(self, headers: Mapping[str, str]) -> Asked | None:
        """None for a request that is not to be copied, which has no such header then."""
        texts = [(line, text) for line in self._lines if (text := headers.get(line.taker.header)) is not None]
        if not texts:
            return None
        return Asked(texts, {name: value for name, value in headers.items() if name not in self._secrets})

    def http(self, endpoints: Endpoints) -> Endpoints:
        """Endpoints that copy what those answer."""
        return _HttpEndpoints(self, endpoints)

    def grpc(self, handler: Handler) -> Handler:
        """A handler that copies what that one answers."""
        return _GrpcHandler(self, handler)

    def close(self) -> None:
        """Closes the connections."""
        for line in self._lines:
            line.close()


class _HttpEndpoints:
    def __init__(self, copying: Copying, endpoints: Endpoints) -> None:
        self._copying = copying
        self._endpoints = endpoints

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> DirectCall | None:
        asked = self._copying.asked(request.headers)
        if asked is None:
            return self._endpoints.begin(request, done)

        def answered(response: HttpResponse) -> None:
            done(response)
            _tell(asked, clean, response)

        clean = _with(request, asked.headers)
        return self._endpoints.begin(clean, answered)

    async def answer(self, request: HttpRequest) -> HttpResponse:
        asked = self._copying.asked(request.headers)
        if asked is None:
            return await self._endpoints.answer(request)
        clean = _with(request, asked.headers)
        response = await self._endpoints.answer(clean)
        # Whoever awaits this gives the answer to the transport in the same turn of the loop.
        _tell(asked, clean, response)
        return response


def _with(request: HttpRequest, headers: Mapping[str, str]) -> HttpRequest:
    return HttpRequest(request.method, request.path, request.query, headers, request.body)


def _tell(asked: Asked, request: HttpRequest, response: HttpResponse) -> None:
    if request.method != "POST":
        return
    path = f"{request.path}?{request.query}" if request.query else request.path
    headers = {":method": "POST", ":path": path, **request.headers}
    if "host" in headers:
        headers[":authority"] = headers.pop("host")
    answer = Message({":status": str(response.status), **response.headers}, response.body)
    asked.answered(headers, request.body, answer)


class _GrpcCall:
    """Stands for a stream at the handler that answers it."""

    __slots__ = ("_asked", "_stream", "data", "state")

    def __init__(self, stream: Stream, asked: Asked) -> None:
        self._stream = stream
        self._asked = asked
        self.data = b""
        self.state: Any = None

    @property
    def is_open(self) -> bool:
        return self._stream.is_open

    def reply(self, message: bytes) -> None:
        if self.is_open:
            self._stream.reply(message)
            self._tell({"grpc-status": "0"}, _prefixed(message))

    def reply_error(self, code: int, text: str, trailers: Sequence[tuple[str, str]] = ()) -> None:
        if self.is_open:
            self._stream.reply_error(code, text, trailers)
            self._tell(
                {"grpc-status": str(code), **({"grpc-message": encode_text(text)} if text else {})}, b""
            )

    def _tell(self, status: Mapping[str, str], body: bytes) -> None:
        answer = Message({":status": "200", "content-type": _GRPC, **status}, body)
        self._asked.answered(self._asked.headers, self.data, answer)


class _GrpcHandler:
    def __init__(self, copying: Copying, handler: Handler) -> None:
        self._copying = copying
        self._handler = handler

    def request(self, stream: Stream, headers: Mapping[str, str]) -> None:
        asked = self._copying.asked(headers)
        if asked is None:
            self._handler.request(stream, headers)
            return
        stream.state = call = _GrpcCall(stream, asked)
        self._handler.request(cast(Stream, call), asked.headers)

    def message(self, stream: Stream, data: bytes) -> None:
        state = stream.state
        if type(state) is _GrpcCall:
            state.data = _prefixed(data)
        self._handler.message(_known(stream), data)

    def ended(self, stream: Stream) -> None:
        self._handler.ended(_known(stream))

    def reset(self, stream: Stream) -> None:
        self._handler.reset(_known(stream))


def _known(stream: Stream) -> Stream:
    """As the handler knows it."""
    state = stream.state
    return cast(Stream, state) if type(state) is _GrpcCall else stream


def _prefixed(message: bytes) -> bytes:
    """As it is on the wire, uncompressed."""
    return PREFIX.pack(0, len(message)) + message
