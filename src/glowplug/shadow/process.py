"""The shadow's own process: takes copies from Envoy, tries them, reports on its standard output.

See `copies.listening` for why it is a process. It has only what nobody else wants of the processors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import anyio

from glowplug.copies.copies import Copies
from glowplug.copies.listening import listen
from glowplug.shadow.config import ShadowConfig
from glowplug.shadow.report import report_line
from glowplug.shadow.sender import Sender
from glowplug.shadow.tally import Notice, Tally
from glowplug.shadow.trials import Trials


def main() -> None:
    """`python -m glowplug.shadow.process LISTENER SHADOW_SOCKET`; LISTENER is a file descriptor."""
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
    config = ShadowConfig()
    _let_others_go_first(config.niceness)
    anyio.run(_run, config, int(sys.argv[1]), Path(sys.argv[2]))


def _let_others_go_first(niceness: int) -> None:
    """Only what nobody else wants of the processors; where Linux has no such class, little of it."""
    os.nice(niceness)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def _run(config: ShadowConfig, listener: int, shadow_socket: Path) -> None:
    notices: list[Notice] = []
    tally = Tally(config)
    sender = Sender(shadow_socket, timeout_s=config.timeout_s, max_body_bytes=config.max_body_bytes)
    trials = Trials(config, sender, tally, notices.append)
    copies = Copies(trials, max_body_bytes=config.max_body_bytes, max_held_bytes=config.max_held_bytes)
    reported = -1

    def report() -> bytes:
        """A line at the start, which says that it listens, and then when something has changed."""
        nonlocal reported
        if tally.version == reported:
            return b""
        reported = tally.version
        line = report_line(tally, notices)
        notices.clear()
        return line

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trials.run, name="trials")
        try:
            await listen(copies, listener, report, config.report_interval_s)
        finally:
            sender.close()
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    main()
