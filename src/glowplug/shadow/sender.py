"""Sends a copied request to the revision that is tried, over HTTP/1.1 to the ingress's own listener for it.

gRPC goes the same way: Envoy turns it into HTTP/2 on the way to the pod, and gives the trailers after the last chunk.
So the copy's bytes are sent as they are. `knative-serving-revision` names the revision; the ingress asks the activator
for a pod, which wakes one where there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import anyio

from glowplug.copies.exchange import Exchange, Message
from glowplug.spec import names

_LINE = b"\r\n"
_HEAD_LIMIT_BYTES = 256 * 1024
# Hop by hop, or of the caller's own way: its deadline is not ours, and its tag has led to the other revision.
_NOT_SENT = frozenset(
    {
        "host", "connection", "keep-alive", "content-length", "transfer-encoding", "upgrade", "proxy-connection",
        "expect", "accept-encoding", "grpc-timeout", names.TAG_HEADER, names.NAMESPACE_HEADER, names.REVISION_HEADER,
        names.SHADOW_HEADER,
    }
)  # fmt: skip
_NOT_SENT_PREFIXES = (":", "x-envoy-", "x-forwarded-", "x-glowplug-")


class NoAnswer(Exception):
    """Nothing that could be read came back."""


class AnswerTooLarge(Exception):
    """The answer's body is larger than what is compared."""


class Sender:
    """Requests to `socket`; used by one event loop. `close` when done."""

    def __init__(self, socket: Path, *, timeout_s: float, max_body_bytes: int) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, exchange: Exchange) -> Message:
        """The shadow's answer to the exchange's request. Raises NoAnswer or AnswerTooLarge."""
        data = request_bytes(exchange)
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._send(data)
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise NoAnswer(str(error) or type(error).__name__) from error

    async def _send(self, data: bytes) -> Message:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=_HEAD_LIMIT_BYTES)
        is_whole = False
        try:
            writer.write(data)
            await writer.drain()
            answer = await _read(reader, self._max_body_bytes)
            is_whole = answer.headers.get("connection", "") != "close"
            return answer
        finally:
            if is_whole:
                self._idle.append((reader, writer))
            else:
                writer.close()

    def close(self) -> None:
        """Closes the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()


def path_of(exchange: Exchange) -> str:
    """The request's path as the pod sees it."""
    path = exchange.request.headers.get(":path", "/")
    prefix = exchange.about.get(names.COPY_PREFIX, "")
    return "/" + path[len(prefix) :].lstrip("/") if prefix and path.startswith(prefix) else path


def request_bytes(exchange: Exchange) -> bytes:
    """The request as it is sent."""
    request = exchange.request
    namespace, _, revision = exchange.about.get(names.COPY_SHADOW, "").partition("/")
    headers = {
        "host": request.headers.get(":authority", "shadow"),
        **{name: value for name, value in request.headers.items() if _is_sent(name)},
        "content-length": str(len(request.body)),
        names.NAMESPACE_HEADER: namespace,
        names.REVISION_HEADER: revision,
        names.SHADOW_HEADER: exchange.about.get(names.COPY_REVISION, ""),
    }
    lines = [f"{request.headers.get(':method', 'POST')} {path_of(exchange)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value.isprintable()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + request.body


def _is_sent(name: str) -> bool:
    return name not in _NOT_SENT and not name.startswith(_NOT_SENT_PREFIXES)


async def _read(reader: asyncio.StreamReader, max_body_bytes: int) -> Message:
    first, *lines = (await reader.readuntil(_LINE + _LINE)).decode("latin-1").split("\r\n")
    headers = {":status": first.split(" ")[1], **_fields(lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = await _chunks(reader, headers, max_body_bytes)
    else:
        length = int(headers.get("content-length", "0"))
        if length > max_body_bytes:
            raise AnswerTooLarge
        body = await reader.readexactly(length)
    return Message(headers, body)


async def _chunks(reader: asyncio.StreamReader, headers: dict[str, str], max_body_bytes: int) -> bytes:
    """The body; its trailers go into `headers`."""
    chunks: list[bytes] = []
    left = max_body_bytes
    while size := int((await reader.readuntil(_LINE)).split(b";")[0], 16):
        left -= size
        if left < 0:
            raise AnswerTooLarge
        chunks.append((await reader.readexactly(size + len(_LINE)))[:-2])
    while (line := await reader.readuntil(_LINE)) != _LINE:
        headers.update(_fields([line.decode("latin-1")]))
    return b"".join(chunks)


def _fields(lines: list[str]) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in lines if line.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
