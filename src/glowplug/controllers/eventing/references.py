"""What an eventing object refers to: whose changes concern it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from glowplug.spec import kinds
from glowplug.spec.eventing import parse_broker, parse_destination, parse_trigger
from glowplug.spec.kafka import SECRET_NAME, parse_kafka_source
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
        namespace, name = config_of(obj)
        if name:
            yield kinds.CONFIG_MAP, namespace, name
            secret = (at(obj, "status", "annotations") or {}).get(SECRET_NAME)
            if secret:
                yield kinds.SECRET, namespace, secret
    elif kind == kinds.PING_SOURCE:
        yield from targets(parse_destination(at(obj, "spec", "sink") or {}, namespace_of(obj)))
    elif kind == kinds.KAFKA_SOURCE:
        source = parse_kafka_source(obj)
        yield from targets(source.sink)
        yield from targets(source.delivery.dead_letter)
        for name in sorted(source.net.secrets):
            yield kinds.SECRET, source.namespace, name


def config_of(broker: Object) -> tuple[str, str]:
    """Namespace and name of the ConfigMap that a Broker names, empty where it names none."""
    config = at(broker, "spec", "config") or {}
    is_map = isinstance(config, dict) and config.get("kind") == "ConfigMap"
    if not is_map:
        return "", ""
    return str(config.get("namespace") or namespace_of(broker)), str(config.get("name") or "")
