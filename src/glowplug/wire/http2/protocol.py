"""The asyncio end of a server: bytes from a transport into a ServerConnection, and back. It logs nothing.

The answers of one turn of the loop go out in one write; an answer that nobody else is waiting beside goes at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from glowplug.wire.http2 import frames
from glowplug.wire.http2.limits import Limits
from glowplug.wire.http2.server import Handler, ServerConnection

# A connection that has not said by then that it speaks HTTP/2 is closed.
PREFACE_TIMEOUT_S = 20.0


class GrpcService:
    """What the connections of one listener share; `protocol` is the factory for `loop.create_server`."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.connections: set[GrpcProtocol] = set()
        self.is_draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def protocol(self) -> GrpcProtocol:
        """A new connection's protocol."""
        return GrpcProtocol(self)

    def begin_drain(self) -> None:
        """Tells every client to begin no more calls; each connection ends when its last call is answered."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.begin_drain()

    async def drained(self) -> None:
        """Returns when no connection is left."""
        await self._empty.wait()

    def abort(self) -> None:
        """Closes every connection; the calls on them are reset."""
        for connection in list(self.connections):
            connection.abort()

    def add(self, connection: GrpcProtocol) -> None:
        """A connection is there."""
        self.connections.add(connection)
        self._empty.clear()

    def discard(self, connection: GrpcProtocol) -> None:
        """It is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()


class GrpcProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, service: GrpcService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._connection = ServerConnection(service.handler, service.limits, self._wake)
        self._transport: Any = None
        self._is_receiving = False
        self._is_flush_due = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._service.add(self)
        self._timer = self._loop.call_later(PREFACE_TIMEOUT_S, self._on_silence)
        self._connection.start()
        if self._service.is_draining:
            self._connection.begin_drain()

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        self._is_receiving = True
        try:
            connection.receive(data, self._loop.time())
        except Exception:
            # A bug, ours or the handler's: the loop logs it, and what the connection knows can't be trusted.
            connection.fail(frames.INTERNAL_ERROR, "")
            raise
        finally:
            self._is_receiving = False
            self._flush()
            if self._timer is not None and connection.has_begun:
                self._timer.cancel()
                self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connection.lost()
        self._service.discard(self)

    def pause_writing(self) -> None:
        self._connection.outbox.is_paused = True

    def resume_writing(self) -> None:
        self._connection.outbox.is_paused = False
        self._flush()

    def begin_drain(self) -> None:
        """See ServerConnection.begin_drain."""
        self._connection.begin_drain()
        self._flush()

    def abort(self) -> None:
        """Closes the connection without waiting for anything."""
        self._connection.fail(frames.NO_ERROR, "")
        self._flush()
        self._transport.abort()

    def _on_silence(self) -> None:
        self._timer = None
        self._connection.fail(frames.PROTOCOL_ERROR, "no preface")
        self._flush()

    def _wake(self) -> None:
        """There is something to be written."""
        if self._is_receiving or self._is_flush_due:
            return
        self._is_flush_due = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        connection, transport = self._connection, self._transport
        if transport.is_closing():
            return
        while data := connection.take():
            transport.write(data)
        if connection.is_finished:
            transport.close()
