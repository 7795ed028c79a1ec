"""The shadow's own process: takes copies from Envoy, tries them, reports on its standard output.

A process of its own, and a nice one, so that comparing large answers delays neither a caller nor the machine's event
loop, where the activator answers. It ends when its standard input does: with its machine, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

import anyio

from glowplug.shadow.config import ShadowConfig
from glowplug.shadow.copies import Copies
from glowplug.shadow.report import report_line
from glowplug.shadow.sender import Sender
from glowplug.shadow.tally import Notice, Tally
from glowplug.shadow.trials import Trials
from glowplug.wire.http2 import GrpcService, Limits

# Envoy sends a body in pieces of at most this.
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_MAX_STREAMS = 4096


def main() -> None:
    """`python -m glowplug.shadow.process COPIES_SOCKET SHADOW_SOCKET`."""
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
    config = ShadowConfig()
    _let_others_go_first(config.niceness)
    Path(sys.argv[1]).unlink(missing_ok=True)
    anyio.run(_run, config, Path(sys.argv[1]), Path(sys.argv[2]))


def _let_others_go_first(niceness: int) -> None:
    """Only what nobody else wants of the processors; where Linux has no such class, little of it."""
    os.nice(niceness)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def _run(config: ShadowConfig, copies_socket: Path, shadow_socket: Path) -> None:
    notices: list[Notice] = []
    tally = Tally(config)
    sender = Sender(shadow_socket, timeout_s=config.timeout_s, max_body_bytes=config.max_body_bytes)
    trials = Trials(config, sender, tally, notices.append)
    copies = Copies(trials, max_body_bytes=config.max_body_bytes, max_held_bytes=config.max_held_bytes)
    limits = Limits(max_message_bytes=_MAX_MESSAGE_BYTES, max_streams=_MAX_STREAMS)
    service = GrpcService(copies, limits)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trials.run, name="trials")
        server = await asyncio.get_running_loop().create_unix_server(service.protocol, str(copies_socket))
        os.chmod(copies_socket, 0o600)
        try:
            tasks.start_soon(_report, config, tally, notices, name="reports")
            await _until_input_ends()
        finally:
            server.close()
            service.abort()
            sender.close()
            tasks.cancel_scope.cancel()


async def _report(config: ShadowConfig, tally: Tally, notices: list[Notice]) -> None:
    """A line at the start, which says that it listens, and then when something has changed."""
    reported = -1
    while True:
        if tally.version != reported:
            reported = tally.version
            os.write(sys.stdout.fileno(), report_line(tally, notices))
            notices.clear()
        await anyio.sleep(config.report_interval_s)


async def _until_input_ends() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while await reader.read(1024):
            pass
    finally:
        transport.close()


if __name__ == "__main__":
    main()
