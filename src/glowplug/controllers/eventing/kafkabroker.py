"""A Broker of class Kafka → what the machine's broker needs to keep its events in a topic, or why it cannot.

Where the cluster is stands in a ConfigMap, `spec.config`; who may speak to it in a Secret that the ConfigMap names.
Source: eventing-kafka-broker control-plane/pkg/reconciler/broker/broker.go.
"""

from __future__ import annotations

from glowplug.spec import kinds
from glowplug.spec.eventing import BROKER_CLASS
from glowplug.spec.kafka import BROKER_CLASS as KAFKA
from glowplug.spec.kafka import SECRET_NAME, SECRET_NAMESPACE, Topic, servers_of, topic_of
from glowplug.spec.kafka_security import Cluster, KafkaProblem, Security, security_of_secret

from .. import conditions
from ..conditions import Condition
from ..metadata import Object, annotations_of, namespace_of
from ..world import World
from .engine import KafkaState
from .kafkasource import secret
from .references import config_of

TOPIC_READY = "TopicReady"


def is_kafka(broker: Object) -> bool:
    """Whether a Broker's events are to be kept in Kafka."""
    return annotations_of(broker).get(BROKER_CLASS) == KAFKA


def place_of(world: World, broker: Object) -> tuple[Cluster, Topic]:
    """Where the events of a Broker are kept. Raises KafkaProblem."""
    namespace, name = config_of(broker)
    if not name:
        raise KafkaProblem("spec.config names no ConfigMap, expected one with bootstrap.servers")
    config = world.get(kinds.CONFIG_MAP, namespace, name)
    if config is None:
        raise KafkaProblem(f'there is no ConfigMap "{name}" in namespace {namespace}')
    data = {key: str(value) for key, value in (config.get("data") or {}).items()}
    security = Security()
    wanted = data.get(SECRET_NAME, "")
    if wanted:
        where = data.get(SECRET_NAMESPACE) or namespace_of(config)
        found = secret(world, where, wanted)
        if found is None:
            raise KafkaProblem(f'there is no Secret "{wanted}" in namespace {where}')
        security = security_of_secret(found)
    return Cluster(servers_of(data), security), topic_of(broker, data)


def topic_condition(state: KafkaState) -> Condition:
    """What the machine says of a Broker's topic."""
    if state.is_missing:
        return conditions.false(TOPIC_READY, "KafkaNotInstalled", state.problem)
    if state.is_connected is None:
        return conditions.unknown(TOPIC_READY, "Connecting", state.problem)
    if state.is_connected:
        return conditions.true(TOPIC_READY)
    return conditions.false(TOPIC_READY, "KafkaNotReachable", state.problem)
