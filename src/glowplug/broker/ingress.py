"""The ingress: `POST /<namespace>/<broker>`; what it answers, and the socket that it listens on.

202 is said when every event of the request is on the disk, and for nothing less.
Source: knative.dev/eventing pkg/broker/ingress, and docs of the CloudEvents HTTP binding on batches.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import unquote

from glowplug.broker.connection import Connection, Request, Response, Service
from glowplug.broker.records import BrokerKey
from glowplug.errors import ConfigError, GlowplugError, StoreFull, TooLarge
from glowplug.wire.events import CloudEvent, EventProblem, decode

TTL = "knativebrokerttl"
_ALLOW = {"allow": "POST, OPTIONS"}
_FULL_AFTER_S = "10"
_BACKLOG = 1024


class Acceptor(Protocol):
    """Who writes events down."""

    def is_known(self, key: BrokerKey) -> bool: ...

    def is_busy(self) -> bool:
        """Whether too much waits to be written already."""

    def accept(self, key: BrokerKey, events: Sequence[tuple[CloudEvent, int]]) -> asyncio.Future[None]:
        """Done when the events, each with its hop limit, are on the disk. Its error is StoreFull or the disk's."""

    def answered(self, key: BrokerKey | None, status: int) -> None:
        """A request was answered."""


class Ingress:
    """Handles requests; `hop_limit` is an event's that has none."""

    def __init__(self, acceptor: Acceptor, hop_limit: int) -> None:
        self._acceptor = acceptor
        self._hop_limit = hop_limit
        self.is_stopping = False

    def handle(self, request: Request, answer: Callable[[Response], None]) -> None:
        """Answers at once what is refused, and else when it is written."""
        key, refusal = self._target(request)
        if refusal is None and key is not None:
            try:
                events = [limited(event, self._hop_limit) for event in decode(request.headers, request.body)]
            except EventProblem as error:
                refusal = Response(error.status, error.message)
        if refusal is not None or key is None:
            refusal = refusal or Response(404)
            self._acceptor.answered(key, refusal.status)
            answer(refusal)
            return
        if not events:
            self._acceptor.answered(key, 202)
            answer(Response(202))
            return
        written = self._acceptor.accept(key, events)
        written.add_done_callback(lambda future: self._written(key, future, answer))

    def _target(self, request: Request) -> tuple[BrokerKey | None, Response | None]:
        if request.method == "OPTIONS":
            # Anybody may send, as often as they like: https://github.com/cloudevents/spec, http-webhook.md
            return None, Response(
                200, "", {**_ALLOW, "webhook-allowed-origin": "*", "webhook-allowed-rate": "*"}
            )
        if request.method != "POST":
            return None, Response(405, f"{request.method}, expected POST", _ALLOW)
        segments = request.path.partition("?")[0].strip("/").split("/")
        if len(segments) != 2 or not all(segments):
            return None, Response(404, f"{request.path[:200]}, expected /<namespace>/<broker>")
        key = (unquote(segments[0]), unquote(segments[1]))
        if not self._acceptor.is_known(key):
            return None, Response(404, f"there is no Broker {key[1][:200]} in namespace {key[0][:200]}")
        if self.is_stopping:
            return key, Response(503, "the broker stops", {"retry-after": "1"})
        if self._acceptor.is_busy():
            return key, Response(503, "too many events wait to be written", {"retry-after": "1"})
        return key, None

    def _written(
        self, key: BrokerKey, future: asyncio.Future[None], answer: Callable[[Response], None]
    ) -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            response = Response(503, "the broker stops", {"retry-after": "1"})
        elif error is None:
            response = Response(202)
        elif isinstance(error, StoreFull):
            response = Response(507, f"{error.message}; {error.hint}", {"retry-after": _FULL_AFTER_S})
        elif isinstance(error, TooLarge):
            response = Response(413, error.message)
        elif isinstance(error, GlowplugError):
            # It may have been written all the same, where it is written to another computer.
            response = Response(503, error.message, {"retry-after": "1"})
        else:
            response = Response(500, f"nothing was written: {error}")
        self._acceptor.answered(key, response.status)
        answer(response)


def limited(event: CloudEvent, hop_limit: int) -> tuple[CloudEvent, int]:
    """The event without its hop limit, and what is left of it. Raises EventProblem where nothing is."""
    if TTL not in event.attributes:
        return event, hop_limit
    text = event.text(TTL)
    left = int(text) - 1 if text.removeprefix("-").isdecimal() and len(text) < 10 else hop_limit
    if left <= 0:
        raise EventProblem(f"{TTL} = {text}: the event has come back too often")
    rest = {name: value for name, value in event.attributes.items() if name != TTL}
    return CloudEvent(rest, event.data), left


def bind(host: str, port: int) -> socket.socket:
    """A socket, bound. Raises ConfigError where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio sets TCP_NODELAY on what it accepts.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the broker's port {port} on {host} cannot be opened: {error.strerror}",
            hint="stop what has it, or take another with --broker-port (0 takes a free one)",
        ) from error
    return listener


async def listen(service: Service, listener: socket.socket) -> asyncio.AbstractServer:
    """Connections are taken from here on. Raises ConfigError where another process listens."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(lambda: Connection(service), sock=listener, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(f"the broker's port cannot be listened on: {error.strerror}") from error
