"""Open-loop load for faults: requests at a steady rate, each on a connection of its own, none tried again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Sent:
    """`due` on the monotonic clock; `error` is empty for a 200 with the right content."""

    due: float
    took_s: float
    error: str = ""


@dataclass(frozen=True)
class Count:
    """Requests that were due within a span: how many, how many of them lost and by what, and the slowest answer."""

    due: int
    lost: int
    errors: str
    slowest_s: float
    span_s: float


class OpenLoop:
    """`with OpenLoop(…) as load: …; load.count(begin, end)`: POSTs of one body until the block is left."""

    def __init__(
        self, gateway: str, host: str, path: str, body: bytes, rate: float, expected: bytes = b""
    ) -> None:
        self._where, self._rate, self._expected = gateway.rpartition(":"), rate, expected
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._sent: list[Sent] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> OpenLoop:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def count(self, begin: float, end: float) -> Count:
        """Of what was due within the span; waits for the answers to it."""
        wanted = int((end - begin) * self._rate) - 1
        deadline = time.monotonic() + _TIMEOUT_S + 5
        while len(found := self._within(begin, end)) < wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        errors = Counter(each.error for each in found if each.error)
        shown = ", ".join(f"{count} × {error}" for error, count in errors.most_common(4))
        slowest = max((each.took_s for each in found), default=0.0)
        return Count(len(found), sum(errors.values()), shown, slowest, end - begin)

    def _within(self, begin: float, end: float) -> list[Sent]:
        return [each for each in tuple(self._sent) if begin <= each.due < end]

    async def _run(self) -> None:
        running: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._one(due))
            running.add(task)
            task.add_done_callback(running.discard)
            due += 1 / self._rate
        await asyncio.gather(*running)

    async def _one(self, due: float) -> None:
        try:
            error = await asyncio.wait_for(self._ask(), _TIMEOUT_S)
        except asyncio.TimeoutError:
            error = f"no answer within {_TIMEOUT_S:.0f} s"
        except (OSError, EOFError) as found:
            error = type(found).__name__
        self._sent.append(Sent(due, time.monotonic() - due, error))

    async def _ask(self) -> str:
        reader, writer = await asyncio.open_connection(self._where[0], int(self._where[2]))
        try:
            writer.write(self._request)
            head, _, content = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if not head:
            return "connection closed"
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            return f"{status} {content[:80].decode(errors='replace').strip()}"
        return "" if self._expected in content else f"wrong answer {content[:80]!r}"


class Connection:
    """A kept-alive HTTP/1.1 connection that sends one request at a time: the cheapest client there is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self._reader, self._writer, self._request = reader, writer, request

    @classmethod
    async def open(cls, address: str, host: str, path: str, body: bytes) -> Connection:
        """`address` is host:port, `host` what the Host header says."""
        name, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(name, int(port))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return cls(reader, writer, head.encode() + body)

    async def call(self) -> float:
        """Milliseconds from the request's first byte to the answer's last. Raises AssertionError for no 200."""
        started = time.perf_counter()
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
        length = next((int(value) for name, _, value in lines if name == b"content-length"), -1)
        if not head.startswith(b"HTTP/1.1 200") or length < 0:
            raise AssertionError(head.decode())
        await self._reader.readexactly(length)
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        self._writer.close()
