"""Tells the news of a rollout: as Kubernetes Events on the InferenceService, and as CloudEvents where there is a sink.

At least once, whoever tells it and however often it is cut off: news stays in the state until it is told, and has the
same id each time.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from glowplug.errors import AlreadyExists, ApiError
from glowplug.operators import events
from glowplug.operators.api import Api

from .sink import CloudEvent, Sink, moment
from .state import News, State

_log = logging.getLogger(__name__)
Object = dict[str, Any]
NAME = "glowplug-rollout"


class Announcer:
    """`sink` None: nobody wants CloudEvents."""

    def __init__(self, api: Api, sink: Sink | None) -> None:
        self._api, self._sink = api, sink
        self._recorded: set[str] = set()

    async def tell(self, isvc: Object, state: State, now: float) -> State:
        """Tells what there is; the state without what has been dealt with. Raises OSError where the API is away."""
        settled = set()
        for news in state.news:
            id = f"{isvc['metadata'].get('uid', '')}-{news.id}"
            await self._record(isvc, id, news, now)
            if self._sink is not None and news.type:
                self._sink.offer(_cloud_event(isvc, id, news, now))
                if not self._sink.is_settled(id):
                    continue
                self._sink.forget(id)
            settled.add(news.id)
            self._recorded.discard(id)
        return state.without(frozenset(settled))

    async def warn(self, isvc: Object, reason: str, message: str, now: float) -> None:
        """An event that belongs to no rollout; each time a new one."""
        _log.warning("%s/%s: %s", isvc["metadata"]["namespace"], isvc["metadata"]["name"], message)
        await self._create(isvc, events.event(isvc, NAME, reason, message, is_warning=True, now=now))

    async def _record(self, isvc: Object, id: str, news: News, now: float) -> None:
        if id in self._recorded:
            return
        metadata = isvc["metadata"]
        level = logging.WARNING if news.is_warning else logging.INFO
        _log.log(level, "%s/%s: %s", metadata["namespace"], metadata["name"], news.message)
        event = events.event(isvc, NAME, news.reason, news.message, is_warning=news.is_warning, now=now)
        event["metadata"]["name"] = f"{metadata['name']}.{hashlib.sha256(id.encode()).hexdigest()[:16]}"
        await self._create(isvc, event)
        self._recorded.add(id)

    async def _create(self, isvc: Object, event: Object) -> None:
        try:
            await self._api.create(f"/api/v1/namespaces/{isvc['metadata']['namespace']}/events", event)
        except AlreadyExists:
            return  # by another controller, or before a crash
        except ApiError as error:
            # The log has it; a rollout does not wait for the right to record events.
            _log.warning("the event cannot be recorded: %s", error)


def _cloud_event(isvc: Object, id: str, news: News, now: float) -> CloudEvent:
    metadata = isvc["metadata"]
    place = {"namespace": metadata["namespace"], "name": metadata["name"]}
    source = (
        f"/apis/serving.kserve.io/v1beta1/namespaces/{place['namespace']}/inferenceservices/{place['name']}"
    )
    return CloudEvent(id, source, news.type, place["name"], moment(now), {**place, **news.data})
