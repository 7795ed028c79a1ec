"""What the ingress adds: the same request straight to the pod and through Envoy, interleaved."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urlsplit

import httpx2

from benchmarks.lab import body, lab
from benchmarks.results import Result, percentile, summarise

COMMAND = "make bench-ingress"
_ROUNDS = 30
_REQUESTS = 400
# Requests in a row on one connection before the other's turn: each block is a closed loop of its own.
_BLOCK = 20


def run() -> list[Result]:
    """The added p50 of each round, one connection."""
    with lab() as found, httpx2.Client(trust_env=False, timeout=30) as client:
        found.create("ingress")
        found.wait_until_served(client, "ingress")
        label = "serving.kserve.io/inferenceservice=ingress"
        pod = found.cluster.get("/api/v1/namespaces/default/pods", labelSelector=label)["items"][0]
        ports = json.loads(pod["metadata"]["annotations"]["glowplug.dev/endpoint-ports"])
        direct = f"http://127.0.0.1:{ports['http']}"
        added, direct_p50 = asyncio.run(_added(direct, found.url("ingress")))
    return [
        summarise(
            "machine.ingress_added.p50_ms", added, "ms", command=COMMAND, goal="< 0.3",
            note=f"difference of medians, {_ROUNDS} rounds of {_REQUESTS} requests each way, in turns of {_BLOCK};"
            f" straight to the pod the median is {direct_p50:.2f} ms",
        )
    ]  # fmt: skip


async def _added(direct: str, through: str) -> tuple[list[float], float]:
    straight, routed = await _Connection.open(direct), await _Connection.open(through)
    added, medians = [], []
    for i in range(_ROUNDS + 1):
        times: dict[_Connection, list[float]] = {straight: [], routed: []}
        for _ in range(_REQUESTS // _BLOCK):
            for connection in (straight, routed):
                times[connection] += [await connection.call() for _ in range(_BLOCK)]
        if i:  # the first round warms both
            medians.append(percentile(times[straight], 50))
            added.append(percentile(times[routed], 50) - medians[-1])
    straight.close()
    routed.close()
    return added, percentile(medians, 50)


class _Connection:
    """A kept-alive HTTP/1.1 connection that sends one request at a time: the cheapest client there is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self._reader, self._writer, self._request = reader, writer, request

    @classmethod
    async def open(cls, url: str) -> _Connection:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        content = body()
        head = (
            f"POST {parts.path}/v2/models/ingress/infer HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return cls(reader, writer, head.encode() + content)

    async def call(self) -> float:
        """Milliseconds from the request's first byte to the answer's last."""
        started = time.perf_counter()
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(head.decode())
        length = next(
            int(v)
            for k, _, v in (line.partition(b":") for line in head.lower().split(b"\r\n"))
            if k == b"content-length"
        )
        await self._reader.readexactly(length)
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        self._writer.close()
