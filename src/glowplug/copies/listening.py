"""What a process that takes copies does: answers Envoy, reports on its standard output, ends with its input.

A process of its own, and a nice one, so that work on copies delays neither a caller nor the machine's event loop, where
the activator answers. It ends when its standard input does: with its machine, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable

import anyio

from glowplug.copies.copies import Copies
from glowplug.wire.http2 import GrpcService, Limits

# Envoy sends a body in pieces of at most this.
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_MAX_STREAMS = 4096


async def listen(copies: Copies, listener: int, report: Callable[[], bytes], interval_s: float) -> None:
    """Until standard input ends; `listener` is the file descriptor of a listening socket.

    `report` is asked for the next line at that interval; an empty one is not said.
    """
    service = GrpcService(copies, Limits(max_message_bytes=_MAX_MESSAGE_BYTES, max_streams=_MAX_STREAMS))
    async with anyio.create_task_group() as tasks:
        server = await asyncio.get_running_loop().create_unix_server(
            service.protocol, sock=socket.socket(fileno=listener)
        )
        try:
            tasks.start_soon(_say, report, interval_s, name="reports")
            await _until_input_ends()
        finally:
            server.close()
            service.abort()
            tasks.cancel_scope.cancel()


async def _say(report: Callable[[], bytes], interval_s: float) -> None:
    while True:
        if line := report():
            os.write(sys.stdout.fileno(), line)
        await anyio.sleep(interval_s)


async def _until_input_ends() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while await reader.read(1024):
            pass
    finally:
        transport.close()
