"""A Broker of class Kafka → what the machine's broker needs to keep its events in a topic, or why it cannot.

Where the cluster is stands in a ConfigMap, `spec.config`; who may speak to it in a Secret that the ConfigMap names.
What is needed of the ConfigMap is kept in the status, so that a Broker outlives it. A Broker is held by a finalizer
until its topic is gone, or cannot be deleted; a topic that somebody else made stays.
Source: eventing-kafka-broker control-plane/pkg/reconciler/broker/broker.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from glowplug.spec import kinds
from glowplug.spec.eventing import BROKER_CLASS, BrokerSpec
from glowplug.spec.kafka import BROKER_CLASS as KAFKA
from glowplug.spec.kafka import KEPT, SECRET_NAME, TOPIC, Topic, servers_of, topic_of
from glowplug.spec.kafka_security import Cluster, KafkaProblem, security_of_secret

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, annotations_of, at, copied, name_of, namespace_of
from ..world import World
from .engine import Engine, KafkaState
from .kafkasource import secret
from .references import config_of

TOPIC_READY = "TopicReady"
FINALIZER = "brokers.eventing.knative.dev"


def is_kafka(broker: Object) -> bool:
    """Whether a Broker's events are to be kept in Kafka."""
    return annotations_of(broker).get(BROKER_CLASS) == KAFKA


def hold(world: World, broker: Object) -> Object:
    """The Broker, held by the finalizer. Raises Conflict, NotFound."""
    held_by = at(broker, "metadata", "finalizers") or []
    return broker if FINALIZER in held_by else _with_finalizers(world, broker, [*held_by, FINALIZER])


def set_up(world: World, engine: Engine, broker: Object, spec: BrokerSpec, status: Object) -> Condition:
    """Tells the engine of a Broker; what is kept goes into `status`."""
    kept: dict[str, str] = dict(at(broker, "status", "annotations") or {})
    status["annotations"] = kept
    try:
        data = _data(world, broker)
        # Before it is used: its Secret is followed by what is kept.
        kept.update({key: data[key] for key in KEPT if key in data})
        for key in KEPT:
            if key not in data:
                kept.pop(key, None)
        cluster, topic = _cluster(world, broker, data), topic_of(broker, data)
    except KafkaProblem as problem:
        engine.hold_kafka_broker(spec.namespace, spec.name)
        return conditions.false(TOPIC_READY, "ConfigNotUsable", str(problem))
    state = engine.set_kafka_broker(spec, cluster, topic)
    if state.is_connected:
        # Of a topic that is there: whoever deletes the Broker need not look for one that never was.
        kept[TOPIC] = topic.name
    return _condition(state)


def take_down(world: World, engine: Engine | None, broker: Object) -> None:
    """Lets go of a Broker that is being deleted, once its topic is gone. Raises Conflict."""
    held_by = at(broker, "metadata", "finalizers") or []
    if FINALIZER not in held_by:
        return
    topic = _own_topic(broker)
    if topic is not None and engine is not None:
        state = engine.end_kafka_broker(
            namespace_of(broker), name_of(broker), _last_cluster(world, broker), topic
        )
        if state.is_connected is None:
            return
        if not state.is_connected:
            world.record(broker, "Warning", "TopicNotDeleted", f"{state.problem}; the topic stays")
    _with_finalizers(world, broker, [one for one in held_by if one != FINALIZER])


def _own_topic(broker: Object) -> Topic | None:
    """The topic that was made for this Broker, None where there is none."""
    kept: Mapping[str, str] = at(broker, "status", "annotations") or {}
    # By the name alone: the rest of the ConfigMap does not matter any more.
    topic = topic_of(broker, {})
    return topic if is_kafka(broker) and not topic.is_external and kept.get(TOPIC) == topic.name else None


def _last_cluster(world: World, broker: Object) -> Cluster | None:
    try:
        return _cluster(world, broker, _data(world, broker))
    except KafkaProblem:
        return None


def _data(world: World, broker: Object) -> dict[str, str]:
    """The ConfigMap, or what is kept of it. Raises KafkaProblem."""
    namespace, name = config_of(broker)
    if not name:
        raise KafkaProblem("spec.config names no ConfigMap, expected one with bootstrap.servers")
    config = world.get(kinds.CONFIG_MAP, namespace, name)
    if config is not None:
        return {key: str(value) for key, value in (config.get("data") or {}).items()}
    kept: Mapping[str, str] = at(broker, "status", "annotations") or {}
    if not kept:
        raise KafkaProblem(f'there is no ConfigMap "{name}" in namespace {namespace}')
    return {key: value for key, value in kept.items() if key in KEPT}


def _cluster(world: World, broker: Object, data: Mapping[str, str]) -> Cluster:
    """Raises KafkaProblem."""
    wanted = data.get(SECRET_NAME, "")
    if not wanted:
        return Cluster(servers_of(data))
    namespace, _ = config_of(broker)
    found = secret(world, namespace, wanted)
    if found is None:
        raise KafkaProblem(f'there is no Secret "{wanted}" in namespace {namespace}')
    try:
        return Cluster(servers_of(data), security_of_secret(found))
    except KafkaProblem as problem:
        raise KafkaProblem(f'Secret "{wanted}": {problem}') from problem


def _condition(state: KafkaState) -> Condition:
    """What the machine says of a Broker's topic."""
    if state.is_missing:
        return conditions.false(TOPIC_READY, "KafkaNotInstalled", state.problem)
    if state.is_connected is None:
        return conditions.unknown(TOPIC_READY, "Connecting", state.problem)
    if state.is_connected:
        return conditions.true(TOPIC_READY)
    return conditions.false(TOPIC_READY, "KafkaNotReachable", state.problem)


def _with_finalizers(world: World, broker: Object, finalizers: list[str]) -> Object:
    changed = copied(broker)
    changed["metadata"]["finalizers"] = finalizers
    return world.update(kinds.BROKER, changed)
