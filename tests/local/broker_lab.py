"""A broker to start, ask and kill, and sinks that record what they get."""

from __future__ import annotations

import asyncio
import collections
import json
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from local.broker_process import READY

from glowplug.broker.http_client import HttpClient
from glowplug.broker.verdict import Answer

PROGRAM = pathlib.Path(__file__).with_name("broker_process.py")
NAMESPACE = "default"
_UP_S = 60.0


def broker(name: str = "default", **delivery: Any) -> dict[str, Any]:
    spec = {"delivery": delivery} if delivery else {}
    return {"kind": "Broker", "metadata": {"namespace": NAMESPACE, "name": name}, "spec": spec}


def trigger(
    name: str, uri: str, *, of: str = "default", ordered: bool = False, **spec: Any
) -> dict[str, Any]:
    annotations = {"kafka.eventing.knative.dev/delivery.order": "ordered"} if ordered else {}
    return {
        "kind": "Trigger",
        "metadata": {"namespace": NAMESPACE, "name": name, "annotations": annotations},
        "spec": {"broker": of, "subscriber": {"uri": uri}, **spec},
    }


class BrokerLab:
    """A broker's process over one directory, as often as it is started."""

    def __init__(self, folder: pathlib.Path, *objects: dict[str, Any], **config: Any) -> None:
        self.folder = folder
        self.objects = list(objects)
        self.config = {"directory": str(folder / "log"), "port": 0, "reserve_bytes": 0, **config}
        self.file_limit = 0
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{NAMESPACE}/default"

    def up(self) -> None:
        """Start it on the port that it had before, and wait until it listens."""
        asked = {"config": self.config, "objects": self.objects, "file_limit": self.file_limit}
        path = self.folder / "broker.json"
        path.write_text(json.dumps(asked))
        with open(self.folder / "broker.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        line = self._line()
        assert line.startswith(READY), f"{line}\n{self.said()}"
        self.port = self.config["port"] = int(line.split()[1])

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_UP_S)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def ask(self, question: str) -> str | None:
        """What the broker's process says to one line."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer: str | None = json.loads(self._line())
        return answer

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all lines of the metric that have the labels."""
        found = 0.0
        for line in (self.ask("metrics") or "").splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == f"glowplug_broker_{name}" and all(
                f'{label}="{wanted}"' in head for label, wanted in labels.items()
            ):
                found += float(value)
        return found

    def memory_mib(self) -> float:
        """What is resident, without pages of files."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024

    def said(self) -> str:
        return (self.folder / "broker.log").read_text()[-4000:]

    def _line(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _UP_S)
        assert ready, f"the broker says nothing\n{self.said()}"
        return self._process.stdout.readline()


@dataclass
class Sink:
    """A server that records events and answers as `behaviour` says: a status, or bytes of a whole answer, or None."""

    behaviour: Callable[[dict[str, str], bytes], Any] = lambda headers, body: 202
    delay_s: float = 0.0
    port: int = 0
    got: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    active: int = 0
    most_active: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def ids(self) -> list[str]:
        return [each.get("ce-id", "") for each in self.got]

    @property
    def counted(self) -> collections.Counter[str]:
        return collections.Counter(self.ids)

    async def until(self, holds: Callable[[Sink], bool], timeout_s: float = 60.0) -> None:
        """Until what was recorded is so."""
        ends_at = time.monotonic() + timeout_s
        while not holds(self):
            self.arrived.clear()
            left_s = ends_at - time.monotonic()
            assert left_s > 0, f"{len(self.got)} events came within {timeout_s} s, not what was awaited"
            try:
                await asyncio.wait_for(self.arrived.wait(), left_s)
            except asyncio.TimeoutError:
                continue

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self._answer(headers, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        self.active += 1
        self.most_active = max(self.active, self.most_active)
        self.got.append(headers)
        self.bodies.append(body)
        self.at.append(time.monotonic())
        self.arrived.set()
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            answer = self.behaviour(headers, body)
            if answer is None:
                await asyncio.sleep(3600)
            if isinstance(answer, int):
                answer = f"HTTP/1.1 {answer} \r\ncontent-length: 0\r\n\r\n".encode()
            writer.write(answer)
            await writer.drain()
        finally:
            self.active -= 1


@asynccontextmanager
async def serving(*sinks: Sink) -> AsyncIterator[None]:
    """The sinks' servers, each on a free port or on the one that it had."""
    tasks: set[asyncio.Task[None]] = set()
    servers = []

    def handler(sink: Sink) -> Any:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(sink.serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return connected

    for sink in sinks:
        server = await asyncio.start_server(handler(sink), "127.0.0.1", sink.port, backlog=512, limit=2**21)
        sink.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def headers(id: str, type: str = "test.happened", **more: str) -> dict[str, str]:
    """Of an event in binary form."""
    attributes = {"specversion": "1.0", "id": id, "type": type, "source": "/tests", **more}
    return {f"ce-{name}": value for name, value in attributes.items()} | {"content-type": "application/json"}


async def send(client: HttpClient, url: str, id: str, body: bytes = b"{}", **more: str) -> Answer:
    """One event, without retries."""
    return await client.post(url, headers(id, **more), body, 30.0)


async def until(holds: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """The first true value of `holds`; asks again and again, since a process does not tell when it changes."""
    ends_at = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < ends_at, f"not so within {timeout_s} s"
        await asyncio.sleep(0.02)
    return found
