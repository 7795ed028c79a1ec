"""`python -m glowplug_drift_detector`: the detector as a process."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from glowplug.drift.detector import Detector
from glowplug.drift.locations import read_profile
from glowplug.drift.service import Service, ServiceConfig
from glowplug.drift.store import Store
from glowplug.errors import ConfigError
from glowplug.serving.hosting import Hosting, run

from .endpoints import Endpoints, Sink
from .settings import Settings, parse


def main(argv: Sequence[str]) -> int:
    """Serves until a signal; the exit code of the process."""
    try:
        settings = parse(argv, os.environ)
    except ConfigError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"error: {error.message}{hint}", file=sys.stderr)
        return 2
    hosting = Hosting(settings.port, settings.host, max_body_bytes=settings.max_body_bytes)
    return run("drift detector", hosting, functools.partial(_opened, settings))


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Endpoints]:
    read = functools.partial(read_profile, settings.profile, settings.volumes)
    store = Store(settings.state)
    sink = Sink(settings.sink, settings.send_timeout_s) if settings.sink else None
    try:
        detector = Detector(settings.target, read(), settings.config, store)
        post = sink.post if sink else None
        service = Service(detector, store, post, read, ServiceConfig(reload_s=settings.reload_s))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run, name="drift service")
            yield Endpoints(service)
            tasks.cancel_scope.cancel()
    finally:
        if sink:
            await sink.close()
        store.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
