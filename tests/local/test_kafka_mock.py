"""A bridge against the cluster that librdkafka brings for tests: what can be seen of it without Java."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from confluent_kafka.admin import AdminClient

from glowplug.kafka import Bridge, BridgeConfig, EventProducer, Link, Origin, ensure_topic
from glowplug.kafka.client import KafkaError
from glowplug.kafka.consumer import ConsumerConfig
from glowplug.spec.kafka import EARLIEST, Topic
from glowplug.spec.kafka_security import Cluster
from glowplug.wire.events import CloudEvent


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    client = AdminClient({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
    servers = [f"{each.host}:{each.port}" for each in client.list_topics(timeout=10).brokers.values()]
    yield Cluster(tuple(servers))
    del client


class Recorder:
    """Refuses an event `refusals` times, and then takes it."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.got: list[tuple[str, int]] = []
        self.enough = anyio.Event()
        self.wanted = 0

    async def handle(self, event: CloudEvent, attempts: int, last: Any) -> Any:
        self.got.append((event.text("id"), attempts))
        if attempts < self.refusals:
            return _Again(0.0, attempts + 1)
        if sum(attempts >= self.refusals for _, attempts in self.got) >= self.wanted:
            self.enough.set()
        return None


class _Again:
    def __init__(self, at: float, attempts: int) -> None:
        self.at, self.attempts = at, attempts


def event(number: int) -> CloudEvent:
    return CloudEvent({"specversion": "1.0", "id": str(number), "source": "/t", "type": "t"}, b"1")


async def test_events_go_round_and_offsets_follow(cluster: Cluster) -> None:
    """In order and not, at once: that cluster lets a group wait for seconds until it begins."""
    # It makes a topic when it is written to.
    producer = EventProducer(cluster)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for is_ordered in (True, False):
                tasks.start_soon(_go_round, cluster, producer, is_ordered)
    await producer.closed()


async def _go_round(cluster: Cluster, producer: EventProducer, is_ordered: bool) -> None:
    recorder = Recorder(refusals=2)
    recorder.wanted = 40
    links: list[Link] = []
    topic = f"round-{is_ordered}"
    for number in range(40):
        await producer.send(topic, event(number))
    consuming = ConsumerConfig(
        cluster, f"g-{is_ordered}", (topic,), is_ordered=is_ordered, commit_every_s=0.01
    )
    for turn in range(2):
        bridge = Bridge(BridgeConfig(consuming, Origin("/s"), 1, EARLIEST), recorder, links.append)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bridge.run)
            await recorder.enough.wait()
            tasks.cancel_scope.cancel()
        if not turn:
            # The next one begins behind what is over.
            recorder.got, recorder.enough, recorder.wanted = [], anyio.Event(), 1
            await producer.send(topic, event(40))
    assert {id for id, _ in recorder.got} == {"40"}
    assert [attempts for _, attempts in recorder.got] == [0, 1, 2]
    assert Link(True, True) in links


async def test_an_event_that_kafka_does_not_take_is_no_accepted_one() -> None:
    producer = EventProducer(Cluster(("127.0.0.1:1",)), timeout_s=0.3)
    with anyio.fail_after(60), pytest.raises(KafkaError, match="does not take the event"):
        await producer.send("nowhere", event(1))
    await producer.closed()


async def test_what_is_not_there_is_said() -> None:
    nowhere = Cluster(("127.0.0.1:1",))
    with pytest.raises(KafkaError, match="topic t cannot be made"):
        await anyio.to_thread.run_sync(ensure_topic, nowhere, Topic("t", 1, 1), 1.0)
    links: list[Link] = []
    heard = anyio.Event()

    def hear(link: Link) -> None:
        links.append(link)
        heard.set()

    config = BridgeConfig(ConsumerConfig(nowhere, "g", ("t",)), Origin("/s"), kafka_timeout_s=1.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Bridge(config, Recorder(), hear).run)
        with anyio.fail_after(60):
            await heard.wait()
        tasks.cancel_scope.cancel()
    assert links[0].is_connected is False and "g cannot begin" in links[0].problem


def test_the_program_says_all_that_is_wrong_at_once() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    paths = [str(root / "src"), str(root / "eventing/kafka-source/src")]
    wrong = {
        "KAFKA_TOPICS": "t", "KAFKA_ORDERING": "some", "KAFKA_DELIVERY": '{"retry": -1}', "K_SINK": "sink",
        "KAFKA_NET_SASL_ENABLE": "true", "KAFKA_CONSUMERS": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "glowplug_kafka_source"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **wrong},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    for said in (
        "KAFKA_BOOTSTRAP_SERVERS is not set", "KAFKA_CONSUMER_GROUP is not set", "KAFKA_ORDERING = 'some'",
        "KAFKA_DELIVERY: retry", "K_SINK = 'sink'", "SASL needs a user", "KAFKA_CONSUMERS = '0'", "README.md",
    ):  # fmt: skip
        assert said in done.stderr, done.stderr
