"""A broker that is killed again and again under load: what it accepted is delivered, and duplicates are few."""

from __future__ import annotations

import asyncio
import pathlib
import random

from local.broker_lab import BrokerLab, Sink, broker, send, serving, trigger, until

from glowplug.broker.http_client import HttpClient

KILLS = 8
SENDERS = 16


async def test_nothing_accepted_is_lost(tmp_path: pathlib.Path) -> None:
    """Senders do not retry: what counts is what they were told. One sink is slow, one refuses a third at first."""
    chance = random.Random(7)
    refused: set[str] = set()

    def refusing(headers: dict[str, str], body: bytes) -> int:
        if headers["ce-id"] not in refused and chance.random() < 0.3:
            refused.add(headers["ce-id"])
            return 503
        return 202

    sinks = Sink(), Sink(delay_s=0.005), Sink(refusing)
    accepted: list[str] = []
    is_over = False
    client = HttpClient(2**20)

    async def sender(name: int) -> None:
        number = 0
        while not is_over:
            number += 1
            id = f"{name}-{number}"
            answer = await send(client, lab.url, id)
            if answer.status == 202:
                accepted.append(id)
            else:
                await asyncio.sleep(0.02)

    async with serving(*sinks):
        triggers = [trigger(f"t{index}", sink.url) for index, sink in enumerate(sinks)]
        delivery = {"retry": 20, "backoffPolicy": "linear", "backoffDelay": "PT0.05S"}
        lab = BrokerLab(tmp_path, broker(**delivery), *triggers)
        lab.up()
        tasks = [asyncio.create_task(sender(name)) for name in range(SENDERS)]
        loop = asyncio.get_running_loop()
        for _ in range(KILLS):
            before = len(accepted)
            await until(lambda least=before: len(accepted) > least + 20)
            await asyncio.sleep(chance.uniform(0, 0.2))
            await loop.run_in_executor(None, lab.kill)
            await loop.run_in_executor(None, lab.up)
        is_over = True
        await asyncio.gather(*tasks)
        wanted = set(accepted)
        for sink in sinks:
            await sink.until(lambda sink: wanted <= set(sink.ids))
        for sink in sinks[:2]:
            repeated = sum(sink.counted.values()) - len(sink.counted)
            # What was under way or settled a moment before each kill; and one slot each at most.
            assert repeated <= KILLS * 300, f"{repeated} of {len(sink.counted)}"
        await until(lambda: lab.metric("backlog_events") == 0)
        assert lab.metric("events_dead_lettered_total") == 0
        lab.end()
    client.close()
