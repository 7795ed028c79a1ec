"""The pair lock between real processes: refusals, a transformer that waits for its partner, and requests handed on.

What an ingress would lead to is a relay of bytes here, which a test leads elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import numpy as np
import pytest

from glowplug.wire import InferRequest, Tensor, v2_grpc

DEADLINE_S = 30
READY = re.compile(r"ready.*: HTTP 127\.0\.0\.1:(\d+)(?:, gRPC 127\.0\.0\.1:(\d+))?")
PROTOCOLS = ["v1", "v2", "grpc-v2"]

MODEL = """
import os, sys
from glowplug.serving import InferResponse, Model, PredictorClient, ServerConfig, TensorSpec, serve

class Named(Model):
    '''Adds its pair to the answer's outputs: 1 for a, 2 for b.'''
    inputs = (TensorSpec("x", "FP32", (-1,)),)
    outputs = (TensorSpec("y", "FP32", (-1,)),)
    max_batch_size = int(os.environ.get("BATCH", "1"))
    def __init__(self, config):
        super().__init__(config.model_name)
        self.mark = {"a": 1, "b": 2}.get(config.pair, 0)
        self.client = PredictorClient(config.predictor) if config.predictor.host else None
    def warmup(self):
        pass
    async def is_ready(self):
        return self.client is None or await self.client.is_ready()
    async def predict(self, request):
        if self.client is None:
            print("touched", file=sys.stderr, flush=True)
            return InferResponse(self.name, (Tensor.from_numpy("y", request.inputs[0].data * self.mark),))
        answer = await self.client.infer(request)
        return InferResponse(self.name, (Tensor.from_numpy("y", answer.outputs[0].data + 100 * self.mark),))
    async def close(self):
        if self.client is not None:
            await self.client.aclose()

from glowplug.serving import Tensor
config = ServerConfig.from_args(sys.argv[1:], os.environ)
sys.exit(serve([Named(config)], config))
"""


class Server:
    """One process, and what it wrote to stderr."""

    def __init__(self, folder: Path, number: int, argv: tuple[str, ...], env: dict[str, str]) -> None:
        self.log = folder / f"log_{number}"
        script = folder / "named.py"
        script.write_text(MODEL)
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    sys.executable, str(script), "--model_name=model", "--http_port=0", "--grpc_port=0",
                    "--drain_delay_s=0", *argv,
                ],
                stderr=stderr,
                env={**os.environ, "HOST": "127.0.0.1", **env},
            )  # fmt: skip

    def said(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self.log.read_text())):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"no {pattern!r}:\n{self.log.read_text()}")
            time.sleep(0.01)
        return found

    async def ready(self) -> Server:
        found = await asyncio.to_thread(self.said, READY)
        self.http, self.grpc = int(found[1]), int(found[2])
        return self

    def port(self, protocol: str) -> int:
        return self.grpc if protocol == "grpc-v2" else self.http

    @property
    def touched(self) -> int:
        return self.log.read_text().count("touched")


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start(*argv: str, **env: str) -> Server:
        servers.append(Server(tmp_path, len(servers), argv, env))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


class Relay:
    """A port that leads to another, which may change: connections that there are then end."""

    def __init__(self) -> None:
        self.to = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def lead(self, to: int) -> None:
        self.to = to
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = {writer}
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
            ours.add(back)
            self._writers.add(back)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        for each in ours:
            self._writers.discard(each)
            each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    found = Relay()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    found.lead(0)
    server.close()
    await server.wait_closed()


def tensor() -> Tensor:
    return Tensor.from_numpy("x", np.array([1], dtype=np.float32))


class Answer:
    """An answer by any protocol: an HTTP status or gRPC's name of one, the first number or the error's text."""

    def __init__(self, status: int | str, value: float, text: str, headers: Any) -> None:
        self.status = status
        self.value = value
        self.text = text
        self.headers = headers


async def ask(server: Server, protocol: str, **headers: str) -> Answer:
    """One request; `_` in a header's name for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if protocol == "grpc-v2":
        return await ask_grpc(server, sent)
    path = "/v1/models/model:predict" if protocol == "v1" else "/v2/models/model/infer"
    body = (
        {"instances": [1.0]}
        if protocol == "v1"
        else {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}
    )
    async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{server.http}{path}", json=body, headers=sent)
    if answer.status_code != 200:
        return Answer(answer.status_code, 0, answer.json()["error"], answer.headers)
    said = answer.json()
    value = said["predictions"][0] if protocol == "v1" else said["outputs"][0]["data"][0]
    return Answer(200, value, "", answer.headers)


async def ask_grpc(server: Server, sent: dict[str, str]) -> Answer:
    message = v2_grpc.encode_infer_request(InferRequest("model", (tensor(),)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        call = channel.unary_unary(f"/{v2_grpc.SERVICE}/ModelInfer")
        try:
            raw = await call(message, timeout=DEADLINE_S, metadata=tuple(sent.items()))
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ()) | dict(error.initial_metadata() or ())
            return Answer(error.code().name, 0, error.details() or "", trailers)
    return Answer(200, float(v2_grpc.decode_infer_response(raw).outputs[0].as_numpy()[0]), "", {})


@pytest.mark.parametrize("batch", ["1", "8"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_predictor_refuses_other_pairs_untouched(start: Start, protocol: str, batch: str) -> None:
    predictor = await start(GLOWPLUG_PAIR="a", BATCH=batch).ready()
    refused = await ask(predictor, protocol, glowplug_pair="b")
    assert refused.status == ("FAILED_PRECONDITION" if protocol == "grpc-v2" else 421)
    assert "'a'" in refused.text
    assert "'b'" in refused.text
    assert refused.headers["glowplug-pair"] == "a"
    assert predictor.touched == 0
    for headers in ({"glowplug_pair": "a"}, {}):
        assert (await ask(predictor, protocol, **headers)).value == 1
    assert predictor.touched == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_predictor_without_a_pair_ignores_the_header(start: Start, protocol: str) -> None:
    predictor = await start().ready()
    answer = await ask(predictor, protocol, glowplug_pair="b")
    assert (answer.status, predictor.touched) == (200, 1)
    assert "glowplug-pair" not in answer.headers


def transformer(start: Start, relay: Relay, protocol: str, pair: str, host: int, revision: int = 1) -> Server:
    return start(
        f"--predictor_host=127.0.0.1:{relay.port}",
        f"--predictor_protocol={protocol}",
        "--predictor_request_timeout_seconds=20",
        GLOWPLUG_PAIR=pair,
        GLOWPLUG_TRANSFORMER_HOST=f"127.0.0.1:{host}",
        K_REVISION=f"flights-transformer-{revision:05d}",
        BATCH="4",
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_request_is_handed_on_to_the_pair_that_is_whole(
    start: Start, relay: Relay, protocol: str
) -> None:
    first, second = start(GLOWPLUG_PAIR="a"), start(GLOWPLUG_PAIR="b")
    for predictor in (first, second):
        await predictor.ready()
    own = Relay()
    server = await asyncio.start_server(own.serve, "127.0.0.1", 0)
    own.port = server.sockets[0].getsockname()[1]
    relay.lead(first.port(protocol))
    old = await transformer(start, relay, protocol, "a", own.port).ready()
    assert (await ask(old, protocol)).value == 101
    # The route of the predictor moves, then that of the transformer.
    relay.lead(second.port(protocol))
    # Nobody is whole: what comes is tried again, until the client would wait no longer.
    own.lead(old.port(protocol))
    before = first.touched
    if protocol != "grpc-v2":
        stranded = await ask(old, protocol, x_envoy_expected_rq_timeout_ms="600")
        assert stranded.status in (503, 504), stranded.text
        assert stranded.status == 504 or stranded.headers["retry-after"] == "1"
    refused = await ask(old, protocol, glowplug_pair_handed_on="z")
    assert refused.status == ("FAILED_PRECONDITION" if protocol == "grpc-v2" else 421)
    assert refused.headers["glowplug-pair"] == "a"
    waiting = asyncio.create_task(ask(old, protocol))
    new = await transformer(start, relay, protocol, "b", own.port, 2).ready()
    assert not waiting.done()
    own.lead(new.port(protocol))
    assert (await waiting).value == 202
    assert (await ask(old, protocol)).value == 202
    assert first.touched == before
    own.lead(0)
    server.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_transformer_does_not_listen_before_its_partner(
    start: Start, relay: Relay, protocol: str
) -> None:
    other = await start(GLOWPLUG_PAIR="b").ready()
    unlocked = await start().ready()
    relay.lead(other.port(protocol))
    waiting = transformer(start, relay, protocol, "a", 1)
    await asyncio.to_thread(waiting.said, "not listening yet: .*'b'")
    relay.lead(unlocked.port(protocol))
    await asyncio.to_thread(waiting.said, "not listening yet: .*does not say its pair")
    assert "ready" not in waiting.log.read_text()
    partner = await start(GLOWPLUG_PAIR="a").ready()
    relay.lead(partner.port(protocol))
    await waiting.ready()
    assert (await ask(waiting, protocol)).value == 101
    assert other.touched == unlocked.touched == 0


async def test_a_transformer_that_waits_can_be_stopped(start: Start, relay: Relay) -> None:
    waiting = transformer(start, relay, "v2", "a", 1)
    await asyncio.to_thread(waiting.said, "not listening yet")
    waiting.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(waiting.process.wait, DEADLINE_S) == 0


async def test_a_transformer_that_comes_too_late_hands_on_everything(start: Start, relay: Relay) -> None:
    predictor = await start(GLOWPLUG_PAIR="b").ready()
    relay.lead(predictor.http)
    new = await transformer(start, relay, "v2", "b", 1, revision=2).ready()
    late = await transformer(start, relay, "v2", "a", new.http, revision=1).ready()
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{late.http}/v2/health/ready")).status_code == 200
    assert (await ask(late, "v2")).value == 202
    assert (await ask(late, "v1")).value == 202
    # And its predictor is back.
    back = await start(GLOWPLUG_PAIR="a").ready()
    relay.lead(back.http)
    assert (await ask(late, "v2")).value == 101
