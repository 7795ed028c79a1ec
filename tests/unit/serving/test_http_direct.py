"""Inference without a task: the same answers as with one, on real connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glowplug.errors import InferenceError
from glowplug.serving import InferRequest, InferResponse, Model, Tensor, TensorSpec
from glowplug.serving import http_protocol as protocol
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.http import HttpEndpoints, HttpRequest, HttpResponse
from glowplug.serving.http_protocol import HttpService
from glowplug.serving.light import LightModel
from glowplug.serving.listener import HttpListener, bind
from glowplug.serving.metrics import Metrics
from glowplug.wire.cloudevents import ResponsePolicy

DEADLINE_S = 10
DIRECT, LONGER = "/v2/models/m/infer", "/v2/models/%6D/infer"


class Rows(Model):
    """Sums rows; 13 is refused, 99 is a bug."""

    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    max_batch_size = 8
    gate: threading.Event | None = None

    def __init__(self) -> None:
        super().__init__("m")
        self.batches: list[int] = []
        self.entered = threading.Event()

    def predict(self, request: InferRequest) -> InferResponse:
        data = request.input("x").data
        self.batches.append(len(data))
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(DEADLINE_S)
        if data.ndim != 2 or data.dtype != np.float32:
            raise InferenceError("tensor 'x': expected FP32 [n, k]")
        if (data == 13).any():
            raise InferenceError("13 is refused", code=409)
        if (data == 99).any():
            raise ValueError("a bug")
        with np.errstate(all="ignore"):
            sums = data.sum(axis=1)
        return InferResponse(self.name, (Tensor("y", "FP32", sums.shape, sums),))


class Site:
    def __init__(self, model: Rows, max_in_flight: int = 64) -> None:
        self.metrics = Metrics()
        self.plane = DataPlane([LightModel(model, self.metrics)], self.metrics, max_in_flight=max_in_flight)
        self.plane.entries["m"].is_loaded = True
        self.endpoints = HttpEndpoints(self.plane, max_body_bytes=100_000, events=ResponsePolicy())
        self.service = HttpService(self.endpoints, max_body_bytes=100_000, keep_alive_s=30)
        self.port = 0

    async def start(self) -> None:
        socket = bind("127.0.0.1", 0)
        self.port = socket.getsockname()[1]
        self.listener = HttpListener(self.service, socket)
        await self.listener.start()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes, count: int = 1) -> list[tuple[int, Any]]:
        """Status and document of so many answers on one connection."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            return [await read_answer(reader) for _ in range(count)]
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), orjson.loads(await reader.readexactly(size))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site(Rows())
    await site.start()
    yield site
    site.listener.close()
    await asyncio.wait_for(site.listener.drained(), DEADLINE_S)
    await site.plane.close()
    assert site.metrics.in_flight == 0


def document(*rows: list[float], **more: Any) -> dict[str, Any]:
    data = [value for row in rows for value in row]
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": data}], **more}


def post(body: Any, path: str = DIRECT, **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)
TENSOR = st.fixed_dictionaries(
    {"name": st.just("x") | JSON, "datatype": st.sampled_from(["FP32", "INT8", "BYTES", 1])},
    optional={"shape": st.sampled_from([[1, 2], [2], [], [1, 0], 3]), "data": st.just([13, 1]) | JSON},
)
DOCUMENT = st.one_of(
    st.lists(st.lists(st.sampled_from([1, 2.5, 13, 99]), min_size=2, max_size=2), max_size=3).map(
        lambda rows: document(*rows)
    ),
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSOR, max_size=2) | JSON},
        optional={"outputs": JSON, "parameters": JSON | st.just({"timeout": 10**9}), "id": st.just("7")},
    ),
    JSON,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=DOCUMENT.map(orjson.dumps) | st.binary(max_size=20),
    headers=st.dictionaries(
        st.sampled_from(["content_encoding", "content_type", "inference_header_content_length"]),
        st.sampled_from(["application/cloudevents+json", "gzip", "0", "7"]),
        max_size=1,
    ),
)
async def test_both_ways_give_the_same_answer(site: Site, body: bytes, headers: dict[str, str]) -> None:
    found = [await site.ask(post(body, path, x_request_id="r", **headers)) for path in (DIRECT, LONGER)]
    assert found[0] == found[1]


async def test_the_direct_path_is_taken_and_the_longer_is_not(site: Site) -> None:
    began: list[str] = []
    begin = site.endpoints.begin

    def spied(request: HttpRequest, done: Any) -> Any:
        call = begin(request, done)
        if call is not None:
            began.append(request.path)
        return call

    site.endpoints.begin = spied  # type: ignore[method-assign]
    for path in (DIRECT, LONGER, "/v1/models/m:predict"):
        await site.ask(
            post(
                {**document([1, 2]), "instances": [[1, 2]]} if "v2" in path else {"instances": [[1, 2]]}, path
            )
        )
    assert began == [DIRECT]


async def test_what_many_connections_send_at_once_shares_batches(site: Site) -> None:
    await site.ask(post(document([0, 0])))
    pairs = [await site.connect() for _ in range(24)]
    model: Any = site.plane.entries["m"].served
    before = len(model._model.batches)
    for value, (_, writer) in enumerate(pairs, 100):
        writer.write(post(document([value, 1])))
    for value, (reader, writer) in enumerate(pairs, 100):
        status, answer = await read_answer(reader)
        assert (status, answer["outputs"][0]["data"]) == (200, [value + 1])
        writer.close()
    assert len(model._model.batches) - before < 24


async def test_thousands_of_broken_requests_in_one_piece_are_answered_in_order(site: Site) -> None:
    # The first takes a task, behind which the others queue up.
    data = post(document([1, 2]), LONGER) + post(b"[1]") * 3000 + post(document([1, 2]))
    answers = await site.ask(data, 3002)
    assert [status for status, _ in answers] == [200] + [400] * 3000 + [200]


async def test_requests_sent_ahead_are_answered_in_order_whatever_way_they_take(site: Site) -> None:
    data = b"".join(post(document([value, 0]), DIRECT if value % 3 else LONGER) for value in range(100, 160))
    answers = await site.ask(data, 60)
    assert [answer["outputs"][0]["data"] for _, answer in answers] == [[value] for value in range(100, 160)]


async def test_past_the_limit_is_503_and_counted() -> None:
    site = Site(Rows(), max_in_flight=1)
    await site.start()
    with site.plane.admitted():
        status, answer = (await site.ask(post(document([1, 2]))))[0]
    assert (status, "try again" in answer["error"]) == (503, True)
    page = site.metrics.render().decode()
    assert 'glowplug_requests_total{model_name="m",protocol="v2",code="503"} 1' in page
    assert 'glowplug_requests_dropped_total{model_name="m",reason="overload"} 1' in page
    assert (await site.ask(post(document([1, 2]))))[0][0] == 200
    site.listener.close()
    await site.listener.abort()


async def test_a_client_that_goes_away_frees_its_place() -> None:
    class Threaded(Rows):
        in_thread = True
        gate = threading.Event()

    model = Threaded()
    site = Site(model)
    await site.start()
    first = asyncio.ensure_future(site.ask(post(document([1, 1]))))
    assert await asyncio.to_thread(model.entered.wait, DEADLINE_S)
    _, writer = await site.connect()
    writer.write(post(document([2, 2])))
    await until(lambda: site.metrics.in_flight == 2)
    writer.close()
    await until(lambda: site.metrics.in_flight == 1)
    model.gate.set()
    assert (await first)[0][1]["outputs"][0]["data"] == [2]
    await until(lambda: 'reason="cancelled"} 1' in site.metrics.render().decode())
    assert model.batches == [1]
    site.listener.close()
    await site.plane.close()
    await asyncio.wait_for(site.listener.drained(), DEADLINE_S)


async def until(condition: Any) -> None:
    async def asked() -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asked(), DEADLINE_S)


async def test_a_request_that_stops_half_way_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_TIMEOUT_S", 0.05)
    site.service.keep_alive_s = 0.05
    half = post(document([1, 2]))[:-5]
    for before in (b"", post(document([1, 2]))):
        reader, writer = await site.connect()
        writer.write(before + half)
        rest = await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert rest.count(b"HTTP/1.1 200") == (1 if before else 0)
        writer.close()


def test_requests_leave_no_cycles_behind() -> None:
    """Else the collector runs every few requests, and that takes longer than they do."""
    import gc

    async def run() -> int:
        site = Site(Rows())
        request = HttpRequest("POST", DIRECT, "", {}, orjson.dumps(document([1, 2])))
        answers: list[HttpResponse] = []

        async def some(count: int) -> None:
            for _ in range(count):
                site.endpoints.begin(request, answers.append)
                while not answers:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                answers.clear()

        await some(5)
        gc.collect()
        gc.disable()
        try:
            await some(50)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(run()) < 50
