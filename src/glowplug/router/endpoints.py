"""Answers Envoy's polls for the endpoints of a cluster, on a unix socket.

Envoy asks with the version that it has (`POST /v3/discovery:endpoints`). The answer is at once where the router has
another one, and else when it gets another one: a long poll, so that changes arrive at once and nothing moves while
nothing changes. See https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#rest-json-polling-subscriptions.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import cast

import httptools
import orjson

from glowplug.router.xds import Document

_log = logging.getLogger(__name__)


class EndpointSource:
    """The endpoints of every cluster, and the polls that wait for the next version of one."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._polls: dict[str, set[_Poll]] = {}
        self._connections: set[_Poll] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        """Listens on the unix socket `path`, which only this user may open."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Poll(self), str(path))
        os.chmod(path, 0o600)

    def close(self) -> None:
        """Ends every poll and stops listening."""
        if self._server is not None:
            self._server.close()
        for poll in tuple(self._connections):
            poll.close()

    def put(self, cluster: str, document: Document) -> None:
        """Makes `document` the cluster's endpoints, and tells who waits for them."""
        self._documents[cluster] = document
        for poll in self._polls.pop(cluster, set()):
            poll.answer(document)

    def drop(self, cluster: str) -> None:
        """Forgets a cluster that Envoy no longer has."""
        self._documents.pop(cluster, None)

    def _opened(self, poll: _Poll) -> None:
        self._connections.add(poll)

    def _asked(self, poll: _Poll, cluster: str, version: str) -> None:
        document = self._documents.get(cluster)
        if document is not None and document.version != version:
            poll.answer(document)
        else:
            self._polls.setdefault(cluster, set()).add(poll)

    def _closed(self, poll: _Poll, cluster: str) -> None:
        self._connections.discard(poll)
        polls = self._polls.get(cluster, set())
        polls.discard(poll)
        if not polls:
            self._polls.pop(cluster, None)


class _Poll(asyncio.Protocol):
    """One connection of Envoy; it carries one request at a time."""

    def __init__(self, source: EndpointSource) -> None:
        self._source = source
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._body = bytearray()
        self._cluster = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._source._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._source._closed(self, self._cluster)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            _log.exception("a poll for endpoints is not HTTP")
            self.close()

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        request = orjson.loads(self._body)
        self._cluster = request["resource_names"][0]
        self._source._asked(self, self._cluster, request.get("version_info", ""))

    def answer(self, document: Document) -> None:
        """Sends the document as a DiscoveryResponse."""
        if self._transport is not None:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(head % len(document.content) + document.content)

    def close(self) -> None:
        """Ends the connection; Envoy asks again."""
        if self._transport is not None:
            self._transport.close()
