"""HTTP/1.1 for the load: keep-alive connections, and never a second try. Runs under gevent.

Usual clients send a request again where a kept connection had been closed meanwhile, which hides the very failure
that a load test is to find. Here a connection that was idle for a while is not used again, and what fails has failed.
"""

from __future__ import annotations

import socket
import time

import httptools

from glowplug_loadtest.sockets import connect

# Below the keep-alive of the servers that close first (uvicorn: 5 s).
MAX_IDLE_S = 3.0
_READ_BYTES = 65536


class BadAnswer(Exception):
    """What came is not HTTP, or not all of it came."""


class _Connection:
    """One connection; one request at a time. The callbacks are httptools'."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._is_whole = False

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        self._is_whole = True

    def exchange(self, request: bytes) -> tuple[int, bytes, bool]:
        """Status, body, and whether the connection may be used again."""
        self._parts, self._is_whole = [], False
        self.socket.sendall(request)
        while not self._is_whole:
            data = self.socket.recv(_READ_BYTES)
            if not data:
                raise BadAnswer("the connection was closed before the answer was whole")
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise BadAnswer(f"the answer is not HTTP: {error}") from error
        parser = self._parser
        return parser.get_status_code(), b"".join(self._parts), parser.should_keep_alive()


class RestClient:
    """POSTs to one path of one server, over as many connections as there are requests at a time."""

    def __init__(self, url: str, authority: str, path: str, timeout_s: float) -> None:
        self._url = url
        self._authority = authority
        self._timeout_s = timeout_s
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n"
            "User-Agent: glowplug-loadtest\r\nContent-Length: "
        ).encode()
        self._idle: list[_Connection] = []

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError or BadAnswer; the caller sets the time limit (gevent.Timeout)."""
        connection = self._connection()
        keeps = False
        try:
            status, answer, keeps = connection.exchange(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            return status, answer
        finally:
            if keeps:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.socket.close()

    def close(self) -> None:
        """Closes what is idle."""
        while self._idle:
            self._idle.pop().socket.close()

    def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() - connection.idle_since < MAX_IDLE_S:
                return connection
            connection.socket.close()
        return _Connection(connect(self._url, self._authority, self._timeout_s))
