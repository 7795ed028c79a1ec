"""A broker as a process of its own: `python broker_process.py CONFIG`, where CONFIG is JSON.

`config` has fields of BrokerConfig, `objects` Brokers and Triggers as they are applied. It prints its port once it is
up. A line on its standard input is a question: `metrics`, `events ...`, `dead-letters ...` (pages), or an object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import resource
import signal
import sys
from typing import Any

import anyio

from glowplug.broker import Broker, BrokerConfig
from glowplug.spec.eventing import Destination, parse_broker, parse_trigger

READY = "ready"


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asked = json.loads(pathlib.Path(sys.argv[1]).read_text())
    if limit := asked.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    anyio.run(_run, asked)


def resolve(destination: Destination) -> str | None:
    """URLs only."""
    return destination.uri or None


def apply(broker: Broker, obj: dict[str, Any]) -> None:
    if obj["kind"] == "Broker":
        broker.set_broker(parse_broker(obj))
    else:
        broker.set_trigger(parse_trigger(obj))


async def _run(asked: dict[str, Any]) -> None:
    config = {**asked["config"], "directory": pathlib.Path(asked["config"]["directory"])}
    broker = Broker(BrokerConfig(**config), resolve)
    for obj in asked["objects"]:
        apply(broker, obj)
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            await tasks.start(broker.run)
            print(READY, broker.port, flush=True)
            tasks.start_soon(_answer, broker, tasks.cancel_scope)
            await anext(aiter(signals))
            tasks.cancel_scope.cancel()


async def _answer(broker: Broker, scope: anyio.CancelScope) -> None:
    """Until nobody asks any more: whoever started this process is gone then, and so is its use."""
    reader = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().strip():
        words = line.split("/")
        text: str | None = ""
        if line.startswith("{"):
            apply(broker, json.loads(line))
        elif line == "metrics":
            text = broker.metrics()
        elif words[0] == "remove":
            broker.remove_trigger(words[1], words[2])
        elif words[0] == "events":
            text = await broker.pages.events(tuple(words[1:]))
        else:
            text = await broker.pages.dead_letters(tuple(words[1:]))
        print(json.dumps(text), flush=True)
    scope.cancel()


if __name__ == "__main__":
    main()
