"""Requests for the lab's model on one connection, at an even pace: what a caller waits, not what a computer can do."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from benchmarks.lab import body

# Half a second at 200 a second: short, so that a noisy moment hits both, and long beside what is done late for a turn's
# requests (an event waits 50 ms for its batch), which else would count as the next one's.
BLOCK = 100


class Connection:
    """A kept-alive HTTP/1.1 connection with one request at a time, at an even pace."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, per_s: float
    ) -> None:
        self._reader, self._writer, self._request, self._per_s = reader, writer, request, per_s

    @classmethod
    async def open(cls, url: str, model: str, per_s: float) -> Connection:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        content = body()
        head = (
            f"POST {parts.path}/v2/models/{model}/infer HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return cls(reader, writer, head.encode() + content, per_s)

    async def block(self, requests: int) -> list[float]:
        """Milliseconds from the first byte of each of so many requests to the last of its answer."""
        began = time.perf_counter()
        times = []
        for number in range(requests):
            due = began + number / self._per_s
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            sent = time.perf_counter()
            await self._call()
            times.append((time.perf_counter() - sent) * 1000)
        return times

    async def _call(self) -> None:
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(head.decode())
        length = next(
            int(value)
            for key, _, value in (line.partition(b":") for line in head.lower().split(b"\r\n"))
            if key == b"content-length"
        )
        await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


async def by_turns(
    urls: dict[str, str], rounds: int, requests: int, per_s: float
) -> list[dict[str, list[float]]]:
    """Of each round and each model, the milliseconds of so many requests: the models asked by turns of `BLOCK`.

    To be compared two by two: what one of them does late is the next one's in turn.
    """
    connections = {model: await Connection.open(url, model, per_s) for model, url in urls.items()}
    found = []
    for number in range(rounds + 1):
        times: dict[str, list[float]] = {model: [] for model in connections}
        for _ in range(requests // BLOCK):
            for model, connection in connections.items():
                times[model] += await connection.block(BLOCK)
        if number:  # the first round warms all
            found.append(times)
    for connection in connections.values():
        connection.close()
    return found
