"""What a process that takes copies does: reads them, reports on its standard output, ends with its input.

A process of its own, and a nice one, so that work on copies delays neither a caller nor the machine's event loop, where
the activator answers. It ends when its standard input does: with its machine, however that ends.

While copies come it looks for them at an interval; when none came for a while it waits for the next one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from glowplug.copies.copies import Copies
from glowplug.copies.reading import Reading


@dataclass(frozen=True)
class Pace:
    """How often is looked for copies, and after how long without any it is waited for them.

    In 20 ms one socket (see `copy.lua`) takes what comes at some 5,000 small requests a second; beyond that it is more
    than one.
    """

    interval_s: float = 0.02
    quiet_s: float = 1.0
    # Also what never comes to its end is looked after.
    longest_wait_s: float = 30.0


async def listen(
    copies: Copies, listener: int, report: Callable[[], bytes], interval_s: float, pace: Pace | None = None
) -> None:
    """Until standard input ends; `listener` is the file descriptor of a listening socket.

    `report` is asked for the next line at that interval; an empty one is not said.
    """
    reading = Reading(socket.socket(fileno=listener), lambda part: copies.take(part, time.monotonic()))
    async with anyio.create_task_group() as tasks:
        try:
            tasks.start_soon(_say, report, interval_s, name="reports")
            tasks.start_soon(_read, reading, copies, pace or Pace(), name="copies")
            await _until_input_ends()
            # What was copied until now.
            reading.read()
        finally:
            reading.close()
            tasks.cancel_scope.cancel()


async def _read(reading: Reading, copies: Copies, pace: Pace) -> None:
    came_at = time.monotonic()
    while True:
        if reading.read():
            came_at = time.monotonic()
        copies.expire(time.monotonic())
        if time.monotonic() - came_at < pace.quiet_s:
            await anyio.sleep(pace.interval_s)
            continue
        with anyio.move_on_after(pace.longest_wait_s):
            await reading.arrival()
            came_at = time.monotonic()


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
