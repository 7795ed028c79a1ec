"""Tells what becomes of triggers and runs: as CloudEvents to $K_SINK, and as Events on the InferenceService.

The end of a run stays in its state until it is told, and has the same id each time: a process that dies in between
leaves it to the next one. Nobody's sink or right to write events is waited for longer than `patience_s`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import httpx2

from glowplug.errors import AlreadyExists, ApiError, NotFound
from glowplug.operators import events
from glowplug.operators.api import Api, Object
from glowplug.rollout.sink import CloudEvent, Sink, moment

from .rules import Rules
from .state import News, Outcome, Running
from .trigger import Trigger

_log = logging.getLogger(__name__)
NAME = "glowplug-retraining"
FINISHED = "dev.glowplug.retraining.finished"
FAILED = "dev.glowplug.retraining.failed"
SKIPPED = "dev.glowplug.retraining.skipped"
REGISTERED = "dev.glowplug.model.registered"
_LOOK_S = 0.02


class Announcer:
    """A context: events are sent while it is open. `sink` empty: CloudEvents are logged only."""

    def __init__(self, api: Api, rules: Rules, sink: str, patience_s: float = 20.0) -> None:
        self._api, self._rules, self._url, self._patience_s = api, rules, sink, patience_s
        self._sink: Sink | None = None
        self._sender: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Announcer:
        if self._url:
            http = await self._stack.enter_async_context(httpx2.AsyncClient(timeout=self._patience_s / 2))
            self._sink = Sink(self._url, http, self._patience_s)
            self._sender = asyncio.create_task(self._sink.run(), name="retraining events")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._stack.aclose()

    async def skipped(self, trigger: Trigger, reason: str, now: float) -> None:
        """A trigger that no run of its own answers."""
        id = f"skipped-{hashlib.sha256(f'{trigger.source} {trigger.id}'.encode()).hexdigest()[:16]}"
        await self._send(SKIPPED, id, id, self._data("", trigger, reason, {}), now)

    async def started(self, running: Running, reason: str, now: float) -> None:
        """A run that is worked at from now on."""
        message = f"{running.run}, attempt {running.attempt}, for {running.trigger.type}: {reason}"
        await self.record(f"{running.run}-{running.attempt}", "RetrainingStarted", message, now)

    async def registered(self, running: Running, reason: str, facts: Mapping[str, Any], now: float) -> None:
        """A run's version is in the registry."""
        data = self._data(running.run, running.trigger, reason, facts)
        await self._send(REGISTERED, f"{running.run}-registered", running.run, data, now)

    async def ended(self, news: News, now: float) -> None:
        """How an attempt of a run ended."""
        is_failed = news.outcome is Outcome.FAILED
        data = self._data(news.run, news.trigger, news.reason, news.facts)
        data |= {"outcome": news.outcome.value, "attempt": news.attempt}
        reason = "RetrainingFailed" if is_failed else "RetrainingFinished"
        message = f"{news.run} {news.outcome.value}: {news.reason}"
        await self.record(news.id, reason, message, now, is_warning=is_failed)
        await self._send(FAILED if is_failed else FINISHED, news.id, news.run, data, now)

    async def record(
        self, id: str, reason: str, message: str, now: float, *, is_warning: bool = False
    ) -> None:
        """An Event on the InferenceService, once for each `id`. Raises OSError where the API is away."""
        _log.log(logging.WARNING if is_warning else logging.INFO, "%s: %s", self._rules.model, message)
        isvc = await self._service()
        event = events.event(isvc, NAME, reason, message, is_warning=is_warning, now=now)
        # A service of the same name that was made anew has Events of its own.
        uid = isvc["metadata"].get("uid", "")
        digest = hashlib.sha256(f"{uid} {id} {reason}".encode()).hexdigest()[:16]
        event["metadata"]["name"] = f"{self._rules.inference_service}.{digest}"
        try:
            await self._api.create(f"/api/v1/namespaces/{self._rules.namespace}/events", event)
        except AlreadyExists:
            return
        except ApiError as error:
            # The log and the ConfigMap have it; a run does not need the right to record events.
            _log.warning("the event cannot be recorded: %s", error)

    async def _service(self) -> Object:
        space, name = self._rules.namespace, self._rules.inference_service
        try:
            return await self._api.get(
                f"/apis/serving.kserve.io/v1beta1/namespaces/{space}/inferenceservices/{name}"
            )
        except (NotFound, ApiError):
            return {"metadata": {"name": name, "namespace": space}}

    def _data(self, run: str, trigger: Trigger, reason: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        told = {"model": self._rules.model, "run": run, "trigger": trigger.as_json(), "reason": reason}
        return {"verdict": None, "version": None, "storage_uri": None, **facts, **told}

    async def _send(self, type: str, id: str, subject: str, data: dict[str, Any], now: float) -> None:
        source = f"/glowplug/pipelines/{self._rules.namespace}/{self._rules.model}"
        if self._sink is None:
            _log.info("%s %s (there is no K_SINK): %s", type, id, data["reason"])
            return
        self._sink.offer(CloudEvent(id, source, type, subject, moment(now), data))
        while not self._sink.is_settled(id):  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(_LOOK_S)
        self._sink.forget(id)
