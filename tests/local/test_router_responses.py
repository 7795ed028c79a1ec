"""What the page of metrics says of revisions' answers is what callers saw; with the real Envoy."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import grpc
import grpc.aio
import pytest
from local.router_upstreams import (
    Client,
    HttpServer,
    Pod,
    _Started,
    backend,
    call,
    entry,
    eventually,
    get,
    pods,
    running_router,
    table,
)

from glowplug.activator import Activator, ActivatorConfig
from glowplug.local import responses
from glowplug.rollout.evidence import Evidence, NoEvidence
from glowplug.rollout.sources import MachineSource
from glowplug.router import Router
from glowplug.spec.routes import Backend, Endpoint, Mode, RouteEntry

PATH = "/serving/default/flights"


class Answers(HttpServer):
    """Answers with the status that the path ends with."""

    async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        code = head.split(b" ", 2)[1].rpartition(b"/")[2]
        writer.write(b"HTTP/1.1 " + code + b" x\r\ncontent-length: 0\r\n\r\n")


class Fails(Pod):
    """Its gRPC fails with this status."""

    def __init__(self, status: grpc.StatusCode) -> None:
        super().__init__("one")
        self._status = status

    async def _infer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:  # type: ignore[type-arg]
        await context.abort(self._status, "as asked for")
        raise AssertionError


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with running_router(tmp_path) as running:
        yield running


async def publish(router: Router, *parts: RouteEntry | Backend) -> None:
    router.publish(table(*parts))
    assert await router.settled()


@asynccontextmanager
async def serving(server: HttpServer) -> AsyncIterator[Backend]:
    await server.start()
    try:
        yield Backend("default/r", (Endpoint("default/x", "127.0.0.1", server.port, None),), 0, 30.0)
    finally:
        await server.close()


async def answered(router: Router, revision: str = "default/r", **expected: int) -> None:
    """Waits until these answers are counted, and no others; Envoy counts when a request is over on its side."""
    wanted = {f"{code[-1]}xx": count for code, count in expected.items()}

    async def found() -> bool:
        counted = (await router.responses()).get(revision)
        return counted is not None and dict(counted.answered) == wanted

    await once(found)


async def once(is_true: Callable[[], Awaitable[bool]]) -> None:
    """Waits for it."""
    with anyio.fail_after(10):
        while True:
            if await is_true():
                return
            await asyncio.sleep(0.02)


async def test_answers_are_counted_by_the_revision_that_gave_them(router: Router) -> None:
    async with pods("one", "two") as (one, two):
        await publish(router, entry("flights", a=100), backend("a", one), backend("b", two))
        for _ in range(7):
            await get(router.real_port, PATH)
        await publish(router, entry("flights", b=100), backend("a", one), backend("b", two))
        for _ in range(3):
            await call(router.real_port, PATH)
        await answered(router, "default/a", c2=7)
        await answered(router, "default/b", c2=3)
        counted = await router.responses()
        assert sum(counted["default/a"].times.values()) == 7
        assert sum(counted["default/b"].times.values()) == 3


async def test_answers_are_counted_by_class(router: Router) -> None:
    async with serving(Answers("one")) as revision:
        await publish(router, entry("flights", r=100), revision)
        for code in (200, 204, 302, 404, 421, 429, 500, 500, 503):
            assert (await get(router.real_port, f"{PATH}/{code}"))[0] == code
        await answered(router, c2=2, c3=1, c4=3, c5=3)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", "c4"),
        ("NOT_FOUND", "c4"),
        ("FAILED_PRECONDITION", "c4"),
        ("RESOURCE_EXHAUSTED", "c4"),
        ("UNKNOWN", "c5"),
        ("INTERNAL", "c5"),
        ("UNAVAILABLE", "c5"),
        ("UNIMPLEMENTED", "c5"),
        ("DATA_LOSS", "c5"),
        ("DEADLINE_EXCEEDED", "c5"),
    ],
)
async def test_errors_of_grpc_are_in_its_status(router: Router, status: str, kind: str) -> None:
    pod = Fails(grpc.StatusCode[status])
    await pod.start()
    try:
        await publish(router, entry("flights", r=100), backend("r", pod))
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(router.real_port, PATH)
            assert caught.value.code().name == status
        await answered(router, **{kind: 2})
    finally:
        await pod.close()


async def test_nobody_else_can_say_which_revision_it_was(router: Router) -> None:
    """A caller's header would make a statistic of each word that it thinks of."""
    async with pods("one") as (pod,):
        await publish(router, entry("flights", r=100), entry("asleep", s=100), backend("r", pod))
        forged = "knative-serving-revision: forged\r\nknative-serving-namespace: default\r\n"
        async with Client(router.real_port) as client:
            for path in (PATH, "/serving/default/asleep", "/nowhere"):
                await client.request(path, headers=forged)
        await answered(router, c2=1)
        router.publish(table(backend("forged", pod), entry("flights", forged=100)))
        assert await router.settled()
        assert "default/forged" not in await router.responses()


async def test_the_wait_for_a_pod_is_not_its_time(tmp_path: Path) -> None:
    activator = Activator(ActivatorConfig(), on_wait=lambda revision: None)
    async with running_router(tmp_path, on_pid=lambda pid: activator.ingress_started()) as router:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        run = activator.run(router.admission_socket, task_status=_Started(started))
        task = asyncio.create_task(run, name="activator")
        await started
        try:
            await _hold(router, activator)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _hold(router: Router, activator: Activator) -> None:
    async def publish_all(*pods: Pod) -> None:
        new = table(entry("flights", r=100), dataclasses.replace(backend("r", *pods), mode=Mode.PROXY))
        activator.publish(new)
        router.publish(new)
        assert await router.settled()

    await publish_all()
    requests = [asyncio.create_task(get(router.real_port, PATH)) for _ in range(3)]
    calls = [asyncio.create_task(call(router.real_port, PATH)) for _ in range(2)]
    await eventually(lambda: activator.held().get("default/r") == 5, "five held requests")
    await asyncio.sleep(1.0)  # The wait that must not be counted.
    async with pods("one") as (pod,):
        await publish_all(pod)
        assert {status for status, _, _ in await asyncio.gather(*requests)} == {200}
        await asyncio.gather(*calls)
        await answered(router, c2=5)

        async def all_timed() -> bool:
            return sum((await router.responses())["default/r"].times.values()) == 5

        await once(all_timed)
        assert max((await router.responses())["default/r"].times) < 1_000_000


async def test_the_judge_s_source_reads_the_page(router: Router) -> None:
    source = MachineSource(lambda: responses.metrics(router))
    async with pods("one", "two", delay_s=0.02) as (one, two):
        await publish(router, entry("flights", a=50, b=50), backend("a", one), backend("b", two))
        assert isinstance(await source.read("default/b", "default/a"), NoEvidence)
        await asyncio.gather(*(get(router.real_port, PATH) for _ in range(40)))
        seen: list[Evidence] = []
        while sum(evidence.canary.requests + evidence.stable.requests for evidence in seen) < 40:
            evidence = await source.read("default/b", "default/a")
            assert isinstance(evidence, Evidence)
            seen.append(evidence)
        assert sum(evidence.canary.requests for evidence in seen) == two.http.requests
        assert sum(evidence.stable.requests for evidence in seen) == one.http.requests


async def test_envoy_started_anew_begins_at_zero(router: Router) -> None:
    source = MachineSource(lambda: responses.metrics(router))
    async with pods("one") as (pod,):
        await publish(router, entry("flights", r=100), backend("r", pod))
        for _ in range(5):
            await get(router.real_port, PATH)
        await answered(router, c2=5)
        await source.read("default/r", "default/r")
        before = router.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: router.pid not in (None, before), "another Envoy")
        assert await router.settled()

        async def is_served() -> bool:
            with suppress(OSError):
                return (await get(router.real_port, PATH))[0] == 200
            return False

        await once(is_served)
        await answered(router, c2=1)
        evidence = await source.read("default/r", "default/r")
        assert isinstance(evidence, Evidence)
        assert evidence.canary.requests == 1
