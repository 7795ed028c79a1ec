"""Copies that a server hands over itself: real connections, a real socket, and this test as who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import numpy as np
import pytest

from glowplug.copies.child import listening_socket
from glowplug.copies.copies import Copies, GivenUp
from glowplug.copies.exchange import Exchange
from glowplug.copies.reading import Reading
from glowplug.copies.settings import Settings, Taker
from glowplug.serving import (
    InferenceError,
    InferRequest,
    InferResponse,
    Model,
    Tensor,
    grpc_server,
    request_headers,
)
from glowplug.serving.copying import Copying
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.http import HttpEndpoints
from glowplug.serving.http_client import HttpClient
from glowplug.serving.http_protocol import HttpService
from glowplug.serving.light import LightModel
from glowplug.serving.listener import HttpListener, bind
from glowplug.serving.metrics import Metrics
from glowplug.wire import v2_grpc, v2_json
from glowplug.wire.cloudevents import ResponsePolicy

DEADLINE_S = 20
SECRET = "glowplug-copy-test-5ec4e7"
LIMIT = 2**20
ALL = Settings.of({"service": "s"}).to_header()
BATCHED, ALONE = "/v2/models/batched/infer", "/v2/models/alone/infer?q=1"


class Doubling(Model):
    def __init__(self, name: str, size: int) -> None:
        super().__init__(name)
        self.max_batch_size = size
        self.headers: dict[str, str] = {}

    def predict(self, request: InferRequest) -> InferResponse:
        self.headers = dict(request_headers())
        data = request.input("x").data
        if (data == 13).any():
            raise InferenceError("13 is 100 % refused", code=409)
        return InferResponse(self.name, (Tensor.from_numpy("y", data * 2),))


class Site:
    """A server that copies, and who takes its copies."""

    def __init__(self, folder: Path) -> None:
        self.exchanges: list[Exchange] = []
        self.folder = folder
        self.path = folder / "copies.sock"
        (folder / "lost").mkdir()
        self.taker = Taker(SECRET, str(self.path), LIMIT, (":status", "content-type"), str(folder / "lost"))
        self.models = [Doubling("batched", 32), Doubling("alone", 1)]
        metrics = Metrics()
        self.plane = DataPlane([LightModel(m, metrics) for m in self.models], metrics, max_in_flight=64)
        for entry in self.plane.entries.values():
            entry.is_loaded = True
        self.copying = Copying([self.taker])
        endpoints = HttpEndpoints(self.plane, max_body_bytes=8 * LIMIT, events=ResponsePolicy())
        self.service = HttpService(self.copying.http(endpoints), max_body_bytes=8 * LIMIT, keep_alive_s=30)
        self.copies = Copies(self, max_body_bytes=LIMIT, max_held_bytes=2**28)
        self.given: list[GivenUp] = []
        self.socket = listening_socket(self.path)
        self.begin()

    def begin(self) -> None:
        self.reading = Reading(self.socket.dup(), lambda part: self.copies.take(part, 0.0))

    async def start(self) -> None:
        socket = bind("127.0.0.1", 0)
        self.http = HttpClient("127.0.0.1", socket.getsockname()[1])
        self.listener = HttpListener(self.service, socket)
        await self.listener.start()
        self.grpc, port = grpc_server.bind(
            self.plane, host="127.0.0.1", port=0, max_message_bytes=8 * LIMIT, around=self.copying.grpc
        )
        await self.grpc.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def post(self, path: str, body: bytes, **headers: str) -> Any:
        return await self.http.request("POST", path, headers, body, timeout_s=DEADLINE_S)

    async def call(self, body: bytes, metadata: list[tuple[str, str]]) -> bytes:
        infer = self.channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelInfer")
        answer: bytes = await infer(body, metadata=metadata, timeout=DEADLINE_S)
        return answer

    async def until(self, count: int) -> list[Exchange]:
        with anyio.fail_after(DEADLINE_S):
            while len(self.exchanges) < count:
                self.reading.read()
                await asyncio.sleep(0.005)
        return self.exchanges

    def lost(self) -> int:
        return sum(int(path.read_text()) for path in Path(self.taker.lost).iterdir())

    async def until_lost(self, count: int) -> None:
        found = -1
        with anyio.fail_after(DEADLINE_S):
            while found != count:
                found = self.lost()
                await asyncio.sleep(0.005)

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        return True

    def copied(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        self.given.append(why)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.start()
    yield site
    await site.http.aclose()
    await site.channel.close()
    site.listener.close()
    await asyncio.wait_for(site.listener.drained(), DEADLINE_S)
    await site.grpc.drain(DEADLINE_S)
    await site.plane.close()
    site.copying.close()
    site.reading.close()
    site.socket.close()


def asked(text: str = ALL, **more: str) -> dict[str, str]:
    return {SECRET: text, "content-type": "application/json", **more}


def body(*rows: float, pad: int = 0) -> bytes:
    tensor = Tensor.from_numpy("x", np.array([rows], np.float32))
    data, _ = v2_json.encode_request(
        InferRequest("m", (tensor,), parameters={"pad": "x" * pad}), binary=False
    )
    return data


@pytest.mark.parametrize("path", [BATCHED, ALONE])
async def test_requests_are_copied_with_their_answers_and_no_model_learns_the_secret(
    site: Site, path: str
) -> None:
    for rows in ((1.0,), (13.0,)):
        answer = await site.post(path, body(*rows), **asked(**{"x-user": "ann"}))
        exchange = (await site.until(len(site.exchanges) + 1))[-1]
        assert answer.status == (409 if rows == (13.0,) else 200)
        assert exchange.about == {"service": "s"}
        assert (exchange.request.body, exchange.answer.body) == (body(*rows), answer.body)
        assert exchange.request.headers[":path"] == path and exchange.request.headers[":method"] == "POST"
        assert exchange.request.headers["x-user"] == "ann" and ":authority" in exchange.request.headers
        assert exchange.answer.headers == {
            ":status": str(answer.status), "content-type": answer.headers["content-type"],
        }  # fmt: skip
        seen = [{*exchange.request.headers}, *(model.headers for model in site.models)]
        assert not any(SECRET in headers for headers in seen)
    if path == ALONE:
        assert site.models[1].headers["x-user"] == "ann"


async def test_what_is_not_asked_for_is_not_copied(site: Site) -> None:
    assert (await site.post(BATCHED, body(1.0))).status == 200
    page = await site.http.request("GET", "/v2/models/alone", {SECRET: ALL}, timeout_s=DEADLINE_S)
    assert page.status == 200
    await site.post(BATCHED, body(2.0), **asked())
    (exchange,) = await site.until(1)
    assert exchange.request.body == body(2.0)


async def test_grpc_is_copied_as_on_the_wire(site: Site) -> None:
    for name, value in (("batched", 1.0), ("alone", 1.0), ("alone", 13.0)):
        message = v2_grpc.encode_infer_request(
            InferRequest(name, (Tensor.from_numpy("x", np.array([[value]], np.float32)),))
        )
        reply = b""
        try:
            reply = await site.call(message, [(SECRET, ALL), ("x-user", "ann")])
        except grpc.aio.AioRpcError:
            assert value == 13.0
        exchange = (await site.until(len(site.exchanges) + 1))[-1]
        assert exchange.request.body == b"\0" + len(message).to_bytes(4, "big") + message
        assert exchange.request.headers[":path"].endswith("/ModelInfer") and exchange.request.is_grpc
        assert exchange.request.headers["x-user"] == "ann" and SECRET not in exchange.request.headers
        headers = exchange.answer.headers
        assert headers[":status"] == "200" and exchange.answer.is_grpc
        if value == 13.0:
            assert headers["grpc-status"] != "0" and headers["grpc-message"].endswith("13 is 100 %25 refused")
        else:
            assert headers["grpc-status"] == "0" and exchange.answer.body[5:] == reply
    assert SECRET not in site.models[1].headers and site.models[1].headers["x-user"] == "ann"


async def test_large_bodies_come_in_pieces_and_too_large_ones_are_said_to_be(site: Site) -> None:
    for pad in (100_000, 900_000, LIMIT):
        assert (await site.post(BATCHED, body(1.0, pad=pad), **asked())).status == 200
    await site.post(BATCHED, body(2.0), **asked())
    sizes = [len(exchange.request.body) for exchange in await site.until(3)]
    assert sizes == [len(body(1.0, pad=100_000)), len(body(1.0, pad=900_000)), len(body(2.0))]
    assert site.given == [GivenUp.TOO_LARGE] and site.lost() == 0


async def test_a_reader_that_is_killed_finds_what_came_meanwhile_and_the_rest_is_counted(site: Site) -> None:
    await site.post(BATCHED, body(0.0), **asked())
    await site.until(1)
    site.reading.close()
    for number in range(5):
        await site.post(BATCHED, body(float(number), pad=900_000), **asked())
    site.begin()
    found = await site.until(6)
    assert [exchange.request.body for exchange in found[1:]] == [
        body(float(number), pad=900_000) for number in range(5)
    ]
    assert site.lost() == 0
    site.reading.close()
    count = 0
    while not site.lost():
        # What waits is bounded.
        count += 1
        assert count < 100
        assert (await site.post(BATCHED, body(1.0, pad=900_000), **asked())).status == 200
    site.begin()
    await site.until(6 + count - site.lost())
    # Nobody listens any more.
    lost = site.lost()
    site.reading.close()
    site.socket.close()
    site.copying.close()
    for number in range(1, 4):
        assert (await site.post(BATCHED, body(1.0), **asked())).status == 200
        await site.until_lost(lost + number)


async def test_what_cannot_be_read_fails_no_request(site: Site) -> None:
    assert (await site.post(BATCHED, body(1.0), **asked(text="nonsense"))).status == 200
    await site.until_lost(1)
