"""Events: recording them, and letting them go after an hour.

A repetition (same object, type, reason and message) raises the count of the event that is there, as Kubernetes'
recorder does. Events are news, not state: one that cannot be written is logged and lost.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from datetime import datetime, timedelta

import anyio

from glowplug.apiserver.changes import Ref
from glowplug.apiserver.codec import Object
from glowplug.apiserver.finalizers import timestamp
from glowplug.apiserver.objects import DEFAULT_NAMESPACE, Objects
from glowplug.errors import ApiError, Forbidden, NotFound
from glowplug.spec.kinds import EVENT
from glowplug.spec.times import parse_time

log = logging.getLogger(__name__)

_REMEMBERED = 4096
# Nothing is pruned more often than this, however the events' ends are spread.
_SHORTEST_NAP_S = 60.0

_Key = tuple[str, str, str, str]


class EventRecorder:
    """Writes an Event about an object: `recorder(pod, "Warning", "BackOff", "...")`. Never raises."""

    def __init__(self, objects: Objects, component: str = "glowplug") -> None:
        self._objects = objects
        self._component = component
        self._names: OrderedDict[_Key, str] = OrderedDict()

    def __call__(self, regarding: Object, type: str, reason: str, message: str) -> None:
        try:
            self._record(regarding, type, reason, message)
        except ApiError as error:
            name = (regarding.get("metadata") or {}).get("name")
            # A namespace that is ending, or has ended, takes no news.
            level = logging.DEBUG if isinstance(error, (Forbidden, NotFound)) else logging.WARNING
            log.log(level, "event %s of %s was not recorded: %s", reason, name, error.message)

    def _record(self, regarding: Object, type_: str, reason: str, message: str) -> None:
        meta = regarding["metadata"]
        namespace = meta.get("namespace") or DEFAULT_NAMESPACE
        key = (meta.get("uid", meta["name"]), type_, reason, message)
        if key in self._names and self._repeat(namespace, self._names[key]):
            self._names.move_to_end(key)
            return
        event = self._event(regarding, type_, reason, message, namespace)
        self._names[key] = self._objects.create(EVENT, event)["metadata"]["name"]
        if len(self._names) > _REMEMBERED:
            self._names.popitem(last=False)

    def _repeat(self, namespace: str, name: str) -> bool:
        try:
            event = self._objects.get(EVENT, namespace, name)
        except NotFound:
            return False
        event["count"] = event.get("count", 1) + 1
        event["lastTimestamp"] = timestamp(self._objects.now())
        self._objects.update(EVENT, event)
        return True

    def _event(self, regarding: Object, type_: str, reason: str, message: str, namespace: str) -> Object:
        meta, now = regarding["metadata"], timestamp(self._objects.now())
        involved = {
            "apiVersion": regarding.get("apiVersion"),
            "kind": regarding.get("kind"),
            "namespace": meta.get("namespace"),
            "name": meta["name"],
            "uid": meta.get("uid"),
            "resourceVersion": meta.get("resourceVersion"),
        }
        return {
            "metadata": {"name": f"{meta['name'][:230]}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "type": type_,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
        }


def last_seen(event: Object) -> datetime | None:
    """When the event last happened, or None if it does not say."""
    series = event.get("series") or {}
    for text in (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    ):
        if (moment := parse_time(text)) is not None:
            return moment
    return None


async def prune_events(objects: Objects, ttl_s: float) -> None:
    """Remove events that have not happened for `ttl_s`, for ever; sleeps until the next one's end."""
    while True:
        nap_s = ttl_s
        try:
            oldest = prune(objects, ttl_s)
            if oldest is not None:
                nap_s = max(_SHORTEST_NAP_S, (oldest - objects.now()).total_seconds() + ttl_s)
        except ApiError as error:
            log.warning("old events stay for now: %s", error.message)
        await anyio.sleep(nap_s)


def prune(objects: Objects, ttl_s: float) -> datetime | None:
    """Remove events that have not happened for `ttl_s`; when the oldest one left last happened."""
    end = objects.now() - timedelta(seconds=ttl_s)
    old: list[Ref] = []
    kept: list[datetime] = []
    for event in objects.list(EVENT):
        moment = last_seen(event)
        if moment is None or moment <= end:
            old.append(Ref(EVENT, event["metadata"].get("namespace", ""), event["metadata"]["name"]))
        else:
            kept.append(moment)
    objects.remove_all(old)
    return min(kept, default=None)
