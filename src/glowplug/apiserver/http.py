"""Requests and answers, as values over raw ASGI: what an endpoint gets and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from glowplug.apiserver import protobuf
from glowplug.apiserver.admission import decode as decode_body
from glowplug.apiserver.codec import Object, encode
from glowplug.apiserver.negotiate import JSON
from glowplug.errors import ApiError, BadRequest, TooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# A body over the limit is read to its end, so that the client hears why, but not for ever.
_DRAIN_FACTOR = 16
# Characters of all warnings of an answer, and of each where all are more.
_MAX_WARNINGS, _MAX_WARNING = 4096, 256


@dataclass(frozen=True)
class Request:
    """One request; header names are lower case, and of a repeated query parameter the last one counts."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    receive: Receive
    max_body_bytes: int

    @property
    def user_agent(self) -> str:
        return self.headers.get("user-agent", "")

    @property
    def accept(self) -> str:
        return self.headers.get("accept", "")

    @property
    def content_type(self) -> str:
        """The media type of the body, without its parameters."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    async def body(self) -> bytes:
        """The whole body. Raises TooLarge, BadRequest if the client left in the middle of it."""
        chunks: list[bytes] = []
        size, is_last = 0, False
        while not is_last:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise BadRequest("the client went away before the end of its request")
            chunk: bytes = message.get("body", b"")
            is_last = not message.get("more_body", False)
            size += len(chunk)
            if size <= self.max_body_bytes:
                chunks.append(chunk)
            elif size > self.max_body_bytes * _DRAIN_FACTOR:
                break
        if size > self.max_body_bytes:
            raise TooLarge(
                f"Request entity too large: limit is {self.max_body_bytes} bytes",
                hint="put big data into a volume or a model store, and name it in the object",
            )
        return b"".join(chunks)


async def read_object(request: Request) -> tuple[Object, tuple[str, ...]]:
    """The object in the request's body, and the paths of fields that it gives twice. Raises BadRequest."""
    body = await request.body()
    if request.content_type == protobuf.CONTENT_TYPE:
        return protobuf.decode(body), ()
    return decode_body(body, request.content_type or JSON)


@dataclass(frozen=True)
class Response:
    """A whole answer; `warnings` become `Warning: 299` headers."""

    body: bytes
    code: int = 200
    content_type: str = JSON
    warnings: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Stream:
    """An answer that goes on until its source ends, the client leaves or the server stops."""

    chunks: AsyncGenerator[bytes, None]
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = field(default=())


def request_of(scope: Scope, receive: Receive, max_body_bytes: int) -> Request:
    """The request in an ASGI scope."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Request(
        method=scope["method"],
        path=(scope.get("raw_path") or scope["path"].encode()).decode("latin-1").split("?")[0],
        query=dict(query),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        receive=receive,
        max_body_bytes=max_body_bytes,
    )


def json_response(value: Any, code: int = 200) -> Response:
    return Response(encode(value), code)


def status_response(error: ApiError, details: dict[str, str] | None = None) -> Response:
    """An error as a Kubernetes Status; a full store says when to come back."""
    status: dict[str, Any] = error.status(dict(details or {}))
    if error.code == 507:
        status["details"]["retryAfterSeconds"] = 5
    return Response(encode(status), error.code, warnings=error.warnings)


async def send_response(send: Send, response: Response, *, is_head: bool = False) -> None:
    headers = _headers(response.content_type, response.headers)
    headers.append((b"content-length", str(len(response.body)).encode()))
    headers += [
        (b"warning", f'299 - "{_quoted(text)}"'.encode("latin-1", "replace"))
        for text in _bounded(response.warnings)
    ]
    await send({"type": "http.response.start", "status": response.code, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else response.body})


async def start_stream(send: Send, stream: Stream) -> None:
    headers = _headers(stream.content_type, stream.headers)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # An empty chunk: the client may be waiting for the headers alone.
    await send({"type": "http.response.body", "body": b"", "more_body": True})


def _headers(content_type: str, extra: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    pairs = (("content-type", content_type), ("cache-control", "no-cache, private"), *extra)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def _bounded(warnings: tuple[str, ...]) -> Iterator[str]:
    """As Kubernetes bounds them: clients fail on long headers, when what they asked for is done."""
    if sum(map(len, warnings)) <= _MAX_WARNINGS:
        yield from warnings
        return
    left = _MAX_WARNINGS
    for text in (text[:_MAX_WARNING] for text in warnings):
        left -= len(text)
        if left < 0:
            return
        yield text


def _quoted(text: str) -> str:
    # A header is one line.
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
