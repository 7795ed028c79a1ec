"""Broker → the machine's broker, and its status.

Conditions as of knative.dev/eventing pkg/apis/eventing/v1/broker_lifecycle.go, without those of channels and event
policies, which this machine does not have.
"""

from __future__ import annotations

from glowplug.spec import kinds
from glowplug.spec.eventing import BROKER_CLASS, parse_broker
from glowplug.spec.eventing_local import BROKER_CLASSES

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, annotations_of, generation_of, is_deleting
from ..world import World
from .kafkabroker import TOPIC_READY, hold, is_kafka, set_up, take_down
from .sinks import Resolved, Unresolved, resolve

INGRESS_READY, FILTER_READY, ADDRESSABLE = "IngressReady", "FilterReady", "Addressable"
DEAD_LETTER_SINK_RESOLVED = "DeadLetterSinkResolved"
_DEPENDENTS = (INGRESS_READY, FILTER_READY, ADDRESSABLE, DEAD_LETTER_SINK_RESOLVED)
NO_DEAD_LETTER_SINK = conditions.true(
    DEAD_LETTER_SINK_RESOLVED, "DeadLetterSinkNotConfigured", "No dead letter sink is configured."
)


def is_ours(broker: Object) -> bool:
    """Whether this machine's broker serves that class; an object from before there were defaults has none."""
    return annotations_of(broker).get(BROKER_CLASS, BROKER_CLASSES[0]) in BROKER_CLASSES


def is_local(broker: Object) -> bool:
    """Whether its events are kept in the machine's own log."""
    return is_ours(broker) and not is_kafka(broker)


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Tells the broker of one Broker, and brings its status up to date."""
    broker = world.get(kinds.BROKER, namespace, name)
    owner = f"Broker {namespace}/{name}"
    engine = world.engine
    if broker is not None and is_deleting(broker):
        take_down(world, engine, broker)
    if broker is None or is_deleting(broker) or not is_ours(broker):
        if engine is not None:
            engine.remove_broker(namespace, name)
            engine.set_addresses(owner, {})
        if broker is not None and not is_deleting(broker):
            _refuse(world, broker, now)
        return
    if engine is None:
        return
    if is_kafka(broker):
        broker = hold(world, broker)
    spec = parse_broker(broker)
    status: Object = {
        key: value for key, value in (broker.get("status") or {}).items() if key in ("conditions",)
    }
    found: list[Condition] = [conditions.true(INGRESS_READY), conditions.true(FILTER_READY)]
    sink = spec.delivery.dead_letter
    if sink is None:
        engine.set_addresses(owner, {})
        found.append(NO_DEAD_LETTER_SINK)
    else:
        resolved = resolve(sink, world.get)
        engine.set_addresses(owner, {sink: resolved.url} if isinstance(resolved, Resolved) else {})
        found.append(dead_letter_condition(resolved))
        if isinstance(resolved, Resolved):
            status["deadLetterSinkUri"] = resolved.url
    # After the addresses: what waits for delivery goes on at once.
    dependents: tuple[str, ...] = _DEPENDENTS
    if is_kafka(broker):
        dependents = (*_DEPENDENTS, TOPIC_READY)
        found.append(set_up(world, engine, broker, spec, status))
    else:
        engine.set_broker(spec)
    status["address"] = {"name": "http", "url": engine.broker_url(namespace, name)}
    found.append(conditions.true(ADDRESSABLE))
    status["observedGeneration"] = generation_of(broker)
    status["conditions"] = conditions.settle(status.get("conditions"), found, dependents, now)
    world.update_status(kinds.BROKER, broker, status)


def dead_letter_condition(resolved: Resolved | Unresolved) -> Condition:
    """The condition that says whether a dead letter sink has an address."""
    if isinstance(resolved, Resolved):
        return conditions.true(DEAD_LETTER_SINK_RESOLVED)
    return conditions.false(
        DEAD_LETTER_SINK_RESOLVED, "Unable to get the dead letter sink's URI", resolved.message
    )


def _refuse(world: World, broker: Object, now: float) -> None:
    found = annotations_of(broker).get(BROKER_CLASS, "")
    message = (
        f'{BROKER_CLASS} is "{found}", the local machine has brokers of class {" or ".join(BROKER_CLASSES)}'
    )
    condition = conditions.false(conditions.READY, "BrokerClassNotSupported", message)
    status: Object = {
        "observedGeneration": generation_of(broker),
        "conditions": conditions.alone((broker.get("status") or {}).get("conditions"), condition, now),
    }
    world.update_status(kinds.BROKER, broker, status)
