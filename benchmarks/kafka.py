"""The machine's broker on SQLite against the same broker on Kafka, on one machine; and what kills lose.

Accepted and delivered end to end: a sender is answered 202 when the event is on the disk (SQLite, with a flush) or
with Kafka (acks=all, which is the page cache), and the round ends when the sink has everything. By turns, so that a
noisy minute hits both. Kafka is a real one (KRaft, one server) that tests/local/kafka_lab.py starts.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.broker_sink import Sink
from benchmarks.results import Result, summarise
from benchmarks.rounds import Options
from glowplug.broker.http_client import HttpClient

COMMAND = "python -m benchmarks kafka"
_ROOT = pathlib.Path(__file__).resolve().parents[1]
_EVENTS = 10_000
_SENDERS = 64
_KILLS = 10
_WAIT_S = 180.0
_BODY = b'{"flight": "B6383", "delay": 12, "note": "' + b"x" * 200 + b'"}'
_HEADERS = {
    "ce-specversion": "1.0", "ce-type": "dev.glowplug.data.arrived", "ce-source": "/benchmark",
    "content-type": "application/json",
}  # fmt: skip


class _Process:
    """The broker's process; started again it has its port, its log and its topic."""

    def __init__(self, folder: pathlib.Path, servers: str, sink: str) -> None:
        self._arguments = [str(folder), servers, sink]
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def url(self, broker: str) -> str:
        return f"http://127.0.0.1:{self.port}/default/{broker}"

    def up(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kafka_process", *self._arguments, str(self.port)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def end(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None


def run(options: Options | None = None) -> list[Result]:
    """All of it; some two minutes. Nothing where there is no Java."""
    options = options or Options()
    sys.path.insert(0, str(_ROOT / "tests"))
    from local.kafka_lab import KafkaLab, missing

    if said := missing():
        print(f"kafka is left out: {said}", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory(prefix="glowplug-kafka-") as folder:
        lab = KafkaLab(pathlib.Path(folder) / "kafka")
        lab.up()
        try:
            return asyncio.run(_run(lab, pathlib.Path(folder), options))
        finally:
            lab.end()


async def _run(lab: Any, folder: pathlib.Path, options: Options) -> list[Result]:
    sink = Sink()
    await sink.start()
    process = _Process(folder / "log", lab.servers, sink.url)
    process.up()
    try:
        return [
            *await _ratio(process, sink, options),
            *await _kills(lab, process, sink, 3 if options.quick else _KILLS),
        ]
    finally:
        process.end()
        sink.close()


async def _ratio(process: _Process, sink: Sink, options: Options) -> list[Result]:
    count = _EVENTS // 5 if options.quick else _EVENTS
    rates: dict[str, list[float]] = {"default": [], "kafka": []}
    for broker in rates:
        await _round(process.url(broker), sink, 500)
    for turn in range(options.rounds):
        for broker in sorted(rates, reverse=bool(turn % 2)):
            rates[broker].append(await _round(process.url(broker), sink, count))
    ratios = [own / kafka for own, kafka in zip(rates["default"], rates["kafka"], strict=True)]
    note = (
        f"{count} events of {len(_BODY)} bytes from {_SENDERS} connections, accepted and delivered, by turns"
    )
    return [
        summarise(
            "broker.ratio_to_kafka", ratios, "x", command=COMMAND, note=f"{note}; SQLite with a flush / Kafka"
        ),
        summarise("kafka.delivered.events_per_s", rates["kafka"], "1/s", command=COMMAND, note=note),
    ]


async def _round(url: str, sink: Sink, count: int) -> float:
    """Events a second, from the first that is sent to the last that the sink has."""
    client = HttpClient(2**20)
    sink.seen.clear()
    left = iter(range(count))
    started = time.monotonic()

    async def sender() -> None:
        for number in left:
            assert await _send(client, url, f"r{number}"), "an event was refused"

    await asyncio.gather(*(sender() for _ in range(_SENDERS)))
    await _until(lambda: len(sink.seen) >= count)
    client.close()
    return count / (time.monotonic() - started)


async def _kills(lab: Any, process: _Process, sink: Sink, kills: int) -> list[Result]:
    """Senders do not retry: what counts is what they were told."""
    sink.seen.clear()
    client = HttpClient(2**20)
    chance = random.Random(5)
    accepted: set[bytes] = set()
    is_over = False

    async def sender(name: int) -> None:
        number = 0
        while not is_over:
            number += 1
            if await _send(client, process.url("kafka"), f"{name}-{number}"):
                accepted.add(f"{name}-{number}".encode())
            else:
                await asyncio.sleep(0.05)

    tasks = [asyncio.ensure_future(sender(name)) for name in range(8)]
    loop = asyncio.get_running_loop()
    for turn in range(kills):
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        victim = process if turn % 2 else lab
        await loop.run_in_executor(None, victim.end)
        await loop.run_in_executor(None, victim.up)
    await asyncio.sleep(1.0)
    is_over = True
    await asyncio.gather(*tasks)
    with contextlib.suppress(AssertionError):
        await _until(lambda: accepted <= {id for id, *_ in sink.seen})
    client.close()
    counted = collections.Counter(id for id, *_ in sink.seen)
    note = f"{kills} kills of Kafka and the machine's broker in turn, {len(accepted)} events with a 202"
    return [
        summarise("kafka.lost", [len(accepted - counted.keys())], "events", command=COMMAND, goal="0", note=note),
        summarise("kafka.duplicates", [sum(counted.values()) - len(counted)], "events", command=COMMAND, note=note),
    ]  # fmt: skip


async def _send(client: HttpClient, url: str, id: str) -> bool:
    return (await client.post(url, {**_HEADERS, "ce-id": id}, _BODY, 60)).status == 202


async def _until(holds: Any) -> None:
    ends_at = time.monotonic() + _WAIT_S
    while not holds():
        assert time.monotonic() < ends_at, f"not so within {_WAIT_S:g} s"
        await asyncio.sleep(0.01)
