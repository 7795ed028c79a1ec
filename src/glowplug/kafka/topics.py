"""Topics, and where a group begins. Everything here blocks: it is called in threads.

A group that is to begin at the latest records gets offsets at once, before it reads: with `auto.offset.reset` alone it
would begin anew at whatever is the latest after each crash before its first commit, and lose what came in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glowplug.kafka.client import KafkaError, admin, confluent, settings
from glowplug.spec.kafka import EARLIEST, Topic
from glowplug.spec.kafka_security import Cluster


def ensure_topic(cluster: Cluster, topic: Topic, timeout_s: float) -> None:
    """The topic is there; it is made unless somebody else has to. Raises KafkaError, ConfigError."""
    module, found, heard = confluent(), admin(), _Heard()
    config = {**settings(cluster), "socket.timeout.ms": int(timeout_s * 1000), "error_cb": heard}
    client = _made(found.AdminClient, config)
    try:
        known = client.list_topics(timeout=timeout_s).topics
        if topic.name in known:
            return
        if topic.is_external:
            raise KafkaError(f"there is no topic {topic.name}", hint="make it, or leave the annotation out")
        new = found.NewTopic(topic.name, topic.partitions, topic.replicas, config=dict(topic.settings))
        client.create_topics([new], operation_timeout=timeout_s)[topic.name].result(timeout_s)
    except module.KafkaException as error:
        if error.args[0].code() != module.KafkaError.TOPIC_ALREADY_EXISTS:
            raise heard.problem(client, f"topic {topic.name} cannot be made", error) from error
    except TimeoutError as error:
        raise KafkaError(f"topic {topic.name} was not made within {timeout_s:g} s") from error


def pin(cluster: Cluster, group: str, topics: Sequence[str], initial: str, timeout_s: float) -> int:
    """The group has an offset in every partition; returns how many there are. Raises KafkaError, ConfigError."""
    module, heard = confluent(), _Heard()
    config = {
        **settings(cluster), "error_cb": heard, "group.id": group, "enable.auto.commit": False,
        "socket.timeout.ms": int(timeout_s * 1000), "allow.auto.create.topics": False,
    }  # fmt: skip
    consumer = _made(module.Consumer, config)
    try:
        partitions = [
            module.TopicPartition(topic, each)
            for topic in topics
            for each in _ids(consumer, topic, timeout_s)
        ]
        committed = consumer.committed(partitions, timeout=timeout_s)
        begin = []
        for each in committed:
            if each.error is not None:
                raise KafkaError(f"the offsets of group {group} cannot be read: {each.error.str()}")
            if each.offset < 0:
                low, high = consumer.get_watermark_offsets(each, timeout=timeout_s)
                begin.append(
                    module.TopicPartition(each.topic, each.partition, low if initial == EARLIEST else high)
                )
        if begin:
            _commit(consumer, begin, group)
        return len(partitions)
    except module.KafkaException as error:
        raise heard.problem(consumer, f"group {group} cannot begin", error) from error
    finally:
        consumer.close()


class _Heard:
    """What a client says beside its answers: that a password is wrong, where the answer is that nobody is there."""

    def __init__(self) -> None:
        self._causes: list[Any] = []

    def __call__(self, cause: Any) -> None:
        self._causes.append(cause)

    def problem(self, client: Any, what: str, error: Exception) -> KafkaError:
        """The error, with a better cause if there is one."""
        client.poll(0)
        kinds = confluent().KafkaError
        causes = [each for each in self._causes if each.code() in (kinds._AUTHENTICATION, kinds._SSL)]
        return KafkaError(f"{what}: {causes[0].str()}") if causes else problem(what, error)


def problem(what: str, error: Exception) -> KafkaError:
    """A KafkaException as an error for the user."""
    cause = error.args[0] if error.args else error
    said = cause.str() if hasattr(cause, "str") else str(cause)
    return KafkaError(f"{what}: {said}")


def _made(kind: Any, config: dict[str, Any]) -> Any:
    try:
        return kind(config)
    except Exception as error:
        # A wrong certificate or mechanism is found here, before anything is connected.
        raise problem("Kafka's settings are wrong", error) from error


def _ids(consumer: Any, topic: str, timeout_s: float) -> list[int]:
    found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    if found.error is not None:
        raise KafkaError(f"topic {topic}: {found.error.str()}")
    return sorted(found.partitions)


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
