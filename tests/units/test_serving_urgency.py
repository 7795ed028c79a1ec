"""Deadlines, priorities, a full queue and clients that go away, against a real server process.

The model is slow and runs in a thread, so that requests wait; it writes down every row that it sees.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import numpy as np
import pytest

from glowplug.wire import InferRequest, Tensor, v2_grpc, v2_json

WAIT_S = 30
MODEL = """
import os, sys, time
from glowplug.serving import Model, ServerConfig, TensorSpec, serve
from glowplug.wire import InferResponse, Tensor

class Slow(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 1)),)
    outputs = (TensorSpec("y", "FP32", (-1, 1)),)
    in_thread = True
    max_batch_size = 4
    gate = os.environ["GATE"]
    def predict(self, request):
        rows = request.input("x").data
        print("rows", rows[:, 0].astype(int).tolist(), file=sys.stderr, flush=True)
        while rows.any() and not os.path.exists(self.gate):
            time.sleep(0.005)
        return InferResponse(self.name, (Tensor.from_numpy("y", rows * 2),))

config = ServerConfig.from_args(sys.argv[1:], os.environ)
sys.exit(serve([Slow(config.model_name)], config))
"""


class Server:
    """One process; its model is stuck at any row above 0 until `open` is called."""

    def __init__(self, folder: Path, *argv: str) -> None:
        (folder / "model.py").write_text(MODEL)
        self.log, self.gate = folder / "stderr", folder / "gate"
        command = [sys.executable, str(folder / "model.py"), "--http_port=0", "--grpc_port=0", *argv]
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, "--drain_delay_s=0"],
                stderr=stderr,
                env={**os.environ, "HOST": "127.0.0.1", "GATE": str(self.gate)},
            )
        deadline = time.monotonic() + WAIT_S
        while not (found := re.search(r"HTTP 127\.0\.0\.1:(\d+), gRPC (\S+)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        self.url, self.grpc = f"http://127.0.0.1:{found[1]}", found[2]

    def open(self) -> None:
        self.gate.touch()

    def seen(self) -> list[str]:
        """The batches, without the warm-up's."""
        return re.findall(r"^rows (\[.*\])$", self.log.read_text(), re.MULTILINE)[1:]

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            page = (await client.get(self.url + "/metrics")).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def until(self, is_so: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            value = is_so()
            if await value if hasattr(value, "__await__") else value:
                return
            assert time.monotonic() < deadline, self.log.read_text()
            await asyncio.sleep(0.01)

    async def until_in_flight(self, count: int) -> None:
        async def is_so() -> bool:
            return await self.metric("glowplug_requests_in_flight") == count

        await self.until(is_so)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*argv: str) -> Server:
        servers.append(Server(tmp_path, *argv))
        return servers[-1]

    yield start
    for server in servers:
        server.open()
        server.process.kill()
        server.process.wait()


def ask(value: float, **parameters: Any) -> InferRequest:
    tensor = Tensor.from_numpy("x", np.array([[value]], dtype=np.float32))
    return InferRequest("model", (tensor,), parameters=parameters)


async def rest(server: Server, value: float, headers: Any = None, **parameters: Any) -> httpx.Response:
    body, _ = v2_json.encode_request(ask(value, **parameters))
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        return await client.post(server.url + "/v2/models/model/infer", content=body, headers=headers)


async def rpc(server: Server, value: float, timeout_s: float = WAIT_S, **parameters: Any) -> Any:
    """The answer's value, or the status code."""
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelInfer")
        data = v2_grpc.encode_infer_request(ask(value, **parameters))
        try:
            return v2_grpc.decode_infer_response(await call(data, timeout=timeout_s)).outputs[0].data.tolist()
        except grpc.aio.AioRpcError as error:
            return error.code()


async def test_what_expires_in_the_queue_is_504_and_never_predicted(start: Any) -> None:
    server = start()
    first = asyncio.ensure_future(rest(server, 1))
    await server.until(lambda: server.seen() == ["[1]"])
    late = await asyncio.gather(
        rest(server, 2, timeout=50_000),
        rest(server, 3, {"x-envoy-expected-rq-timeout-ms": "50"}),
        rpc(server, 4, timeout=50_000),
        rpc(server, 5, timeout_s=0.2),
    )
    assert [answer.status_code for answer in late[:2]] == [504, 504]
    assert late[0].json() == {"error": "the request's deadline passed before it was its turn"}
    assert late[2:] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
    await server.until_in_flight(1)
    server.open()
    assert (await first).json()["outputs"][0]["data"] == [2]
    assert (await rest(server, 6, timeout=10_000_000)).status_code == 200
    assert server.seen() == ["[1]", "[6]"]
    assert await server.metric('glowplug_requests_dropped_total{model_name="model",reason="deadline"}') >= 3


async def test_priority_orders_the_queue_over_both_protocols(start: Any) -> None:
    server = start()
    tasks = [asyncio.ensure_future(rest(server, 1))]
    await server.until(lambda: server.seen() == ["[1]"])
    for count, (value, priority) in enumerate([(2, 9), (3, 9), (4, 9), (5, 0)]):
        tasks.append(asyncio.ensure_future(rest(server, value, priority=priority)))
        await server.until_in_flight(count + 2)
    tasks.append(asyncio.ensure_future(rpc(server, 6, priority=1)))
    await server.until_in_flight(6)
    server.open()
    await asyncio.gather(*tasks)
    assert server.seen() == ["[1]", "[6, 5, 2, 3]", "[4]"]


async def test_past_the_bound_requests_are_told_to_come_back(start: Any) -> None:
    server = start("--max_queue_size=3")
    tasks = [asyncio.ensure_future(rest(server, value)) for value in (1, 1, 1)]
    await server.until_in_flight(3)
    refused = await rest(server, 9)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert await rpc(server, 9) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await server.metric('glowplug_requests_dropped_total{model_name="model",reason="overload"}') >= 1
    server.open()
    assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    assert await rpc(server, 2) == [[4]]
    assert "9" not in str(server.seen())


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
async def test_a_client_that_goes_away_frees_its_place(start: Any, protocol: str) -> None:
    server = start()
    first = asyncio.ensure_future(rest(server, 1))
    await server.until(lambda: server.seen() == ["[1]"])
    gone = asyncio.ensure_future(rest(server, 2) if protocol == "rest" else rpc(server, 2))
    await server.until_in_flight(2)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await server.until_in_flight(1)
    last = asyncio.ensure_future(rest(server, 3))
    await server.until_in_flight(2)
    server.open()
    assert (await first).status_code == (await last).status_code == 200
    assert server.seen() == ["[1]", "[3]"]
    assert await server.metric('glowplug_requests_dropped_total{model_name="model",reason="cancelled"}') == 1


async def test_a_broken_parameter_is_400(start: Any) -> None:
    server = start()
    assert (await rest(server, 0, timeout="soon")).status_code == 400
    assert await rpc(server, 0, priority=-1) is grpc.StatusCode.INVALID_ARGUMENT
    answer = await rest(server, 0, {"x-envoy-expected-rq-timeout-ms": "soon"})
    assert (answer.status_code, "milliseconds" in answer.text) == (400, True)
