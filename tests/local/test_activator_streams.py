"""What is more than a question and an answer, through a real Envoy: streamed bodies, sockets, calls both ways.

Each from a revision without pods, through the activator's hands with a pod there, and straight to the pod. A side
goes on only when the other one has what was sent before, so nothing on the way can collect a whole body first.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import grpc
import grpc.aio
import httpx
import pytest
from aiohttp import web
from local.router_upstreams import NAMESPACE, backend, eventually
from local.test_activator import PATH, Ingress, running

from glowplug.spec.routes import Backend, Endpoint, Mode

METHOD = "inference.GRPCInferenceService/ModelStreamInfer"
LIMIT_S = 20.0
MEBIBYTE = 1 << 20
_PARTS = 5
_T = TypeVar("_T")


class StreamingPod:
    """A pod whose answers and calls stream. `got` counts the parts of a body that have come; who sends waits for it."""

    def __init__(self) -> None:
        self.http_port = self.grpc_port = 0
        self.got = asyncio.Semaphore(0)
        self.may_go_on = asyncio.Semaphore(0)
        self.gone = asyncio.Event()
        app = web.Application(client_max_size=64 * MEBIBYTE)
        app.router.add_post("/digest", self._digest)
        app.router.add_get("/events", self._events)
        app.router.add_get("/socket", self._socket)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        self._grpc = grpc.aio.server()
        service, _, name = METHOD.partition("/")
        method = grpc.stream_stream_rpc_method_handler(self._infer)
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"{NAMESPACE}/one", "127.0.0.1", self.http_port, self.grpc_port)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.http_port = self._runner.addresses[0][1]
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        await self._grpc.start()

    async def close(self) -> None:
        await self._runner.cleanup()
        await self._grpc.stop(grace=1)

    async def _digest(self, request: web.Request) -> web.Response:
        digest, length = hashlib.sha256(), 0
        async for data in request.content.iter_any():
            digest.update(data)
            length += len(data)
            self.got.release()
        return web.json_response({"length": length, "sha256": digest.hexdigest()})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        try:
            for number in range(_PARTS):
                await answer.write(b"data: %d\n\n" % number)
                await self.may_go_on.acquire()
        except asyncio.CancelledError:
            self.gone.set()
            raise
        return answer

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"one:{message.data}")
        self.gone.set()
        return socket

    async def _infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield b"one:" + request
        finally:
            self.gone.set()


@dataclasses.dataclass
class Way:
    """How requests reach the pod: from `zero`, `held` for their turn with the pod there, or `straight` to it."""

    kind: str
    ingress: Ingress
    pod: StreamingPod

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ingress.port}{PATH}"

    async def go(self, request: Coroutine[Any, Any, _T]) -> _T:
        """The request's outcome; its pod comes when it waits for one."""
        await self.ingress.publish(self._backend(has_pod=self.kind != "zero"))
        task = asyncio.create_task(request)
        try:
            if self.kind == "zero":
                await self._waits(task)
                await self.ingress.publish(self._backend(has_pod=True))
            return await asyncio.wait_for(task, LIMIT_S)
        finally:
            task.cancel()

    async def is_over(self) -> None:
        """Nothing waits, and no place is taken."""
        activator = self.ingress.activator
        await eventually(lambda: activator.in_progress("default/r") == 0, "all places to be free")
        assert activator.held() == {}

    async def _waits(self, task: asyncio.Task[Any]) -> None:
        waiting = asyncio.create_task(self.ingress.held(1))
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            raise AssertionError(f"not held: {task.exception() or task.result()}")
        await waiting

    def _backend(self, *, has_pod: bool) -> Backend:
        pods = [self.pod] if has_pod else []
        found = backend("r", *pods, concurrency=20)  # type: ignore[arg-type]
        return found if self.kind == "straight" else dataclasses.replace(found, mode=Mode.PROXY)


@asynccontextmanager
async def streaming_pod() -> AsyncIterator[StreamingPod]:
    pod = StreamingPod()
    await pod.start()
    try:
        yield pod
    finally:
        await pod.close()


@pytest.fixture(params=["zero", "held", "straight"])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Way]:
    async with running(tmp_path) as ingress, streaming_pod() as pod:
        yield Way(request.param, ingress, pod)
        await Way(request.param, ingress, pod).is_over()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def in_steps(pod: StreamingPod, parts: int, size: int) -> AsyncIterator[bytes]:
    """A body of which each part follows when the pod has got something of the one before."""
    for number in range(parts):
        yield bytes([number]) * size
        await pod.got.acquire()


def digest(parts: int, size: int) -> dict[str, Any]:
    whole = b"".join(bytes([number]) * size for number in range(parts))
    return {"length": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}


async def post(session: aiohttp.ClientSession, url: str, body: Any, **options: Any) -> Any:
    async with session.post(url, data=body, **options) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_a_body_of_20_mb_in_chunks(way: Way, client: aiohttp.ClientSession) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(20):
            yield bytes([number]) * MEBIBYTE

    assert await way.go(post(client, f"{way.url}/digest", chunks())) == digest(20, MEBIBYTE)


async def test_a_body_of_20_mb_with_its_length(way: Way, client: aiohttp.ClientSession) -> None:
    body = io.BytesIO(b"".join(bytes([number]) * MEBIBYTE for number in range(20)))
    assert await way.go(post(client, f"{way.url}/digest", body)) == digest(20, MEBIBYTE)


async def test_a_body_that_comes_in_steps(way: Way, client: aiohttp.ClientSession) -> None:
    body = in_steps(way.pod, _PARTS, 1000)
    assert await way.go(post(client, f"{way.url}/digest", body)) == digest(_PARTS, 1000)


async def test_a_body_that_is_sent_when_it_is_expected(way: Way, client: aiohttp.ClientSession) -> None:
    body = in_steps(way.pod, 3, 1000)
    assert await way.go(post(client, f"{way.url}/digest", body, expect100=True)) == digest(3, 1000)


async def test_an_answer_that_comes_in_events(way: Way, client: aiohttp.ClientSession) -> None:
    async def ask() -> list[bytes]:
        events = []
        async with client.get(f"{way.url}/events") as answer:
            assert answer.status == 200
            async for line in answer.content:
                if line.strip():
                    events.append(line.strip())
                    way.pod.may_go_on.release()
        return events

    assert await way.go(ask()) == [b"data: %d" % number for number in range(_PARTS)]


async def test_a_web_socket(way: Way, client: aiohttp.ClientSession) -> None:
    async def talk() -> list[str]:
        answers = []
        async with client.ws_connect(f"{way.url}/socket") as socket:
            for number in range(_PARTS):
                await socket.send_str(str(number))
                answers.append(await socket.receive_str())
        return answers

    assert await way.go(talk()) == [f"one:{number}" for number in range(_PARTS)]
    await asyncio.wait_for(way.pod.gone.wait(), LIMIT_S)


async def test_a_web_socket_of_a_cluster_local_service(way: Way, client: aiohttp.ClientSession) -> None:
    address = way.ingress.router.local_address(NAMESPACE, "flights")

    async def talk() -> str:
        async with client.ws_connect(f"http://{address}/socket") as socket:
            await socket.send_str("hello")
            return await socket.receive_str()

    assert await way.go(talk()) == "one:hello"


async def test_http2_with_prior_knowledge(way: Way) -> None:
    async def ask() -> list[Any]:
        async with httpx.AsyncClient(http1=False, http2=True, trust_env=False, timeout=LIMIT_S) as session:
            stepped = await session.post(f"{way.url}/digest", content=in_steps(way.pod, _PARTS, 1000))
            large = [
                session.post(f"{way.url}/digest", content=bytes([number]) * MEBIBYTE) for number in range(5)
            ]
            answers = [stepped, *await asyncio.gather(*large)]
        assert {answer.http_version for answer in answers} == {"HTTP/2"}
        return [answer.json() for answer in answers]

    stepped, *large = await way.go(ask())
    assert stepped == digest(_PARTS, 1000)
    assert [answer["length"] for answer in large] == [MEBIBYTE] * 5


async def test_a_call_in_both_directions(way: Way) -> None:
    async def talk() -> list[bytes]:
        answers = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{way.ingress.port}") as channel:
            stream = channel.stream_stream(f"{PATH}/{METHOD}")(timeout=LIMIT_S)
            for number in range(_PARTS):
                # The fourth is larger than any window on the way.
                await stream.write(b"%d" % number if number != 3 else bytes(3 * MEBIBYTE))
                answers.append(await stream.read())
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
        return answers

    answers = await way.go(talk())
    assert [len(answer) for answer in answers] == [5, 5, 5, 4 + 3 * MEBIBYTE, 5]
    assert way.pod.gone.is_set()


async def test_a_client_that_leaves_a_stream_frees_its_place(way: Way, client: aiohttp.ClientSession) -> None:
    async def leave_after_the_first_event() -> bytes:
        async with client.get(f"{way.url}/events") as answer:
            return await answer.content.readline()

    assert await way.go(leave_after_the_first_event()) == b"data: 0\n"
    await asyncio.wait_for(way.pod.gone.wait(), LIMIT_S)


async def test_who_leaves_while_it_waits_frees_its_place(tmp_path: Path) -> None:
    async with running(tmp_path) as ingress, streaming_pod() as pod:
        way = Way("zero", ingress, pod)
        await ingress.publish(way._backend(has_pod=False))
        async with (
            aiohttp.ClientSession() as one,
            httpx.AsyncClient(http1=False, http2=True, trust_env=False, timeout=LIMIT_S) as two,
            grpc.aio.insecure_channel(f"127.0.0.1:{ingress.port}") as channel,
        ):
            call = channel.stream_stream(f"{PATH}/{METHOD}")(timeout=LIMIT_S)
            requests: list[Awaitable[Any]] = [
                post(one, f"{way.url}/digest", in_steps(pod, 2, MEBIBYTE)),
                post(one, f"{way.url}/digest", in_steps(pod, 2, 1000), expect100=True),
                one.ws_connect(f"{way.url}/socket"),
                two.post(f"{way.url}/digest", content=in_steps(pod, 2, 1000)),
                call.write(b"0"),
            ]
            leaving = [asyncio.ensure_future(request) for request in requests]
            await ingress.held(len(leaving))
            call.cancel()
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            # This client takes no single request back, it closes its connection.
            await two.aclose()
            await way.is_over()
            # What stays is served.
            assert await way.go(post(one, f"{way.url}/digest", b"abc")) == {
                "length": 3, "sha256": hashlib.sha256(b"abc").hexdigest(),
            }  # fmt: skip
