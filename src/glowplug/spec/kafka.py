"""Kafka in Kubernetes' objects, as values: clusters and how they are reached, KafkaSources, Brokers kept in a topic.

Reading assumes that an object has been admitted, see `kafka_validation`; of Secrets see `kafka_security`.
Source: knative-extensions/eventing-kafka-broker control-plane/pkg/{apis/sources/v1,kafka,reconciler/broker}.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from glowplug.spec.eventing import Delivery, Destination, parse_delivery, parse_destination
from glowplug.spec.kafka_security import NO_NET, KafkaProblem, Net, parse_net
from glowplug.spec.validation import (
    Object,
    annotations_of,
    as_int,
    as_list,
    as_object,
    as_text,
    metadata,
)

EVENT_TYPE = "dev.knative.kafka.event"
BROKER_CLASS = "Kafka"
KEY_TYPE = "kafkasources.sources.knative.dev/key-type"
EXTERNAL_TOPIC = "kafka.eventing.knative.dev/external.topic"
# Of a KafkaSource: events that neither its sink nor a dead letter sink takes are kept in this topic. Ours alone.
DEAD_LETTER_TOPIC = "glowplug.dev/dead-letter-topic"
DEAD_LETTER_SUFFIX = "-dead-letters"
SERVERS, PARTITIONS, REPLICAS = (
    "bootstrap.servers",
    "default.topic.partitions",
    "default.topic.replication.factor",
)
TOPIC_SETTING = "default.topic.config."
# Of a Secret in the ConfigMap's namespace.
SECRET_NAME = "auth.secret.ref.name"
# In a Broker's status: its topic, and what is kept of its ConfigMap for the time when that is gone.
TOPIC = "default.topic"
KEPT = (SERVERS, PARTITIONS, REPLICAS, SECRET_NAME)
LATEST, EARLIEST = "latest", "earliest"
ORDERED, UNORDERED = "ordered", "unordered"
_GROUP_PREFIX = "knative-kafka-source-"
_DEFAULT_PARTITIONS, _DEFAULT_REPLICAS = 10, 3
# Of a source whose spec says nothing: as a Broker that says nothing.
DEFAULT_DELIVERY = Delivery(retry=10, delay_s=0.2)


class KeyType(str, Enum):
    """What a record's key is read as."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BYTES = "byte-array"


@dataclass(frozen=True)
class KafkaSourceSpec:
    """A KafkaSource. `is_ordered`: one event of a partition at a time."""

    namespace: str
    name: str
    servers: tuple[str, ...]
    topics: tuple[str, ...]
    group: str
    sink: Destination
    consumers: int = 1
    initial_offset: str = LATEST
    is_ordered: bool = True
    key_type: KeyType = KeyType.STRING
    net: Net = NO_NET
    delivery: Delivery = DEFAULT_DELIVERY
    dead_letter_topic: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)

    def source(self, topic: str) -> str:
        """The `source` of events that are made of records of `topic`."""
        return f"{self.source_prefix}#{topic}"

    @property
    def source_prefix(self) -> str:
        return f"/apis/v1/namespaces/{self.namespace}/kafkasources/{self.name}"


@dataclass(frozen=True)
class Topic:
    """A topic and how it is made where it is not there; `is_external`: somebody else makes it."""

    name: str
    partitions: int = _DEFAULT_PARTITIONS
    replicas: int = _DEFAULT_REPLICAS
    is_external: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def dead_letters(self) -> str:
        """Where what nobody took of this topic is kept."""
        return self.name + DEAD_LETTER_SUFFIX


def parse_kafka_source(obj: Object) -> KafkaSourceSpec:
    """An admitted KafkaSource."""
    meta, spec = metadata(obj), as_object(obj.get("spec"))
    namespace = as_text(meta.get("namespace"))
    own = as_object(spec.get("delivery"))
    overrides = as_object(as_object(spec.get("ceOverrides")).get("extensions"))
    consumers = as_int(spec.get("consumers"))
    key_type = as_text(as_object(meta.get("labels")).get(KEY_TYPE))
    return KafkaSourceSpec(
        namespace=namespace,
        name=as_text(meta.get("name")),
        servers=_texts(spec.get("bootstrapServers")),
        topics=_texts(spec.get("topics")),
        group=as_text(spec.get("consumerGroup")),
        sink=parse_destination(as_object(spec.get("sink")), namespace) or Destination(),
        consumers=1 if consumers is None else consumers,
        initial_offset=as_text(spec.get("initialOffset")) or LATEST,
        is_ordered=as_text(spec.get("ordering")) != UNORDERED,
        key_type=KeyType(key_type) if key_type in [each.value for each in KeyType] else KeyType.STRING,
        net=parse_net(as_object(spec.get("net"))),
        delivery=parse_delivery(own, namespace) if own else DEFAULT_DELIVERY,
        dead_letter_topic=annotations_of(obj).get(DEAD_LETTER_TOPIC, ""),
        extensions={key: value for key, value in overrides.items() if isinstance(value, str)},
    )


def default_kafka_source(obj: Object) -> Object:
    """A KafkaSource with a group of its own, one consumer, in order, from the latest on, where it says nothing."""
    obj = copy.deepcopy(obj)
    spec = obj.get("spec")
    if isinstance(spec, dict):
        if not spec.get("consumerGroup"):
            spec["consumerGroup"] = f"{_GROUP_PREFIX}{uuid.uuid4()}"
        if spec.get("consumers") is None:
            spec["consumers"] = 1
        if not spec.get("initialOffset"):
            spec["initialOffset"] = LATEST
        if not spec.get("ordering"):
            spec["ordering"] = ORDERED
    return obj


def servers_of(data: Mapping[str, str]) -> tuple[str, ...]:
    """The servers that a Broker's ConfigMap names. Raises KafkaProblem."""
    found = tuple(each.strip() for each in data.get(SERVERS, "").split(",") if each.strip())
    if not found:
        raise KafkaProblem(f"{SERVERS} is missing, expected host:port, several with commas between them")
    return found


def topic_of(broker: Object, data: Mapping[str, str]) -> Topic:
    """The topic of a Broker whose ConfigMap has `data`. Raises KafkaProblem."""
    meta = metadata(broker)
    external = annotations_of(broker).get(EXTERNAL_TOPIC, "")
    if external:
        return Topic(external, is_external=True)
    return Topic(
        f"knative-broker-{as_text(meta.get('namespace'))}-{as_text(meta.get('name'))}",
        _number(data, PARTITIONS, _DEFAULT_PARTITIONS),
        _number(data, REPLICAS, _DEFAULT_REPLICAS),
        settings={
            name.removeprefix(TOPIC_SETTING): value
            for name, value in data.items()
            if name.startswith(TOPIC_SETTING)
        },
    )


def trigger_group(namespace: str, name: str) -> str:
    """The consumer group of a Trigger."""
    return f"knative-trigger-{namespace}-{name}"


def _number(data: Mapping[str, str], name: str, default: int) -> int:
    text = data.get(name, str(default)).strip()
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**15):
        raise KafkaProblem(f"{name} = {text!r}, expected a number from 1 on")
    return int(text)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in as_list(value) if isinstance(each, str) and each)
