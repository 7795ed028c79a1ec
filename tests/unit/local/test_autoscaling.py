"""An ingress that cannot be read: what was decided stays, and whoever is scaled on its numbers says why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from glowplug.activator import Activator, ActivatorConfig
from glowplug.controllers.knative.scaling import Scale, Standing
from glowplug.local.autoscaling import Autoscaling
from glowplug.router.admin import RevisionStats

REVISION = "default/r"
_DEADLINE_S = 20.0


class Ingress:
    """Twenty requests are in progress all the time, as far as it can be read."""

    def __init__(self) -> None:
        self.is_down = False
        self.reads = 0

    async def stats(self) -> dict[str, RevisionStats]:
        self.reads += 1
        if self.is_down:
            raise ConnectionRefusedError("no admin socket")
        return {REVISION: RevisionStats(requests=20, active=20, pending=0, busy_us=0)}


class World:
    def __init__(self) -> None:
        self.ingress = Ingress()
        self.woken: list[str] = []
        router: Any = self.ingress
        self.autoscaling = Autoscaling(router, time.time, lambda revision: [])
        self.autoscaling.activator = Activator(ActivatorConfig())
        self.autoscaling.wake = self.woken.append
        self._active_since = time.time()

    def scale(self) -> Scale:
        annotations = {"autoscaling.knative.dev/target": "1"}
        standing = Standing(REVISION, annotations, 0, 1, 1, "True", self._active_since)
        return self.autoscaling.scale(standing, time.time())

    async def until(self, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not is_true():
            assert time.monotonic() < deadline, self.scale()
            await asyncio.sleep(0.01)


async def test_what_was_decided_stays_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    assert world.scale().unmeasured == ""
    running = asyncio.create_task(world.autoscaling.run())
    try:
        await world.until(lambda: (world.scale().pods or 0) >= 20)
        wanted = world.scale().pods
        world.ingress.is_down = True
        world.woken.clear()
        await world.until(lambda: world.woken == [REVISION])
        assert "cannot be measured" in world.scale().unmeasured
        assert "no admin socket" in world.scale().unmeasured
        assert "glowplug_ingress_measured 0" in world.autoscaling.metrics()
        reads, decided = world.ingress.reads, len(world.autoscaling.engine.recorded(REVISION))
        # A decision is due every other second.
        await world.until(lambda: world.ingress.reads == reads + 3)
        assert len(world.autoscaling.engine.recorded(REVISION)) == decided
        assert world.scale().pods == wanted
        assert caplog.text.count("cannot be measured") == 1
        assert world.woken == [REVISION]
        world.ingress.is_down = False
        await world.until(lambda: world.woken == [REVISION] * 2)
        assert world.scale().unmeasured == ""
        assert "glowplug_ingress_measured 1" in world.autoscaling.metrics()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
