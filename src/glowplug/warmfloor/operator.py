"""The controller as a kopf operator: kopf watches the InferenceServices, and starts and stops it all.

Only kopf's handlers of raw events are used. Its others keep their progress in annotations of the object and a
finalizer on it: an annotation would make KServe create a revision, and a finalizer would keep a service from being
deleted while no controller runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import kopf
from lightkube.config.kubeconfig import SingleConfig

from glowplug.operators.api import Api, kopf_login
from glowplug.spec.kinds import INFERENCE_SERVICE

from .controller import Controller, ControllerConfig
from .demand import KNATIVE_QUERY, DemandSource, MachinePage, Prometheus


@dataclass(frozen=True)
class OperatorConfig:
    """`prometheus_url` empty: the demand is read from the API's own page, as the local machine has it.

    `namespaces` empty: all.
    """

    interval_s: float = 5.0
    namespaces: tuple[str, ...] = ()
    prometheus_url: str = ""
    prometheus_query: str = KNATIVE_QUERY
    lease_namespace: str = "default"
    lease_duration_s: int = 15
    timeout_s: float = 10.0


def run(connection: SingleConfig, config: OperatorConfig, clock: Callable[[], float] = time.time) -> None:
    """Run until SIGTERM or SIGINT."""
    registry = kopf.OperatorRegistry()
    part = _Part(connection, config, clock)

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf_login(connection)

    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        await part.start()

    @kopf.on.event(
        INFERENCE_SERVICE.group, INFERENCE_SERVICE.version, INFERENCE_SERVICE.plural, registry=registry
    )
    async def seen(type: str | None, body: kopf.Body, **_: Any) -> None:
        part.controller.saw(dict(body), is_gone=type == "DELETED")

    @kopf.on.cleanup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def stop(**_: Any) -> None:
        await part.stop()

    kopf.run(
        registry=registry,
        standalone=True,
        clusterwide=not config.namespaces,
        namespaces=config.namespaces,
    )


class _Part:
    """The controller with what it needs, between kopf's start and its end."""

    def __init__(self, connection: SingleConfig, config: OperatorConfig, clock: Callable[[], float]) -> None:
        self._connection, self._config, self._clock = connection, config, clock
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self._controller: Controller | None = None

    @property
    def controller(self) -> Controller:
        assert self._controller is not None, "kopf starts before it watches"
        return self._controller

    async def start(self) -> None:
        config = self._config
        api = await self._stack.enter_async_context(Api(self._connection, config.timeout_s))
        settings = ControllerConfig(
            f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}",
            config.interval_s,
            config.lease_namespace,
            config.lease_duration_s,
            config.namespaces,
        )
        source = await self._source(api)
        self._controller = Controller(api, source, settings, self._clock)
        self._task = asyncio.create_task(self._controller.run(), name="warm floor")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self.controller.close()
        await self._stack.aclose()

    async def _source(self, api: Api) -> DemandSource:
        url, timeout_s = self._config.prometheus_url, self._config.timeout_s
        if not url:
            return MachinePage(lambda: api.text("/metrics"))
        http = await self._stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=timeout_s))

        async def fetch(query: str) -> Any:
            try:
                response = await http.get("/api/v1/query", params={"query": query})
                return response.json()
            except (httpx2.HTTPError, ValueError) as error:
                raise OSError(f"{url}: {error or type(error).__name__}") from error

        return Prometheus(fetch, self._config.prometheus_query)
