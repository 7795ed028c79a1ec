"""Broken bytes to a live server: never a 5xx, a crash, a hang, or a failed callback; and it still serves afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import re
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from fuzz.mutations import CHUNKED, Seed, endless, mutated, seeds, timeout_s

from glowplug.serving import InferRequest, InferResponse, Model, Tensor, TensorSpec
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.http import HttpEndpoints
from glowplug.serving.http_protocol import HttpService
from glowplug.serving.light import LightModel
from glowplug.serving.listener import HttpListener, bind
from glowplug.serving.metrics import Metrics
from glowplug.wire.cloudevents import ResponsePolicy

pytestmark = pytest.mark.timeout(timeout_s())

COUNT = 300
DEADLINE_S = 20
LIMIT = 200_000
MAX_GROWTH_KB = 100_000
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


class Plain(Model):
    """Answers with what it gets."""

    def predict(self, request: InferRequest) -> InferResponse:
        return InferResponse(self.name, request.inputs)


class Gappy(Plain):
    accepts_missing = True


class Batching(Plain):
    """Sums rows; strict about its input."""

    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    checks_inputs = True
    max_batch_size = 8

    def predict(self, request: InferRequest) -> InferResponse:
        with np.errstate(all="ignore"):
            sums = request.inputs[0].data.sum(axis=1)
        return InferResponse(self.name, (Tensor("y", "FP32", sums.shape, sums),))


class Site:
    def __init__(self) -> None:
        metrics = Metrics()
        served = [
            LightModel(model, metrics) for model in (Plain("plain"), Gappy("gappy"), Batching("batching"))
        ]
        self.plane = DataPlane(served, metrics, max_in_flight=64)
        for entry in self.plane.entries.values():
            entry.is_loaded = True
        endpoints = HttpEndpoints(self.plane, max_body_bytes=LIMIT, events=ResponsePolicy())
        self.service = HttpService(endpoints, max_body_bytes=LIMIT, keep_alive_s=60)
        listener = bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.listener = HttpListener(self.service, listener)
        self.failures: list[dict[str, Any]] = []

    async def send(self, data: bytes, chance: random.Random) -> bytes:
        """In pieces, then the end of the sending side; all that comes back."""
        loop = asyncio.get_running_loop()
        size = chance.choice((7, 100, 65536))
        answer = b""
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", self.port))
            # The server may refuse and close before everything is sent.
            with contextlib.suppress(OSError):
                for start in range(0, len(data), size):
                    await loop.sock_sendall(client, data[start : start + size])
                    if chance.random() < 0.1:
                        await asyncio.sleep(0)
                client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while more := await asyncio.wait_for(loop.sock_recv(client, 65536), DEADLINE_S):
                    answer += more
        return answer

    async def ask(self, data: bytes) -> int:
        """The status of one well-framed request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
            return int(STATUS.match(head)[1])  # type: ignore[index]
        finally:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: site.failures.append(context))
    await site.listener.start()
    yield site
    site.listener.close()
    await asyncio.wait_for(site.listener.drained(), DEADLINE_S)
    assert site.plane.metrics.in_flight == 0
    assert not site.failures


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in STATUS.findall(answer)]


async def still_serves(site: Site) -> None:
    for seed in seeds():
        status = await site.ask(seed.raw())
        # `batching` takes only its own input, which every seed for it is.
        assert status == 200, (seed, status)


async def test_the_seeds_are_right(site: Site) -> None:
    await still_serves(site)


async def test_a_broken_body_is_told_apart_from_a_failure(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    all_seeds = [seed for seed in seeds() if seed.method == "POST"]
    for chance in endless(2, COUNT):
        seed = chance.choice(all_seeds)
        body = mutated(seed.body, chance)
        status = await site.ask(seed.raw(body))
        assert status < 500, (seed.path, seed.headers, body)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    await still_serves(site)


async def test_broken_requests_leave_the_server_standing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    all_seeds = [*(seed.raw() for seed in seeds()), CHUNKED]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for chance in endless(3, COUNT):
        data = b"".join(
            mutated(raw, chance) if chance.random() < 0.8 else raw
            for raw in chance.choices(all_seeds, k=chance.choice((1, 1, 2, 5)))
        )
        answer = await site.send(data, chance)
        # 501: `:explain` of a model that has none.
        assert all(status < 500 or status == 501 for status in statuses(answer)), (data, answer)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    gc.collect()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KB
    await still_serves(site)


async def test_many_connections_at_once_get_their_own_answers(site: Site) -> None:
    async def one(chance: random.Random) -> None:
        value = chance.randint(0, 10**6)
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[%d,1]}]}' % value
        raw = Seed("/v2/models/batching/infer", body).raw()
        is_broken = chance.random() < 0.3
        answer = await site.send(mutated(raw, chance) if is_broken else raw * 3, chance)
        assert all(status < 500 for status in statuses(answer)), answer
        if not is_broken and statuses(answer) == [200] * 3:
            assert answer.count(b'"data":[%d.0]' % (value + 1)) == 3

    chances = endless(4, COUNT)
    while batch := [chance for _, chance in zip(range(50), chances, strict=False)]:
        await asyncio.wait_for(asyncio.gather(*map(one, batch)), DEADLINE_S)
