"""The listening socket, and uvicorn as a part of this process instead of its master."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Collection, Iterator

import anyio
import psutil
import uvicorn

from glowplug.errors import ConfigError

_BACKLOG = 512
_GOODBYE_S = 0.3
_LOOK_S = 0.01


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError that says who has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio sets TCP_NODELAY on what it accepts; without it a small answer waits 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"the API server cannot listen on {host}:{port}: {error.strerror}") from error
        raise ConfigError(
            f"the API server's port {port} on {host} is in use{_holder(port)}",
            hint="stop that process, or take another port with --api-port (0 takes a free one)",
        ) from error
    return sock


def _holder(port: int) -> str:
    """` by python (process 123)`, or nothing where the system does not tell."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""


class Listener(uvicorn.Server):
    """uvicorn without its signal handlers and without its ten wake-ups a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin the graceful end: `serve` returns when the connections are closed or the time for it is up."""
        self._stop.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, finish what is under way, then close: each part bounded."""
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        with anyio.move_on_after(self.config.timeout_graceful_shutdown):
            await _drained(self.server_state.tasks)
        with anyio.move_on_after(_GOODBYE_S):
            await _drained(self.server_state.connections)
        # An idle client answers TLS's goodbye only when it next looks at its connection.
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()
        with anyio.move_on_after(_GOODBYE_S):
            await _drained(self.server_state.connections)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _drained(things: Collection[object]) -> None:
    """Until the collection is empty."""
    while things:  # noqa: ASYNC110 - uvicorn tells nobody when it changes
        await anyio.sleep(_LOOK_S)
