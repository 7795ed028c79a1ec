"""`python -m glowplug_dead_letters`: the dead-letter sink as a process."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from glowplug.errors import ConfigError
from glowplug.serving.hosting import Hosting, run

from .endpoints import Endpoints
from .settings import Settings, parse
from .shelf import Shelf


def main(argv: list[str]) -> int:
    try:
        settings = parse(argv, os.environ)
    except ConfigError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2

    @asynccontextmanager
    async def opened() -> AsyncIterator[Endpoints]:
        shelf = Shelf(settings.folder, settings.max_letters, settings.max_bytes)
        try:
            yield Endpoints(shelf)
        finally:
            shelf.close()

    return run("dead letters", _hosting(settings), opened)


def _hosting(settings: Settings) -> Hosting:
    return Hosting(settings.port, settings.host, max_body_bytes=settings.max_event_bytes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
