"""The local broker: events accepted with a flush to the disk, the way to a sink, a long backlog, and kills.

The broker is a process of its own; wrk sends, and the sinks are in this process. What was answered with 202 is checked
against what the broker numbered or the sinks saw, so that nothing is counted that was not written.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import json
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.broker_sink import Sink
from benchmarks.environments import tool
from benchmarks.results import Result, percentile, summarise
from glowplug.broker.http_client import HttpClient

COMMAND = "python -m benchmarks broker"
_ROUNDS = 5
_SECONDS = 4
_SENDERS = 64
_PER_S = 500
_PACED_S = 20
_BACKLOG = 1_000_000
_BATCH = 1000
_KILLS = 100
_BODY = json.dumps({"flight": "B6383", "delay": 12, "note": "x" * 200}).encode()
_HEADERS = {
    "ce-specversion": "1.0", "ce-type": "dev.glowplug.data.arrived", "ce-source": "/benchmark",
    "content-type": "application/json",
}  # fmt: skip


class _Process:
    """A broker's process; started again it has the same port and the same log."""

    def __init__(self, folder: pathlib.Path, *sinks: Sink) -> None:
        self._folder = folder
        self._sinks = sinks
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/default/default"

    def up(self) -> None:
        command = [sys.executable, "-m", "benchmarks.broker_process", str(self._folder), str(self.port)]
        self._process = subprocess.Popen(
            [*command, *(sink.url for sink in self._sinks)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def end(self, number: int = signal.SIGKILL) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._process.send_signal(number)
        self._process.wait()
        self._process.stdout.close()

    def memory_mib(self) -> float:
        """What it has to itself, without pages of files."""
        assert self._process is not None
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def run() -> list[Result]:
    """All of it; some three minutes."""
    return asyncio.run(_run())


async def _run() -> list[Result]:
    return [
        await _accepted(),
        await _end_to_end(),
        *await _paced(),
        *await _long_backlog(),
        *await _kills(),
    ]


@asynccontextmanager
async def _broker(*sinks: Sink) -> AsyncIterator[_Process]:
    with tempfile.TemporaryDirectory(prefix="glowplug-broker-") as folder:
        for sink in sinks:
            await sink.start()
        process = _Process(pathlib.Path(folder), *sinks)
        process.up()
        try:
            yield process
        finally:
            process.end()
            for sink in sinks:
                sink.close()


async def _accepted() -> Result:
    async with _broker() as broker:
        rates = [(await _wrk(broker.url))[1] for _ in range(_ROUNDS)]
    goal = "against Kafka on the same machine"
    note = f"{_SENDERS} connections, an event of {len(_BODY)} bytes a request, each flushed before its 202"
    return summarise("broker.accepted.events_per_s", rates, "1/s", command=COMMAND, goal=goal, note=note)


async def _end_to_end() -> Result:
    rates = []
    sink = Sink()
    async with _broker(sink) as broker:
        for _ in range(_ROUNDS):
            sink.seen.clear()
            started = time.monotonic()
            done, _ = await _wrk(broker.url)
            await _until(lambda least=done: len(sink.seen) >= least, 120)
            rates.append(done / (time.monotonic() - started))
    note = f"accepted from {_SENDERS} connections and delivered to one sink, 32 at a time"
    return summarise("broker.delivered.events_per_s", rates, "1/s", command=COMMAND, note=note)


async def _wrk(url: str) -> tuple[int, float]:
    """Requests that were answered with 2xx, and how many a second. Raises where any was not."""
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / "event.lua"
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in _HEADERS.items())
        script.write_text(
            f'wrk.method = "POST"\nwrk.headers["ce-id"] = "1"\n{headers}wrk.body = [[{_BODY.decode()}]]\n'
        )
        process = await asyncio.create_subprocess_exec(
            tool("wrk"), "-t1", f"-c{_SENDERS}", f"-d{_SECONDS}s", "--timeout", "20s", "-s", str(script), url,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
    if "Non-2xx" in output or "Socket errors" in output:
        raise AssertionError(output)
    done = int(output.partition(" requests in")[0].split()[-1])
    return done, float(output.partition("Requests/sec:")[2].split()[0])


async def _paced() -> list[Result]:
    """From the event's arrival at the broker, before it is flushed, to its arrival at the sink."""
    sink = Sink()
    client = HttpClient(2**20)
    count = _PER_S * _PACED_S
    async with _broker(sink) as broker:
        started = time.monotonic()
        tasks = []
        for number in range(count):
            await asyncio.sleep(max(0.0, started + number / _PER_S - time.monotonic()))
            tasks.append(asyncio.ensure_future(_send(client, broker.url, f"p{number}")))
        answers = await asyncio.gather(*tasks)
        await _until(lambda: len(sink.seen) >= sum(answers), 60)
    client.close()
    waits_ms = [(at - _seconds(arrival)) * 1000 for _, arrival, at in sink.seen]
    each = [waits_ms[at : at + _PER_S] for at in range(0, len(waits_ms), _PER_S)]
    note = f"{_PER_S} events a second for {_PACED_S} s, one spread a second"
    return [
        summarise(
            f"broker.delivery.p{percent}_ms", [percentile(part, percent) for part in each], "ms",
            command=COMMAND, goal="< 20" if percent == 99 else "", note=note,
        )
        for percent in (50, 99)
    ]  # fmt: skip


async def _long_backlog() -> list[Result]:
    sink = Sink(hangs=True)
    client = HttpClient(2**20)
    headers = {"content-type": "application/cloudevents-batch+json"}
    async with _broker(sink) as broker:
        await _send(client, broker.url, "first")
        await _until(lambda: bool(sink.seen), 30)
        samples = [broker.memory_mib()]
        for batch in range(_BACKLOG // _BATCH):
            body = json.dumps([_document(batch * _BATCH + index) for index in range(_BATCH)]).encode()
            answer = await client.post(broker.url, headers, body, 60)
            assert answer.status == 202, answer
            if batch % 10 == 9:
                samples.append(broker.memory_mib())
    client.close()
    tenth = len(samples) // 10
    growth = max(samples[-tenth:]) - max(samples[tenth : 2 * tenth])
    note = f"a sink that hangs; batches of {_BATCH}; memory without pages of files"
    return [
        summarise("broker.memory_1m_backlog.mib", samples[-tenth:], "MiB", command=COMMAND, goal="flat", note=note),
        summarise("broker.memory_1m_backlog.growth_mib", [growth], "MiB", command=COMMAND, goal="0",
                  note="the most at the end, less the most at a tenth of the way"),
    ]  # fmt: skip


async def _kills() -> list[Result]:
    sinks = Sink(), Sink()
    client = HttpClient(2**20)
    chance = random.Random(11)
    accepted: set[bytes] = set()
    is_over = False
    async with _broker(*sinks) as broker:

        async def sender(name: int) -> None:
            number = 0
            while not is_over:
                number += 1
                if await _send(client, broker.url, f"{name}-{number}"):
                    accepted.add(f"{name}-{number}".encode())
                else:
                    await asyncio.sleep(0.01)

        tasks = [asyncio.ensure_future(sender(name)) for name in range(16)]
        loop = asyncio.get_running_loop()
        for _ in range(_KILLS):
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            await loop.run_in_executor(None, broker.end)
            await loop.run_in_executor(None, broker.up)
        is_over = True
        await asyncio.gather(*tasks)
        with contextlib.suppress(AssertionError):
            await _until(lambda: all(accepted <= {id for id, *_ in sink.seen} for sink in sinks), 60)
        counted = [collections.Counter(id for id, *_ in sink.seen) for sink in sinks]
    client.close()
    lost = sum(len(accepted - each.keys()) for each in counted)
    twice = sum(sum(each.values()) - len(each) for each in counted)
    note = f"{_KILLS} kills under load, {len(accepted)} events with a 202, two triggers"
    return [
        summarise("broker.lost", [lost], "events", command=COMMAND, goal="0", note=note),
        summarise("broker.duplicates", [twice], "events", command=COMMAND, note=note),
    ]


async def _send(client: HttpClient, url: str, id: str) -> bool:
    return (await client.post(url, {**_HEADERS, "ce-id": id}, _BODY, 30)).status == 202


def _document(number: int) -> dict[str, object]:
    return {
        "specversion": "1.0", "id": str(number), "type": "dev.glowplug.data.arrived", "source": "/benchmark",
        "data": {"flight": number, "note": "x" * 100},
    }  # fmt: skip


def _seconds(arrival: bytes) -> float:
    text = re.sub("Z$", "+00:00", arrival.decode())
    return datetime.datetime.fromisoformat(text).timestamp()


async def _until(holds: object, timeout_s: float) -> None:
    assert callable(holds)
    ends_at = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > ends_at:
            raise AssertionError(f"not so within {timeout_s} s")
        await asyncio.sleep(0.02)
