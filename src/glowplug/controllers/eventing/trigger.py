"""Trigger → the machine's broker, and its status.

Conditions and wording as of knative.dev/eventing pkg/reconciler/broker/trigger, but one thing: a Trigger whose
subscriber has no address yet takes part already. Its events wait for the address, as the delivery says.
"""

from __future__ import annotations

from glowplug.spec import kinds
from glowplug.spec.eventing import Destination, TriggerSpec, parse_trigger

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, at, generation_of, is_deleting
from ..world import World
from .broker import DEAD_LETTER_SINK_RESOLVED, NO_DEAD_LETTER_SINK, dead_letter_condition, is_ours
from .engine import Engine, KafkaState
from .sinks import Resolved, resolve

BROKER_READY, SUBSCRIPTION_READY, DEPENDENCY_READY = "BrokerReady", "SubscriptionReady", "DependencyReady"
SUBSCRIBER_RESOLVED = "SubscriberResolved"
_DEPENDENTS = (
    BROKER_READY,
    SUBSCRIPTION_READY,
    DEPENDENCY_READY,
    SUBSCRIBER_RESOLVED,
    DEAD_LETTER_SINK_RESOLVED,
)


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Tells the broker of one Trigger, and brings its status up to date."""
    trigger = world.get(kinds.TRIGGER, namespace, name)
    engine = world.engine
    if engine is None:
        return
    owner = f"Trigger {namespace}/{name}"
    if trigger is None or is_deleting(trigger):
        engine.remove_trigger(namespace, name)
        engine.set_addresses(owner, {})
        return
    spec = parse_trigger(trigger)
    broker = world.get(kinds.BROKER, namespace, spec.broker)
    status: Object = {"conditions": (trigger.get("status") or {}).get("conditions")}
    if broker is None or is_deleting(broker) or not is_ours(broker):
        engine.remove_trigger(namespace, name)
        engine.set_addresses(owner, {})
        found = [_no_broker(spec, broker)]
    else:
        found = _subscribe(world, engine, owner, spec, broker, status)
    status["observedGeneration"] = generation_of(trigger)
    status["conditions"] = conditions.settle(status["conditions"], found, _DEPENDENTS, now)
    world.update_status(kinds.TRIGGER, trigger, status)


def _no_broker(spec: TriggerSpec, broker: Object | None) -> Condition:
    if broker is None or is_deleting(broker):
        return conditions.false(BROKER_READY, "BrokerDoesNotExist", f'Broker "{spec.broker}" does not exist')
    ready = conditions.find(broker, conditions.READY)
    if ready is None:
        return conditions.unknown(BROKER_READY, "BrokerNotConfigured", "Broker has not yet been reconciled.")
    return ready.renamed(BROKER_READY)


def _subscribe(
    world: World, engine: Engine, owner: str, spec: TriggerSpec, broker: Object, status: Object
) -> list[Condition]:
    """Starts or changes the delivery; the conditions, and the URLs in `status`."""
    addresses: dict[Destination, str] = {}
    found = [_broker_condition(broker)]
    subscriber = resolve(spec.subscriber, world.get)
    if isinstance(subscriber, Resolved):
        status["subscriberUri"] = addresses[spec.subscriber] = subscriber.url
        found.append(conditions.true(SUBSCRIBER_RESOLVED))
    else:
        found.append(
            conditions.false(SUBSCRIBER_RESOLVED, "Unable to get the Subscriber's URI", subscriber.message)
        )
    found.append(_dead_letter(world, spec, broker, status, addresses))
    engine.set_addresses(owner, addresses)
    subscribed = _subscription(engine.set_trigger(spec))
    return [*found, subscribed, conditions.true(DEPENDENCY_READY)]


def _subscription(state: KafkaState | None) -> Condition:
    if state is None or (state.is_connected and state.has_offsets):
        return conditions.true(SUBSCRIPTION_READY)
    if state.problem:
        return conditions.false(SUBSCRIPTION_READY, "KafkaNotReachable", state.problem)
    return conditions.unknown(SUBSCRIPTION_READY, "Connecting", "The consumer group has no offsets yet.")


def _broker_condition(broker: Object) -> Condition:
    ready = conditions.find(broker, conditions.READY)
    if ready is None:
        return conditions.unknown(BROKER_READY, "BrokerNotConfigured", "Broker has not yet been reconciled.")
    return conditions.true(BROKER_READY) if ready.status == "True" else ready.renamed(BROKER_READY)


def _dead_letter(
    world: World, spec: TriggerSpec, broker: Object, status: Object, addresses: dict[Destination, str]
) -> Condition:
    """The Trigger's own dead letter sink, else its Broker's."""
    sink = spec.delivery.dead_letter if spec.delivery else None
    if sink is not None:
        resolved = resolve(sink, world.get)
        if isinstance(resolved, Resolved):
            status["deadLetterSinkUri"] = addresses[sink] = resolved.url
        return dead_letter_condition(resolved)
    if not at(broker, "spec", "delivery", "deadLetterSink"):
        return NO_DEAD_LETTER_SINK
    url = at(broker, "status", "deadLetterSinkUri")
    if not url:
        name = at(broker, "metadata", "name")
        return conditions.false(
            DEAD_LETTER_SINK_RESOLVED, f"Broker {name} didn't set status.deadLetterSinkURI"
        )
    status["deadLetterSinkUri"] = url
    return conditions.true(DEAD_LETTER_SINK_RESOLVED)
