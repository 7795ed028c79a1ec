"""What an eventing object refers to: whose changes concern it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from glowplug.spec import kinds
from glowplug.spec.eventing import parse_broker, parse_destination, parse_trigger
from glowplug.spec.kinds import Kind

from ..metadata import Object, at, namespace_of
from .sinks import Target, targets


def references_of(kind: Kind, obj: Object) -> Iterator[Target]:
    """The objects that decide on where `obj` sends events, and its Broker; nothing for other kinds."""
    if kind == kinds.TRIGGER:
        trigger = parse_trigger(obj)
        yield kinds.BROKER, trigger.namespace, trigger.broker
        yield from targets(trigger.subscriber)
        yield from targets(trigger.delivery.dead_letter if trigger.delivery else None)
    elif kind == kinds.BROKER:
        yield from targets(parse_broker(obj).delivery.dead_letter)
    elif kind == kinds.PING_SOURCE:
        yield from targets(parse_destination(at(obj, "spec", "sink") or {}, namespace_of(obj)))
