"""A machine's broker with two Brokers: `python -m benchmarks.kafka_process FOLDER SERVERS SINK [PORT]`.

`default/default` keeps its events in SQLite, `default/kafka` in a topic; both deliver to the same sink. It prints its
port once both are ready.
"""

from __future__ import annotations

import pathlib
import sys

import anyio
import anyio.to_thread

from glowplug.broker import Broker, BrokerConfig
from glowplug.broker.http_client import HttpClient
from glowplug.local.kafka_brokers import KafkaBrokers
from glowplug.spec.eventing import Backoff, BrokerSpec, Delivery, Destination, TriggerSpec
from glowplug.spec.kafka import Topic
from glowplug.spec.kafka_security import Cluster

_DELIVERY = Delivery(retry=50, backoff=Backoff.LINEAR, delay_s=0.05)
_LOOK_S = 0.05


def _resolve(destination: Destination) -> str | None:
    return destination.uri or None


async def _run(folder: str, servers: str, sink: str, port: str = "0") -> None:
    client = HttpClient(2**20)
    kafka = KafkaBrokers(_resolve, client, lambda *_: None, lambda *_: None)
    config = BrokerConfig(pathlib.Path(folder), port=int(port), reserve_bytes=0)
    broker = Broker(config, _resolve, front=kafka.front)
    cluster = Cluster((servers,))
    broker.set_broker(BrokerSpec("default", "default", _DELIVERY))
    broker.set_trigger(TriggerSpec("default", "t", "default", Destination(uri=sink)))
    async with anyio.create_task_group() as tasks:
        await tasks.start(broker.run)
        kafka.begin(tasks)
        kafka.set_broker(BrokerSpec("default", "kafka", _DELIVERY), cluster, Topic("bench", 3, 1))
        kafka.settle()
        trigger = TriggerSpec("default", "k", "kafka", Destination(uri=sink))
        while not kafka.set_trigger(trigger).has_offsets:  # noqa: ASYNC110 - once, and nothing tells
            await anyio.sleep(_LOOK_S)
        print(broker.port, flush=True)


if __name__ == "__main__":
    anyio.run(_run, *sys.argv[1:])
