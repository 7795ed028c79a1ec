"""The sockets through which copies come: the listening one, which the machine keeps, and Envoy's to it.

They are read when this side likes, and Envoy's do not wake it: to wake a process costs the request that does it more
than its copy. Each is read to its end before the next one, since Envoy leaves one that is full for a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator

from glowplug.copies.frames import MAX_FRAME_BYTES, Part, take_frames

_LOG = logging.getLogger(__name__)
# At once from one socket; all that one holds.
_CHUNK_BYTES = 512 * 1024
# In one go, before somebody else has a turn.
_MOST_BYTES = 4 * 1024 * 1024
# Sockets at a time. Envoy has one for each of its listeners; those that wait behind them are the kernel's.
_MAX_CONNECTIONS = 256


class Reading:
    """Reads from `listener`, a listening socket; `on_part` gets the parts in the order in which they were sent."""

    def __init__(self, listener: socket.socket, on_part: Callable[[Part], None]) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._on_part = on_part
        # In the order in which they were opened, with what was read of a frame that is not whole.
        self._connections: dict[socket.socket, bytearray] = {}

    def read(self) -> int:
        """Takes what is there, but not endlessly: as many bytes as it says."""
        self._accept()
        left = _MOST_BYTES
        for connection in list(self._connections):
            while left > 0 and (size := self._take(connection)):
                left -= size
        return _MOST_BYTES - left

    async def arrival(self) -> None:
        """Waits until something is there. Whoever sends it has to wake us."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        waited = [self._listener, *self._connections]
        for each in waited:
            loop.add_reader(each, arrived.set)
        try:
            await arrived.wait()
        finally:
            for each in waited:
                loop.remove_reader(each)

    def close(self) -> None:
        """Closes Envoy's sockets, and this process's end of the listening one."""
        for each in (self._listener, *self._connections):
            each.close()
        self._connections.clear()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while len(self._connections) < _MAX_CONNECTIONS:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._connections[connection] = bytearray()

    def _take(self, connection: socket.socket) -> int:
        """Reads once; 0 if there is nothing now, or will be nothing any more."""
        buffer = self._connections[connection]
        try:
            data = connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError as error:
            _LOG.debug("a socket of Envoy's has ended: %s", error)
            data = b""
        buffer += data
        try:
            for part in self._parts(buffer):
                self._on_part(part)
        except ValueError:
            _LOG.exception("what Envoy copies cannot be read")
            data = b""
        if not data:
            connection.close()
            del self._connections[connection]
        return len(data)

    def _parts(self, buffer: bytearray) -> Iterator[Part]:
        yield from take_frames(buffer)
        if len(buffer) > MAX_FRAME_BYTES + _CHUNK_BYTES:
            raise ValueError("a frame without an end")
