"""The HTTP listener: a socket bound early, so that a taken port is told before a model is loaded, and closed last."""

from __future__ import annotations

import asyncio
import socket

from glowplug.errors import ConfigError
from glowplug.serving.http_protocol import HttpProtocol, HttpService

BACKLOG = 2048
POLL_S = 0.01


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet. Raises ConfigError where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"HTTP port {port} on {host} cannot be opened: {error.strerror}",
            hint="--http_port or $PORT sets another, 0 any free",
        ) from error
    return listener


class HttpListener:
    """Serves one set of endpoints on one socket."""

    def __init__(self, service: HttpService, listener: socket.socket) -> None:
        self._service = service
        self._socket = listener
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """From here on connections are taken. Raises ConfigError where another process listens on the port."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: HttpProtocol(self._service), sock=self._socket, backlog=BACKLOG
            )
        except OSError as error:
            raise ConfigError(f"the HTTP port cannot be listened on: {error.strerror}") from error

    def begin_drain(self) -> None:
        """Still takes connections, but each answer closes its own."""
        self._service.is_draining = True

    def close(self) -> None:
        """Takes no more connections, and closes the idle ones; requests in flight go on."""
        self._service.is_draining = True
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for connection in list(self._service.connections):
            connection.close_if_idle()

    async def drained(self) -> None:
        """Returns when no connection and no request is left."""
        while self._service.connections or self._service.tasks:
            if self._service.tasks:
                await asyncio.wait(set(self._service.tasks), return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(POLL_S)

    async def abort(self) -> None:
        """Cancels what is left."""
        for task in list(self._service.tasks):
            task.cancel()
        await asyncio.gather(*self._service.tasks, return_exceptions=True)
        for connection in list(self._service.connections):
            connection.close()
