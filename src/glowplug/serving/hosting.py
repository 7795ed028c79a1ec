"""A process that serves endpoints of its own, with no model: what takes events in, and what shows something.

The same listener, signals and drain as the model server's: the port is bound before anything else, on SIGTERM what is
in flight is finished, and a second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from glowplug.errors import GlowplugError
from glowplug.serving.http_protocol import Endpoints, HttpService
from glowplug.serving.listener import HttpListener, bind

log = logging.getLogger("glowplug.serving.hosting")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
Opened = AbstractAsyncContextManager[Endpoints]


@dataclass(frozen=True)
class Hosting:
    """Where to listen (`port` 0: a free one), and what a request may be."""

    port: int
    host: str = "0.0.0.0"
    max_body_bytes: int = 2**20
    keep_alive_s: float = 75.0
    drain_timeout_s: float = 20.0


def run(name: str, hosting: Hosting, open_endpoints: Callable[[], Opened]) -> int:
    """Serves until a signal; the exit code. What stops the start is told in one message on stderr."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        asyncio.run(_serve(name, hosting, open_endpoints))
    except GlowplugError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"error: {error.message}{hint}", file=sys.stderr, flush=True)
        return 1
    return 0


async def _serve(name: str, hosting: Hosting, open_endpoints: Callable[[], Opened]) -> None:
    loop = asyncio.get_running_loop()
    listener = bind(hosting.host, hosting.port)
    port = listener.getsockname()[1]
    stopping = [asyncio.Event(), asyncio.Event()]

    def on_signal() -> None:
        stopping[stopping[0].is_set()].set()

    for each in _SIGNALS:
        loop.add_signal_handler(each, on_signal)
    async with open_endpoints() as endpoints:
        service = HttpService(
            endpoints, max_body_bytes=hosting.max_body_bytes, keep_alive_s=hosting.keep_alive_s
        )
        http = HttpListener(service, listener)
        await http.start()
        log.info("%s: HTTP %s:%d", name, hosting.host, port)
        await stopping[0].wait()
        http.close()
        await _drain(http, stopping[1], hosting.drain_timeout_s)


async def _drain(http: HttpListener, is_forced: asyncio.Event, timeout_s: float) -> None:
    """Until what is in flight is answered, or a second signal comes, or the time is over."""
    waits = {
        asyncio.create_task(http.drained(), name="drained"),
        asyncio.create_task(is_forced.wait(), name="second signal"),
    }
    await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await wait
    await http.abort()
