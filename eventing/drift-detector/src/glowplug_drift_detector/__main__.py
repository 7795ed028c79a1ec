"""`python -m glowplug_drift_detector`: the detector as a process."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from glowplug.drift.detector import Detector
from glowplug.drift.locations import read_profile
from glowplug.drift.profile import Profile
from glowplug.drift.service import Post, Service, ServiceConfig
from glowplug.drift.store import Store
from glowplug.errors import ConfigError, GlowplugError, StorageError
from glowplug.serving.hosting import Hosting, run

from .endpoints import Endpoints, Sink
from .settings import Settings, parse

log = logging.getLogger("glowplug.drift")

_LOOK_S = 5.0


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
    endpoints = Endpoints()
    try:
        first = _profile(read)
        if isinstance(first, Profile):
            endpoints.service = _service(settings, first, store, sink.post if sink else None, read)
        else:
            log.warning("nothing is counted yet: %s", first.message)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_serve, settings, store, sink, read, endpoints, name="drift service")
            yield endpoints
            tasks.cancel_scope.cancel()
    finally:
        if sink:
            await sink.close()
        store.close()


async def _serve(
    settings: Settings, store: Store, sink: Sink | None, read: Callable[[], Profile], endpoints: Endpoints
) -> None:
    """Runs the service, which begins when there is a profile.

    A model that is still to be trained has none, and Knative gives up for good on a pod that does not become ready.
    """
    while endpoints.service is None:
        await anyio.sleep(min(_LOOK_S, settings.reload_s or _LOOK_S))
        try:
            found = await anyio.to_thread.run_sync(_profile, read)
        except GlowplugError as error:
            log.warning("nothing is counted yet: %s", error.message)
            continue
        if isinstance(found, Profile):
            endpoints.service = _service(settings, found, store, sink.post if sink else None, read)
            log.info("the profile is %s, of %d rows", found.digest, found.rows)
    await endpoints.service.run()


def _profile(read: Callable[[], Profile]) -> Profile | StorageError:
    """The profile, or why it cannot be got. Raises FeatureError for what is none."""
    try:
        return read()
    except StorageError as error:
        return error


def _service(
    settings: Settings, profile: Profile, store: Store, post: Post | None, read: Callable[[], Profile]
) -> Service:
    detector = Detector(settings.target, profile, settings.config, store)
    return Service(detector, store, post, read, ServiceConfig(reload_s=settings.reload_s))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
