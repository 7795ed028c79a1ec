"""A broker as a process: `python -m benchmarks.broker_process DIRECTORY PORT [SINK ...]`, with a Trigger a sink."""

from __future__ import annotations

import pathlib
import sys

import anyio

from glowplug.broker import Broker, BrokerConfig
from glowplug.spec.eventing import Backoff, BrokerSpec, Delivery, Destination, TriggerSpec


async def _run(directory: str, port: str, *sinks: str) -> None:
    config = BrokerConfig(pathlib.Path(directory), port=int(port), reserve_bytes=0)
    broker = Broker(config, lambda destination: destination.uri or None)
    delivery = Delivery(retry=50, backoff=Backoff.LINEAR, delay_s=0.05)
    broker.set_broker(BrokerSpec("default", "default", delivery))
    for index, sink in enumerate(sinks):
        broker.set_trigger(TriggerSpec("default", f"t{index}", "default", Destination(uri=sink)))
    async with anyio.create_task_group() as tasks:
        await tasks.start(broker.run)
        print(broker.port, flush=True)


if __name__ == "__main__":
    anyio.run(_run, *sys.argv[1:])
