"""Requests to one InferenceService at a steady rate, by clients that never try again, and who answered what."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from types import TracebackType

_CLIENTS = 16
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """`at` is when it came, in seconds of `time.monotonic`; `status` is 0 where the connection failed."""

    at: float
    status: int
    version: str = ""


@dataclass(frozen=True)
class Address:
    """`connect` is host:port, `host` what the Host header says, `path` where a POST of `{}` is answered."""

    connect: str
    host: str
    path: str


class Steady:
    """`with Steady(address, rate) as load: …` sends `rate` requests a second for as long as the block runs.

    Who waits for an answer sends no other one; a rate that is not reached is lower, without a burst afterwards.
    """

    def __init__(self, address: Address, rate: float) -> None:
        self.answers: list[Answer] = []
        self._address, self._pause_s = address, _CLIENTS / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, version: str) -> list[Answer]:
        """What a version has answered up to now."""
        return [answer for answer in tuple(self.answers) if answer.version == version]

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(_CLIENTS)))

    async def _client(self, number: int) -> None:
        host, _, port = self._address.connect.partition(":")
        request = (
            f"POST {self._address.path} HTTP/1.1\r\nhost: {self._address.host}\r\n"
            "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        ).encode()
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        due = time.monotonic() + self._pause_s * number / _CLIENTS
        while not self._stop.is_set():
            now = time.monotonic()
            await asyncio.sleep(max(0.0, due - now))
            due = max(due, now) + self._pause_s
            try:
                if streams is None:
                    streams = await asyncio.open_connection(host, int(port))
                streams[1].write(request)
                answer = await asyncio.wait_for(_answer(streams[0]), _TIMEOUT_S)
            except (OSError, EOFError, ValueError, asyncio.TimeoutError):
                answer = Answer(time.monotonic(), 0)
                if streams is not None:
                    streams[1].close()
                streams = None
            self.answers.append(answer)
        if streams is not None:
            streams[1].close()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    length = next(
        int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:")
    )
    body = await reader.readexactly(length)
    version = json.loads(body).get("version", "") if body.startswith(b"{") else ""
    return Answer(time.monotonic(), status, version)
