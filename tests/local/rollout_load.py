"""Requests to one InferenceService at a steady rate, from asyncio clients that never retry, and who answered what."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.parse
from dataclasses import dataclass
from types import TracebackType

from local.machine_lab import MachineLab

CLIENTS = 8


@dataclass(frozen=True)
class Answer:
    """`at` is when it came, monotonic seconds; `status` 0: the connection failed; `version` of the model."""

    at: float
    status: int
    version: str = ""


class Steady:
    """`with Steady(machine, name, rate) as load: …` sends `rate` requests a second for as long as the block runs."""

    def __init__(self, machine: MachineLab, name: str, rate: float) -> None:
        self.answers: list[Answer] = []
        self._address = urllib.parse.urlsplit(machine.ingress).netloc
        self._path = f"/serving/default/{name}/v1/models/{name}:predict"
        self._pause_s = CLIENTS / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def of(self, version: str) -> list[Answer]:
        return [answer for answer in tuple(self.answers) if answer.version == version]

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in tuple(self.answers) if answer.status != 200]

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        host, _, port = self._address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = (
            f"POST {self._path} HTTP/1.1\r\nhost: {self._address}\r\ncontent-type: application/json\r\n"
            "content-length: 2\r\n\r\n{}"
        ).encode()
        due = time.monotonic() + self._pause_s * number / CLIENTS
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += self._pause_s
            try:
                writer.write(request)
                self.answers.append(await asyncio.wait_for(_answer(reader), 30))
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                self.answers.append(Answer(time.monotonic(), 0))
                writer.close()
                reader, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    length = next(
        int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:")
    )
    body = await reader.readexactly(length)
    version = json.loads(body).get("version", "") if body.startswith(b"{") else ""
    return Answer(time.monotonic(), status, version)
