"""Topics, made and deleted, and where a group begins. Everything here blocks: it is called in threads.

A group that is to begin at the latest records gets offsets at once, before it reads: with `auto.offset.reset` alone it
would begin anew at whatever is the latest after each crash before its first commit, and lose what came in between.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from glowplug.kafka.client import KafkaError, admin, confluent, settings
from glowplug.kafka.handshake import handshake_problem
from glowplug.spec.kafka import EARLIEST, Topic
from glowplug.spec.kafka_security import Cluster

# How long an attempt took is no part of what is wrong: the same cause is to be the same text.
_TOOK = re.compile(r" \(after \d+ms in state \w+\)")
# So often it is looked whether Kafka has refused us, which a client would not tell before its time is over.
_LOOK_S = 1.0
_SHOWN_S = 0.05


def ensure_topic(cluster: Cluster, topic: Topic, timeout_s: float) -> None:
    """The topic is there; it is made unless somebody else has to. Raises KafkaError, ConfigError."""
    module, found, what = confluent(), admin(), f"topic {topic.name} cannot be made"
    with _Client(found.AdminClient, cluster, timeout_s) as client:
        if topic.name in client.topics(None, what):
            return
        if topic.is_external:
            raise KafkaError(f"there is no topic {topic.name}", hint="make it, or leave the annotation out")
        new = found.NewTopic(topic.name, topic.partitions, topic.replicas, config=dict(topic.settings))
        try:
            made = client.own.create_topics([new], operation_timeout=timeout_s)
            made[topic.name].result(timeout_s)
        except module.KafkaException as error:
            if error.args[0].code() != module.KafkaError.TOPIC_ALREADY_EXISTS:
                raise problem(what, error) from error
        except TimeoutError as error:
            raise KafkaError(f"topic {topic.name} was not made within {timeout_s:g} s") from error


def delete_topics(cluster: Cluster, names: Sequence[str], timeout_s: float) -> None:
    """The topics are not there. Raises KafkaError, ConfigError."""
    module, found, what = confluent(), admin(), f"topic {names[0]} cannot be deleted"
    with _Client(found.AdminClient, cluster, timeout_s) as client:
        known = client.topics(None, what)
        there = [name for name in names if name in known]
        # With no name at all the client would raise.
        gone = client.own.delete_topics(there, operation_timeout=timeout_s) if there else {}
        for name, future in gone.items():
            try:
                future.result(timeout_s)
            except module.KafkaException as error:
                if error.args[0].code() != module.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise problem(f"topic {name} cannot be deleted", error) from error
            except TimeoutError as error:
                raise KafkaError(f"topic {name} was not deleted within {timeout_s:g} s") from error
        # A server may show for a while what is gone; whoever makes the topic anew would take it for there.
        ends_at = time.monotonic() + timeout_s
        while there and not set(there).isdisjoint(client.topics(None, what)):
            if time.monotonic() >= ends_at:
                raise KafkaError(f"topic {names[0]} is still shown {timeout_s:g} s after it was deleted")
            time.sleep(_SHOWN_S)


def pin(cluster: Cluster, group: str, topics: Sequence[str], initial: str, timeout_s: float) -> int:
    """The group has an offset in every partition; returns how many there are. Raises KafkaError, ConfigError."""
    module, what = confluent(), f"group {group} cannot begin"
    more = {"group.id": group, "enable.auto.commit": False, "allow.auto.create.topics": False}
    with _Client(module.Consumer, cluster, timeout_s, more) as client:
        consumer = client.own
        partitions = [
            module.TopicPartition(topic, each)
            for topic in topics
            for each in _ids(topic, client.topics(topic, what))
        ]
        try:
            begin = _begin(consumer, consumer.committed(partitions, timeout=timeout_s), initial, timeout_s)
            if begin:
                _commit(consumer, begin, group)
        except module.KafkaException as error:
            raise problem(what, error) from error
        return len(partitions)


class _Client:
    """One of librdkafka's for a short while, which tells why it is refused as soon as it is."""

    def __init__(
        self, kind: Any, cluster: Cluster, timeout_s: float, more: Mapping[str, Any] | None = None
    ) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        # What it says beside its answers: that a password is wrong, where the answer is that nobody is there.
        self._causes: list[Any] = []
        config = {
            **settings(cluster), **(more or {}), "error_cb": self._causes.append,
            "socket.timeout.ms": int(timeout_s * 1000),
        }  # fmt: skip
        try:
            self.own = kind(config)
        except Exception as error:
            # A wrong certificate or mechanism is found here, before anything is connected.
            raise problem("Kafka's settings are wrong", error) from error

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *raised: object) -> None:
        if hasattr(self.own, "close"):
            self.own.close()

    def topics(self, name: str | None, what: str) -> Any:
        """What there is, of one or of every topic. `what` is what a KafkaError begins with."""
        ends_at = time.monotonic() + self._timeout_s
        asked = {} if name is None else {"topic": name}
        while True:
            left_s = max(0.1, ends_at - time.monotonic())
            try:
                return self.own.list_topics(timeout=min(_LOOK_S, left_s), **asked).topics
            except confluent().KafkaException as error:
                if refused := self._refusal():
                    raise KafkaError(f"{what}: {refused}") from error
                if time.monotonic() >= ends_at:
                    raise problem(what, error) from error

    def _refusal(self) -> str:
        self.own.poll(0)
        kinds = confluent().KafkaError
        for each in self._causes:
            if each.code() == kinds._AUTHENTICATION:
                return told(each)
        # Its own account of TLS is of little use: it comes last.
        own = next((told(each) for each in self._causes if each.code() == kinds._SSL), "")
        return handshake_problem(self._cluster, self._timeout_s) or own


def problem(what: str, error: Exception) -> KafkaError:
    """A KafkaException as an error for the user."""
    cause = error.args[0] if error.args else error
    return KafkaError(f"{what}: {told(cause) if hasattr(cause, 'str') else cause}")


def told(cause: Any) -> str:
    """What an error of confluent-kafka says, the same for the same cause."""
    return _TOOK.sub("", cause.str())


def _ids(topic: str, known: Any) -> list[int]:
    found = known[topic]
    if found.error is not None:
        raise KafkaError(f"topic {topic}: {found.error.str()}")
    return sorted(found.partitions)


def _begin(consumer: Any, committed: list[Any], initial: str, timeout_s: float) -> list[Any]:
    """The offsets to begin at, of the partitions that have none."""
    found = []
    for each in committed:
        if each.error is not None:
            raise KafkaError(f"the offsets of {each.topic} cannot be read: {each.error.str()}")
        if each.offset < 0:
            low, high = consumer.get_watermark_offsets(each, timeout=timeout_s)
            at = low if initial == EARLIEST else high
            found.append(confluent().TopicPartition(each.topic, each.partition, at))
    return found


def _commit(consumer: Any, begin: list[Any], group: str) -> None:
    module = confluent()
    # Only a group without members takes this; one that has members was begun by them.
    joined = (module.KafkaError.UNKNOWN_MEMBER_ID, module.KafkaError.ILLEGAL_GENERATION)
    try:
        for each in consumer.commit(offsets=begin, asynchronous=False):
            if each.error is not None and each.error.code() not in joined:
                raise KafkaError(f"the first offsets of group {group} are not committed: {each.error.str()}")
    except module.KafkaException as error:
        if error.args[0].code() not in joined:
            raise
