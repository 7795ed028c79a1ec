"""`glowplug.serving` as real processes: start, failure to start, shutdown, and the hop from transformer to predictor.

The models are files written by the tests and run by the interpreter, as a unit's container would.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
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

from glowplug.serving import PredictorClient, PredictorConfig
from glowplug.serving.http_client import HttpClient
from glowplug.wire import InferRequest, Tensor, v2_grpc, v2_json

DEADLINE_S = 30
READY = re.compile(r"ready.*: HTTP 127\.0\.0\.1:(\d+)(?:, gRPC 127\.0\.0\.1:(\d+))?")

HEADER = """
import asyncio, os, sys, time
import numpy as np
from glowplug.errors import InferenceError, StorageError
from glowplug.serving import Model, PredictorClient, ServerConfig, TensorSpec, request_headers, serve
from glowplug.wire import InferRequest, InferResponse, Tensor

def main(make):
    config = ServerConfig.from_args(sys.argv[1:], os.environ)
    sys.exit(serve([make(config)], config))
"""

SLOW = """
class Slow(Model):
    inputs = (TensorSpec("x", "FP32", (-1,)),)
    outputs = (TensorSpec("y", "FP32", (-1,)),)
    async def predict(self, request):
        seconds = float(request.input("x").data[0])
        if seconds:
            print("working", file=sys.stderr, flush=True)
        await asyncio.sleep(seconds)
        trace = request_headers().get("traceparent", "")
        outputs = (Tensor.from_numpy("y", request.input("x").data * 2),)
        return InferResponse(self.name, outputs, parameters={"trace": trace})
    async def close(self):
        print("closed", file=sys.stderr, flush=True)
main(lambda config: Slow(config.model_name))
"""

BUSY = """
class Busy(Model):
    def predict(self, request):
        print("working", file=sys.stderr, flush=True)
        time.sleep(0.3)
        return InferResponse(self.name, request.inputs)
main(lambda config: Busy(config.model_name))
"""

TRANSFORMER = """
class Passing(Model):
    inputs = (TensorSpec("x", "FP32", (-1,)),)
    def __init__(self, config):
        super().__init__(config.model_name)
        self.client = PredictorClient(config.predictor)
    def warmup(self):
        pass
    async def predict(self, request):
        return await self.client.infer(request)
    async def close(self):
        await self.client.aclose()
main(Passing)
"""

KSERVE_TRANSFORMER = """
import kserve
class Passing(kserve.Model):
    async def preprocess(self, payload, headers=None):
        if os.environ.get("BINARY"):
            for item in payload.inputs:
                item.set_data_from_numpy(item.as_numpy(), binary_data=True)
        return payload
def make(config):
    model = Passing(config.model_name)
    model.load()
    return model
main(make)
"""


class Server:
    """One process, and what it wrote to stderr."""

    def __init__(self, script: Path, log: Path, argv: tuple[str, ...], env: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(script), "--http_port=0", "--grpc_port=0", *argv],
                stderr=stderr,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "HOST": "127.0.0.1", **env},
            )

    def text(self) -> str:
        return self.log.read_text()

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            found = re.search(pattern, self.text())
            if found:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"no {pattern!r} (exit code {self.process.poll()}):\n{self.text()}")

    def ready(self) -> Server:
        found = self.wait_for(READY)
        self.http, self.grpc = int(found[1]), int(found[2] or 0)
        return self

    def ended(self) -> int:
        return self.process.wait(DEADLINE_S)


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start(code: str, *argv: str, **env: str) -> Server:
        script = tmp_path / f"unit_{len(servers)}.py"
        script.write_text(HEADER + code)
        servers.append(Server(script, tmp_path / f"log_{len(servers)}", argv, env))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


def request(seconds: float = 0, name: str = "model") -> InferRequest:
    return InferRequest(name, (Tensor.from_numpy("x", np.array([seconds, 1], dtype=np.float32)),), id="7")


async def infer(port: int, seconds: float = 0, **headers: str) -> httpx.Response:
    body, _ = v2_json.encode_request(request(seconds))
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        return await client.post(
            f"http://127.0.0.1:{port}/v2/models/model/infer", content=body, headers=headers
        )


async def infer_grpc(port: int, seconds: float = 0) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelInfer")
        answer = await call(v2_grpc.encode_infer_request(request(seconds)), timeout=DEADLINE_S)
    return v2_grpc.decode_infer_response(answer)


async def working(server: Server, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while server.text().count("working") < count:
        assert time.monotonic() < deadline, server.text()
        await asyncio.sleep(0.01)


async def test_sigterm_finishes_what_is_in_flight_and_turns_readiness_off_first(start: Start) -> None:
    server = start(SLOW, "--drain_delay_s=0.4").ready()
    rest = asyncio.ensure_future(infer(server.http, 1.2))
    rpc = asyncio.ensure_future(infer_grpc(server.grpc, 1.2))
    await working(server, 2)
    server.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.wait_for, "stopping: 2 requests in flight")
    async with httpx.AsyncClient() as client:
        # Not ready, and still serving: who has not heard of it yet gets an answer.
        ready = await client.get(f"http://127.0.0.1:{server.http}/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        assert ready.headers["connection"] == "close"
    assert (await infer(server.http)).status_code == 200
    assert (await infer_grpc(server.grpc)).output("y").data.tolist() == [0, 2]
    assert (await rest).json()["outputs"][0]["data"] == pytest.approx([2.4, 2])
    assert (await rpc).output("y").data.tolist() == pytest.approx([2.4, 2])
    assert server.ended() == 0
    assert server.text().index("closed") > server.text().index("stopping")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.http), timeout=1)


async def test_calls_that_wait_for_a_busy_model_are_served_after_sigterm(start: Start) -> None:
    """A plain `predict` holds the event loop: the calls behind it are received, and have not begun."""
    server = start(BUSY).ready()
    data = v2_grpc.encode_infer_request(request())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        infer_all = [
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(data) for _ in range(6)
        ]
        calls = [asyncio.ensure_future(asyncio.wait_for(call, DEADLINE_S)) for call in infer_all]
        await working(server, 1)
        server.process.send_signal(signal.SIGTERM)
        assert all(await asyncio.gather(*calls))
    assert await asyncio.to_thread(server.ended) == 0


async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    server = start(SLOW, "--drain_delay_s=0").ready()
    rest = asyncio.ensure_future(infer(server.http, 60))
    rpc = asyncio.ensure_future(infer_grpc(server.grpc, 60))
    await working(server, 2)
    server.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.wait_for, "stopping")
    server.process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert await asyncio.to_thread(server.ended) == 1
    assert time.monotonic() - started < 5
    results = await asyncio.gather(rest, rpc, return_exceptions=True)
    assert all(isinstance(item, httpx.HTTPError | grpc.aio.AioRpcError) for item in results)


async def test_a_drain_is_bounded(start: Start) -> None:
    server = start(SLOW, "--drain_delay_s=0", "--drain_timeout_s=0.3").ready()
    rest = asyncio.ensure_future(infer(server.http, 60))
    await working(server, 1)
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.ended) == 1
    assert isinstance((await asyncio.gather(rest, return_exceptions=True))[0], httpx.HTTPError)


def test_an_idle_server_stops_with_0(start: Start) -> None:
    server = start(SLOW, "--drain_delay_s=0").ready()
    server.process.send_signal(signal.SIGINT)
    assert server.ended() == 0
    assert "Traceback" not in server.text()


def told(server: Server) -> str:
    assert server.ended() == 1
    assert "Traceback" not in server.text()
    return server.text()


def test_a_model_that_cannot_be_loaded_is_one_message(start: Start) -> None:
    code = """
class Gone(Model):
    def load(self):
        raise StorageError("/mnt/models holds no model file", hint="save it first")
main(lambda config: Gone("m"))
"""
    lines = told(start(code)).strip().splitlines()
    assert lines == ["error: /mnt/models holds no model file", "hint: save it first"]


def test_taken_ports_are_told_before_the_model_is_loaded(start: Start) -> None:
    code = SLOW.replace("async def close", "def load(self):\n        print('loading')\n    async def close")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"HTTP port {port} on 127.0.0.1 cannot be opened" in told(start(code, f"--http_port={port}"))
        assert f"gRPC port {port} on 127.0.0.1 cannot be opened" in told(start(code, f"--grpc_port={port}"))


def test_a_failing_warm_up_is_told(start: Start) -> None:
    code = SLOW.replace('seconds = float(request.input("x").data[0])', 'raise ValueError("no such tree")')
    server = start(code)
    assert server.ended() == 1
    assert "its first prediction failed: ValueError: no such tree" in server.text()


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
async def test_our_transformer_calls_our_predictor(start: Start, protocol: str) -> None:
    predictor = start(SLOW)
    predictor.ready()
    port = predictor.grpc if protocol == "grpc-v2" else predictor.http
    transformer = start(
        TRANSFORMER,
        f"--predictor_host=127.0.0.1:{port}",
        f"--predictor_protocol={protocol}",
        "--enable_predictor_health_check",
        "--drain_delay_s=0",
    ).ready()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{transformer.http}/v2/health/ready")).status_code == 200
    for _ in range(3):
        answer = await infer(transformer.http, traceparent="00-1-2-01")
        assert answer.status_code == 200
        assert answer.json()["outputs"][0]["data"] == [0, 2]
        if protocol != "v1":
            assert answer.json()["parameters"] == {"trace": "00-1-2-01"}
    # A call in flight through both is finished when the transformer is told to stop.
    call = asyncio.ensure_future(infer_grpc(transformer.grpc, 0.5))
    await working(predictor, 1)
    transformer.process.send_signal(signal.SIGTERM)
    assert (await call).outputs[0].data.tolist() == [1, 2]
    assert await asyncio.to_thread(transformer.ended) == 0
    predictor.process.kill()


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
async def test_a_transformer_waits_no_longer_than_its_client_and_nor_does_the_predictor(
    start: Start, protocol: str
) -> None:
    predictor = start(SLOW).ready()
    port = predictor.grpc if protocol == "grpc-v2" else predictor.http
    transformer = start(
        TRANSFORMER, f"--predictor_host=127.0.0.1:{port}", f"--predictor_protocol={protocol}"
    ).ready()
    answer = await infer(transformer.http, DEADLINE_S, **{"x-envoy-expected-rq-timeout-ms": "300"})
    assert answer.status_code == 504
    deadline = time.monotonic() + DEADLINE_S / 2
    async with httpx.AsyncClient() as client:
        page = ""
        while "glowplug_requests_in_flight 0" not in page:
            assert time.monotonic() < deadline, page
            page = (await client.get(f"http://127.0.0.1:{predictor.http}/metrics")).text
    assert "working" in predictor.text()


@pytest.mark.parametrize(
    ("protocol", "binary"), [("v1", ""), ("v2", ""), ("v2", "1"), ("grpc-v2", ""), ("grpc-v2", "1")]
)
async def test_kserves_transformer_calls_our_predictor_with_kserves_clients(
    start: Start, protocol: str, binary: str
) -> None:
    pytest.importorskip("kserve")
    predictor = start(SLOW).ready()
    port = predictor.grpc if protocol == "grpc-v2" else predictor.http
    transformer = start(
        KSERVE_TRANSFORMER,
        f"--predictor_host=127.0.0.1:{port}",
        f"--predictor_protocol={protocol}",
        "--drain_delay_s=0",
        BINARY=binary,
    ).ready()
    if protocol == "v1":
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"http://127.0.0.1:{transformer.http}/v1/models/model:predict", json={"instances": [0, 1]}
            )
        assert (answer.status_code, answer.json()) == (200, {"predictions": [0, 2]})
    else:
        answer = await infer(transformer.http)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == [0, 2]
    if protocol == "grpc-v2":
        call = asyncio.ensure_future(infer_grpc(transformer.grpc, 0.5))
        await working(predictor, 1)
        transformer.process.send_signal(signal.SIGTERM)
        assert (await call).outputs[0].data.tolist() == [1, 2]
        assert await asyncio.to_thread(transformer.ended) == 0


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
async def test_a_predictor_that_is_down_is_503_and_one_that_says_no_is_quoted(
    start: Start, protocol: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    client = PredictorClient(PredictorConfig(host=f"127.0.0.1:{port}", protocol=protocol, timeout_s=5))
    with pytest.raises(Exception, match=r"the predictor at 127\.0\.0\.1:\d+ cannot be reached") as caught:
        await client.infer(request(), {})
    assert caught.value.code == 503
    assert not await client.is_ready()
    await client.aclose()
    predictor = start(SLOW).ready()
    port = predictor.grpc if protocol == "grpc-v2" else predictor.http
    client = PredictorClient(PredictorConfig(host=f"127.0.0.1:{port}", protocol=protocol, timeout_s=5))
    assert await client.is_ready()
    with pytest.raises(Exception, match="the predictor: no model 'other'") as caught:
        await client.infer(request(name="other"), {})
    assert caught.value.code == 404
    with pytest.raises(Exception, match=r"did not answer within 0\.2 s") as caught:
        await client.infer(request(5), {}, timeout_s=0.2)
    assert caught.value.code == 504
    await client.aclose()


async def test_the_http_client_outlives_a_server_that_closed_its_connections(start: Start) -> None:
    server = start(SLOW, "--timeout-keep-alive=1").ready()
    client = HttpClient("127.0.0.1", server.http)
    assert (await client.request("GET", "/v2/health/live", {})).status == 200
    await asyncio.sleep(1.2)
    assert (await client.request("GET", "/v2/health/live", {})).status == 200
    await client.aclose()


async def test_kserves_own_clients_against_us(start: Start) -> None:
    kserve: Any = pytest.importorskip("kserve")
    server = start(SLOW).ready()
    url = f"http://127.0.0.1:{server.http}"
    made = kserve.InferInput("x", [2], "FP32")
    made.set_data_from_numpy(np.array([0, 3], dtype=np.float32), binary_data=True)
    asked = kserve.InferRequest(
        model_name="model", infer_inputs=[made], parameters={"binary_data_output": True}
    )
    rest = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2", timeout=DEADLINE_S))
    assert await rest.is_server_ready(url)
    assert await rest.is_server_live(url)
    assert await rest.is_model_ready(url, "model")
    answer = await rest.infer(url, asked, model_name="model")
    assert answer.outputs[0].as_numpy().tolist() == [0, 6]
    await rest.close()
    v1 = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v1", timeout=DEADLINE_S))
    assert await v1.infer(url, {"instances": [0, 3]}, model_name="model") == {"predictions": [0, 6]}
    await v1.close()
    rpc = kserve.InferenceGRPCClient(f"127.0.0.1:{server.grpc}", timeout=DEADLINE_S)
    assert await rpc.is_server_ready()
    assert await rpc.is_server_live()
    assert await rpc.is_model_ready("model")
    made = kserve.InferInput("x", [2], "FP32", data=[0.0, 3.0])
    answer = await rpc.infer(kserve.InferRequest(model_name="model", infer_inputs=[made], request_id="9"))
    assert answer.outputs[0].as_numpy().tolist() == [0, 6]
    assert answer.id == "9"
    await rpc.close()


async def test_grpc_errors_have_their_codes(start: Start) -> None:
    server = start(SLOW, "--max_body_bytes=10000").ready()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:

        async def code(method: str, data: bytes) -> Any:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{v2_grpc.SERVICE}/{method}")(data, timeout=DEADLINE_S)
            return caught.value.code(), caught.value.details()

        status, text = await code("ModelInfer", b"\xff\xff")
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert "malformed" in text
        other = v2_grpc.encode_infer_request(request(name="other"))
        assert (await code("ModelInfer", other))[0] is grpc.StatusCode.NOT_FOUND
        missing = InferRequest("model", (Tensor.from_numpy("x", np.array([np.nan], dtype=np.float32)),))
        status, text = await code("ModelInfer", v2_grpc.encode_infer_request(missing))
        assert (status, "missing" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert (await code("ModelInfer", b"\0" * 20000))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await code("ModelMetadata", b"\x0a\x05other"))[0] is grpc.StatusCode.NOT_FOUND
        assert (await code("Nope", b""))[0] is grpc.StatusCode.UNIMPLEMENTED
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"http://127.0.0.1:{server.http}/metrics")).text
    for model in ("", "model"):
        counted = f'glowplug_requests_total{{model_name="{model}",protocol="grpc",code="INVALID_ARGUMENT"}} 1'
        assert counted in metrics
    took = re.search(r"^glowplug_start_to_ready_seconds (\S+)$", metrics, re.MULTILINE)
    assert took is not None
    assert 0 < float(took[1]) < DEADLINE_S


@pytest.mark.parametrize("protocol", ["v2", "grpc-v2"])
async def test_retries_reach_a_predictor_that_comes_up_later(start: Start, protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    config = PredictorConfig(host=f"127.0.0.1:{port}", protocol=protocol, timeout_s=5, retries=8)
    client = PredictorClient(config)
    call = asyncio.ensure_future(client.infer(request(), {}))
    flag = "--grpc_port" if protocol == "grpc-v2" else "--http_port"
    start(SLOW, f"{flag}={port}")
    assert (await call).output("y").data.tolist() == [0, 2]
    await client.aclose()
