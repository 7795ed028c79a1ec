"""`python -m glowplug_alert_bridge`: the bridge as a process."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from glowplug.errors import ConfigError
from glowplug.serving.hosting import Hosting, run

from .endpoints import Endpoints
from .sender import Sender
from .settings import parse


def main(argv: list[str]) -> int:
    try:
        settings = parse(argv, os.environ)
    except ConfigError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"error: {error.message}{hint}", file=sys.stderr)
        return 2

    @asynccontextmanager
    async def opened() -> AsyncIterator[Endpoints]:
        sender = Sender(settings.sink, settings.send_timeout_s, settings.concurrency)
        try:
            yield Endpoints(sender, settings.max_alerts)
        finally:
            await sender.close()

    hosting = Hosting(settings.port, settings.host, max_body_bytes=settings.max_body_bytes)
    return run("alert bridge", hosting, opened)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
