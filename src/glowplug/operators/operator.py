"""A controller as a kopf operator: kopf watches the InferenceServices, and starts and stops it all.

Only kopf's handlers of raw events are used. Its others keep their progress in annotations of the object and a
finalizer on it: an annotation would make KServe create a revision, and a finalizer would keep a service from being
deleted while no controller runs.

A controller that wants to change an InferenceService in the very write that changes it gives `admit`; see `webhook`
for how the API comes to call it. Every replica answers there, whoever holds the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, cast

import kopf
from lightkube.config.kubeconfig import SingleConfig

from glowplug.spec.kinds import INFERENCE_SERVICE

from .api import Api, Object, kopf_login
from .webhook import Admit, Webhook, WebhookConfig


@dataclass(frozen=True)
class OperatorConfig:
    """`name` is that of the asyncio task and in the identity; `namespaces` empty: all.

    `webhook` None: as the local machine has it, a free port of 127.0.0.1 (used only where there is an `admit`).
    `health_port` 0: nobody asks. Else `GET /healthz` there answers as long as the process does.
    """

    name: str
    namespaces: tuple[str, ...] = ()
    timeout_s: float = 10.0
    webhook: WebhookConfig | None = None
    health_port: int = 0


class Controller(Protocol):
    """What the operator does with a controller."""

    def saw(self, isvc: Object, *, is_gone: bool) -> None:
        """An InferenceService as the watch told it."""

    async def run(self) -> None:
        """Act until cancelled."""

    async def close(self) -> None:
        """After `run` has ended: give back the lease and whatever else is held."""


# Makes the controller, given the API and an identity for leases; left when the controller is closed.
Part = Callable[[Api, str], AbstractAsyncContextManager[Controller]]


def run(connection: SingleConfig, part: Part, config: OperatorConfig, admit: Admit | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    registry = kopf.OperatorRegistry()
    ended = threading.Event()
    life = _Life(connection, part, config, ended.set)

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf_login(connection)

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        await life.start()
        if admit is not None:
            settings.admission.server = Webhook(
                connection,
                config.webhook or WebhookConfig(config.name),
                admit,
                config.namespaces,
                config.timeout_s,
            )

    @kopf.on.event(
        INFERENCE_SERVICE.group, INFERENCE_SERVICE.version, INFERENCE_SERVICE.plural, registry=registry
    )
    async def seen(type: str | None, body: kopf.Body, **_: Any) -> None:
        life.controller.saw(dict(body), is_gone=type == "DELETED")

    @kopf.on.cleanup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def stop(**_: Any) -> None:
        await life.stop()

    kopf.run(
        registry=registry,
        standalone=True,
        stop_flag=ended,
        # kopf would ask for the user's name, and a container's user may have none.
        identity=cast("Any", identity()),
        clusterwide=not config.namespaces,
        namespaces=config.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{config.health_port}/healthz" if config.health_port else None,
    )


def identity() -> str:
    """A name that no other process has, for a lease."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"


class _Life:
    """The controller with what it needs, between kopf's start and its end."""

    def __init__(
        self, connection: SingleConfig, part: Part, config: OperatorConfig, ended: Callable[[], None]
    ) -> None:
        self._connection, self._part, self._config, self._ended = connection, part, config, ended
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self._controller: Controller | None = None

    @property
    def controller(self) -> Controller:
        assert self._controller is not None, "kopf starts before it watches"
        return self._controller

    async def start(self) -> None:
        api = await self._stack.enter_async_context(Api(self._connection, self._config.timeout_s))
        self._controller = await self._stack.enter_async_context(self._part(api, identity()))
        self._task = asyncio.create_task(self._controller.run(), name=self._config.name)
        # A process without its loop must not look alive: it ends, and whoever runs it starts another one.
        self._task.add_done_callback(lambda _: self._ended())

    async def stop(self) -> None:
        try:
            if self._task is not None:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
        finally:
            if self._controller is not None:
                await self._controller.close()
            await self._stack.aclose()
