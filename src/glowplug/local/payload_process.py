"""The payload logger's own process: takes copies from Envoy, sends events, reports on its standard output.

See `copies.listening` for why it is a process. Here, since it takes two engines: the logger, and the broker's client.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time

import anyio

from glowplug.broker.http_client import HttpClient
from glowplug.copies.copies import Copies
from glowplug.copies.listening import listen
from glowplug.local.payload_sinks import Sinks
from glowplug.payloads.config import PayloadsConfig
from glowplug.payloads.report import report_line
from glowplug.payloads.tally import Tally
from glowplug.payloads.teller import Teller
from glowplug.payloads.waiting import Lines


def main() -> None:
    """`python -m glowplug.local.payload_process LISTENER INGRESS_URL BROKER_URL`; LISTENER is a file descriptor."""
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
    config = PayloadsConfig()
    _let_others_go_first(config.niceness)
    anyio.run(_run, config, int(sys.argv[1]), Sinks(sys.argv[2], sys.argv[3]))


def _let_others_go_first(niceness: int) -> None:
    """It gets its share of the processors, and never takes one from whoever answers a caller; see sched(7)."""
    os.nice(niceness)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def _run(config: PayloadsConfig, listener: int, sinks: Sinks) -> None:
    tally, lines = Tally(config), Lines(config)
    client = HttpClient(config.max_answer_bytes)
    teller = Teller(config, client, tally, lines, sinks.find)
    copies = Copies(teller, max_body_bytes=config.max_body_bytes, max_held_bytes=config.max_held_bytes)
    reported = (-1, -1)

    def report() -> bytes:
        """A line at the start, which says that it listens, and then when something has changed."""
        nonlocal reported
        notices = list(tally.notices(time.monotonic()))
        if (tally.version, len(lines)) == reported and not notices:
            return b""
        reported = (tally.version, len(lines))
        return report_line(tally, lines, notices)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(teller.run, name="teller")
        try:
            await listen(copies, listener, report, config.report_interval_s)
            await teller.drain()
            # What was sent meanwhile; what is open in it is lost.
            os.write(sys.stdout.fileno(), report_line(tally, lines, ()))
        finally:
            client.close()
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    main()
