"""Many requests in flight from one process: HTTP/1.1 with a connection each, gRPC with many streams a connection.

Nothing is retried. Every request carries its own number, which must come back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

GRPC_METHOD = "/gate.Gate/Echo"
# Below the 1,024 streams that the ingress takes on a connection.
_STREAMS = 500
_CONNECTING = 100
_DEADLINE_S = 250.0


class Outcome:
    """What came of the requests: `right` answers, `wrong` by what was wrong, first and last answer (loop time)."""

    def __init__(self) -> None:
        self.right = 0
        self.wrong: Counter[str] = Counter()
        self.first = self.last = 0.0

    def count(self, problem: str = "") -> None:
        """One answer, or what came instead of it."""
        self.last = asyncio.get_running_loop().time()
        self.first = self.first or self.last
        if problem:
            self.wrong[problem[:200]] += 1
        else:
            self.right += 1


class _Connection(asyncio.Protocol):
    """One client: its requests go out one behind the other, its answers must come in that order."""

    def __init__(self, path: str, number: int, outcome: Outcome) -> None:
        self._path = path
        self._number = number
        self._outcome = outcome
        self._sent = self._answered = 0
        self._rest = b""
        self._transport: Any = None

    @property
    def waiting(self) -> int:
        return self._sent - self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self) -> None:
        """One more request, whether or not those before it were answered."""
        body = b"%d:%d" % (self._number, self._sent)
        self._sent += 1
        head = f"POST {self._path} HTTP/1.1\r\nhost: held\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (answer := parse(self._rest)) is not None:
            status, body, self._rest = answer
            expected = b"%d:%d" % (self._number, self._answered)
            self._answered += 1
            is_right = status == 200 and body == expected
            self._outcome.count("" if is_right else f"{status} {body[:100]!r}")

    def connection_lost(self, error: Exception | None) -> None:
        for _ in range(self.waiting):
            self._outcome.count(f"connection lost: {error!r}")
        self._answered = self._sent

    def close(self) -> None:
        """Whatever is not answered is lost."""
        if self._transport is not None:
            self._transport.close()


def parse(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, body and what follows of the first answer in `data`; None if it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
    if len(data) < end + 4 + length:
        return None
    return int(head.split(b" ", 2)[1]), data[end + 4 : end + 4 + length], data[end + 4 + length :]


class RestClients:
    """HTTP/1.1: a connection a client."""

    def __init__(self, port: int, path: str) -> None:
        self.outcome = Outcome()
        self._port = port
        self._path = path
        self._connections: list[_Connection] = []

    async def add(self, count: int) -> None:
        """`count` more clients, each of which sends one request."""
        gate = asyncio.Semaphore(_CONNECTING)
        await asyncio.gather(*(self._connect(gate) for _ in range(count)))

    async def _connect(self, gate: asyncio.Semaphore) -> None:
        number = len(self._connections)
        connection = _Connection(self._path, number, self.outcome)
        self._connections.append(connection)
        async with gate:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, "127.0.0.1", self._port)
        connection.send()

    def send_more(self) -> int:
        """One more request of each client, behind the one that waits; how many that are."""
        for connection in self._connections:
            connection.send()
        return len(self._connections)

    async def close(self) -> None:
        for connection in self._connections:
            connection.close()


class GrpcClients:
    """gRPC: one channel a connection, 500 calls each."""

    def __init__(self, port: int, authority: str) -> None:
        self.outcome = Outcome()
        self._port = port
        self._options = [("grpc.default_authority", authority), ("grpc.use_local_subchannel_pool", 1)]
        self._channels: list[grpc.aio.Channel] = []
        self._calls: list[asyncio.Task[None]] = []

    async def add(self, count: int) -> None:
        """`count` more calls."""
        for _ in range(count):
            if len(self._calls) % _STREAMS == 0:
                target = f"127.0.0.1:{self._port}"
                self._channels.append(grpc.aio.insecure_channel(target, options=self._options))
            method = self._channels[-1].unary_unary(GRPC_METHOD)
            number = len(self._calls)
            self._calls.append(asyncio.create_task(self._call(method, number), name=f"call {number}"))
            if number % _CONNECTING == 0:
                await asyncio.sleep(0)

    async def _call(self, method: Any, number: int) -> None:
        sent = b"%d" % number
        try:
            answer = await method(sent, timeout=_DEADLINE_S)
            self.outcome.count("" if answer == sent else f"{answer[:100]!r}")
        except grpc.aio.AioRpcError as error:
            self.outcome.count(f"{error.code()}: {error.details()}")

    def send_more(self) -> int:
        """Calls of one connection are not ordered: none."""
        return 0

    async def close(self) -> None:
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        for channel in self._channels:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await channel.close()


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 120.0) -> None:
    """Wait for `condition`; TimeoutError says what did not come."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not condition():
        if loop.time() > end:
            raise TimeoutError(f"waited {deadline_s:.0f} s for {what}")
        await asyncio.sleep(0.05)
