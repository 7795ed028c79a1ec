"""The methods over gRPC, asked by grpc's own client in the same loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from glowplug.serving import Model, request_headers
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.grpc_server import GrpcServer, bind
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.wire import InferRequest, InferResponse, Tensor, v2_grpc

DEADLINE_S = 20
LIMIT = 100_000
Code = grpc.StatusCode


class Doubling(Model):
    """Answers with the double. What is negative waits until the gate is opened; that waits counts as `waiting`."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name)
        self.max_batch_size = size
        self.gate = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0
        self.headers: dict[str, str] = {}

    async def predict(self, request: InferRequest) -> InferResponse:
        self.headers = dict(request_headers())
        data = request.input("x").data
        if data.min() < 0:
            self.waiting += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
        return InferResponse(self.name, (Tensor.from_numpy("y", data * 2),))


class Site:
    """A server of two models: `task` has a task for each call, `batch` is batched."""

    def __init__(self) -> None:
        self.models = {name: Doubling(name, size) for name, size in (("task", 1), ("batch", 32))}
        self.metrics = Metrics()
        served = [LightModel(model, self.metrics) for model in self.models.values()]
        self.plane = DataPlane(served, self.metrics, max_in_flight=4)
        for entry in self.plane.entries.values():
            entry.is_loaded = True
        self.server: GrpcServer
        self.server, self.port = bind(self.plane, host="127.0.0.1", port=0, max_message_bytes=LIMIT)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")

    def call(self, data: bytes, method: str = "ModelInfer", **more: Any) -> Any:
        return self.channel.unary_unary(f"/{v2_grpc.SERVICE}/{method}")(
            data, **{"timeout": DEADLINE_S, **more}
        )

    async def infer(self, name: str, value: float = 1.0, **more: Any) -> float:
        found = v2_grpc.decode_infer_response(await self.call(body(name, value), **more))
        return float(found.output("y").data[0])


def body(name: str, value: float = 1.0, size: int = 1) -> bytes:
    data = np.full(size, value, dtype=np.float32)
    return v2_grpc.encode_infer_request(InferRequest(name, (Tensor.from_numpy("x", data),)))


async def until(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never came to be")


async def code(call: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    await made.server.start()
    yield made
    for model in made.models.values():
        model.gate.set()
    await made.channel.close()
    await made.server.abort()
    await made.plane.close()


MODELS = pytest.mark.parametrize("name", ["task", "batch"])


@MODELS
async def test_an_inference(site: Site, name: str) -> None:
    metadata = (("traceparent", "00-1"), ("data-bin", b"\0"), ("x", "1"), ("x", "2"))
    assert await site.infer(name, 3, metadata=metadata) == 6
    if name == "task":
        found = site.models[name].headers
        assert (found["traceparent"], found["x"]) == ("00-1", "1, 2")
        assert "user-agent" in found
        assert not {":path", "te", "content-type", "grpc-timeout", "data-bin"} & set(found)
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert await site.infer(name, 4, compression=compression) == 8
    assert await asyncio.gather(*[site.infer(name, n) for n in range(4)]) == [0, 2, 4, 6]


@MODELS
async def test_a_place_is_free_again_whatever_became_of_its_call(site: Site, name: str) -> None:
    model = site.models[name]
    for _ in range(2):
        held = [asyncio.ensure_future(site.infer(name, -1)) for _ in range(4)]
        await until(lambda: site.metrics.in_flight == 4 and model.waiting)
        assert (await code(site.call(body(name))))[0] is Code.RESOURCE_EXHAUSTED
        for call in held:
            call.cancel()
        await until(lambda: site.metrics.in_flight == 0)
        assert (await code(site.call(body(name, -1), timeout=0.1)))[0] is Code.DEADLINE_EXCEEDED
        assert (await code(site.call(b"\xff")))[0] is Code.INVALID_ARGUMENT
        await until(lambda: site.metrics.in_flight == 0)
        model.gate.set()
        assert await site.infer(name, -1) == -2
        await until(lambda: model.waiting == 0)
        model.gate.clear()
    assert site.metrics.in_flight == 0


async def test_a_call_that_nobody_waits_for_is_cancelled(site: Site) -> None:
    model = site.models["task"]
    call = asyncio.ensure_future(site.infer("task", -1))
    await until(lambda: model.waiting)
    call.cancel()
    await until(lambda: model.cancelled == 1)
    assert (await code(site.call(body("task", -1), timeout=0.1)))[0] is Code.DEADLINE_EXCEEDED
    await until(lambda: model.cancelled == 2)


@MODELS
async def test_errors(site: Site, name: str) -> None:
    assert await code(site.call(body("nope"))) == (
        Code.NOT_FOUND,
        "no model 'nope'; the models are: 'task', 'batch'",
    )
    missing = await code(site.call(body(name, float("nan"))))
    assert missing[0] is Code.INVALID_ARGUMENT
    assert "missing" in missing[1]
    assert (await code(site.call(body(name, 1, LIMIT))))[0] is Code.RESOURCE_EXHAUSTED
    compressed = site.call(body(name, 1, LIMIT), compression=grpc.Compression.Gzip)
    assert (await code(compressed))[0] is Code.RESOURCE_EXHAUSTED
    site.plane.entries[name].is_loaded = False
    assert (await code(site.call(body(name))))[0] is Code.UNAVAILABLE
    assert (await code(site.call(b"", "Nope")))[0] is Code.UNIMPLEMENTED


async def test_a_version_is_checked(site: Site) -> None:
    for version, answer in (("1", None), ("7", Code.NOT_FOUND)):
        tensor = Tensor.from_numpy("x", np.ones(1, dtype=np.float32))
        data = v2_grpc.encode_infer_request(InferRequest("batch", (tensor,), model_version=version))
        if answer is None:
            assert await site.call(data)
        else:
            assert (await code(site.call(data)))[0] is answer


@pytest.mark.parametrize("count", [0, 2])
async def test_a_unary_method_takes_one_message(site: Site, count: int) -> None:
    async def messages() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield body("task")

    call = site.channel.stream_unary(f"/{v2_grpc.SERVICE}/ModelInfer")(messages(), timeout=DEADLINE_S)
    assert (await code(call))[0] is Code.INTERNAL
    assert site.metrics.in_flight == 0


async def test_what_is_held_of_calls_without_end_is_bounded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glowplug.serving.grpc_server.MAX_HELD_BYTES", 1000)
    gate = asyncio.Event()

    async def messages() -> AsyncIterator[bytes]:
        yield body("task", 1, 200)
        await gate.wait()

    method = site.channel.stream_unary(f"/{v2_grpc.SERVICE}/ModelInfer")
    first = method(messages(), timeout=DEADLINE_S)
    await until(lambda: site.server._endpoints._held_bytes)
    assert (await code(method(messages(), timeout=DEADLINE_S)))[0] is Code.RESOURCE_EXHAUSTED
    gate.set()
    assert await first
    assert site.server._endpoints._held_bytes == 0
    gate.clear()
    again = method(messages(), timeout=DEADLINE_S)
    await until(lambda: site.server._endpoints._held_bytes)
    again.cancel()
    await until(lambda: site.server._endpoints._held_bytes == 0)


async def test_a_drain_finishes_what_was_sent(site: Site) -> None:
    calls = [asyncio.ensure_future(site.infer(name, -1)) for name in ("task", "batch")]
    await until(lambda: all(model.waiting for model in site.models.values()))
    drain = asyncio.ensure_future(site.server.drain(DEADLINE_S))
    for model in site.models.values():
        model.gate.set()
    assert await asyncio.gather(*calls) == [-2, -2]
    # Not by its time-out.
    await asyncio.wait_for(drain, DEADLINE_S / 2)
    assert (await code(site.call(body("task"))))[0] is Code.UNAVAILABLE


async def test_a_drain_is_bounded(site: Site) -> None:
    call = asyncio.ensure_future(site.infer("task", -1))
    await until(lambda: site.models["task"].waiting)
    await site.server.drain(0.05)
    assert (await code(call))[0] is Code.UNAVAILABLE
    assert site.models["task"].cancelled == 1
