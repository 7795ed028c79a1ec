"""PingSource → an event whenever its schedule says so, and its status.

Conditions as of knative.dev/eventing pkg/apis/sources/v1/ping_lifecycle.go. The adapter that Knative deploys is this
loop.
"""

from __future__ import annotations

import uuid

from glowplug.spec import kinds
from glowplug.spec.pings import EVENT_TYPE, parse_ping

from .. import conditions
from ..keys import Key
from ..metadata import Object, generation_of, is_deleting
from ..world import World
from .sinks import Resolved, Unresolved, resolve

_SINK_PROVIDED, _DEPLOYED = "SinkProvided", "Deployed"
_DEPENDENTS = (_SINK_PROVIDED, _DEPLOYED)


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Fires one PingSource if it is time, and brings its status up to date."""
    source = world.get(kinds.PING_SOURCE, namespace, name)
    if source is None or is_deleting(source) or world.engine is None:
        world.schedules.drop(namespace, name)
        return
    spec = parse_ping(source)
    sink = resolve(spec.sink, world.get)
    status = _status(source, sink, now)
    status["ceAttributes"] = [{"type": EVENT_TYPE, "source": spec.source}]
    source = world.update_status(kinds.PING_SOURCE, source, status)
    if isinstance(sink, Unresolved):
        # As in Knative a source without a sink has no schedule; what it would have sent is lost.
        world.schedules.drop(namespace, name)
        return
    tick = world.schedules.tick(spec, now)
    if tick.is_due:
        world.engine.post(source, sink.url, *spec.event(str(uuid.uuid4()), now))
    if tick.look_at is not None:
        world.queue.add_at(Key(kinds.PING_SOURCE, namespace, name), tick.look_at)


def _status(source: Object, sink: Resolved | Unresolved, now: float) -> Object:
    status: Object = {"observedGeneration": generation_of(source)}
    if isinstance(sink, Resolved):
        status["sinkUri"] = sink.url
        found = [conditions.true(_SINK_PROVIDED), conditions.true(_DEPLOYED)]
    else:
        found = [conditions.false(_SINK_PROVIDED, "NotFound", sink.message), conditions.true(_DEPLOYED)]
    before = (source.get("status") or {}).get("conditions")
    status["conditions"] = conditions.settle(before, found, _DEPENDENTS, now)
    return status
