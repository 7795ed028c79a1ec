"""Requests wait in a real Envoy, in the activator's hands, until a pod is free; clients never retry."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest
from local.router_upstreams import (
    Client,
    HttpServer,
    Load,
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
from glowplug.router import Router
from glowplug.spec.routes import Backend, Endpoint, Mode

PATH = "/serving/default/flights"


class Ingress:
    """A router and the activator behind it, told of each table as the machine tells them."""

    def __init__(self, config: ActivatorConfig) -> None:
        self.waited_for: list[str] = []
        self.activator = Activator(config, on_wait=self.waited_for.append)
        self.router: Router

    @property
    def port(self) -> int:
        return self.router.real_port

    async def publish(self, *backends: Backend, **splits: int) -> None:
        new = table(entry("flights", **(splits or {"r": 100})), *backends)
        self.activator.publish(new)
        self.router.publish(new)
        assert await self.router.settled()

    async def held(self, count: int, revision: str = "default/r") -> None:
        await eventually(
            lambda: self.activator.held().get(revision, 0) == count,
            f"{count} held requests of {revision}, there are {self.activator.held()}",
        )


@asynccontextmanager
async def running(
    directory: Path, config: ActivatorConfig | None = None, **options: object
) -> AsyncIterator[Ingress]:
    ingress = Ingress(config or ActivatorConfig())

    def on_pid(pid: int) -> None:
        ingress.activator.ingress_started()

    async with running_router(directory, on_pid=on_pid, **options) as router:
        ingress.router = router
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        run = ingress.activator.run(router.admission_socket, task_status=_Started(started))
        task = asyncio.create_task(run, name="activator")
        await started
        try:
            yield ingress
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Ingress]:
    async with running(tmp_path) as found:
        yield found


def held(name: str, *pods: Pod, concurrency: int = 20, timeout_s: float = 30.0) -> Backend:
    found = backend(name, *pods, concurrency=concurrency, timeout_s=timeout_s)
    return dataclasses.replace(found, mode=Mode.PROXY)


async def test_requests_of_every_protocol_wait_for_the_first_pod(ingress: Ingress) -> None:
    await ingress.publish(held("r"))
    async with pods("one") as (pod,):
        rest = [asyncio.create_task(get(ingress.port, PATH)) for _ in range(5)]
        grpc_calls = [asyncio.create_task(call(ingress.port, PATH)) for _ in range(5)]
        async with Client(ingress.port) as client:
            big = asyncio.create_task(client.request(PATH, body=bytes(4 << 20)))
            await ingress.held(11)
            assert ingress.waited_for == ["default/r"] * 11
            await ingress.publish(held("r", pod))
            assert {(status, body) for status, _, body in await asyncio.gather(*rest)} == {(200, b"one")}
            assert set(await asyncio.gather(*grpc_calls)) == {b"one:x"}
            assert (await big)[0] == 200
    assert ingress.activator.held() == {}


async def test_with_capacity_the_activator_is_out_of_the_path(ingress: Ingress) -> None:
    async with pods("one") as (pod,):
        await ingress.publish(backend("r", pod))
        for _ in range(20):
            assert (await get(ingress.port, PATH))[0] == 200
        assert ingress.activator.loads() == {}
        await ingress.publish(held("r", pod))
        assert (await get(ingress.port, PATH))[0] == 200
        assert await call(ingress.port, PATH) == b"one:x"
        assert ingress.activator.loads()["default/r"].requests == 2
        # Where pods take any number at a time, the activator would have nothing to say.
        await ingress.publish(held("s", pod, concurrency=0), s=100)
        assert (await get(ingress.port, PATH))[0] == 200
        assert ingress.activator.loads() == {}


async def test_a_pod_gets_no_more_than_its_container_concurrency(ingress: Ingress) -> None:
    async with pods("one", "two", delay_s=0.005) as (one, two):
        await ingress.publish(held("r", one, two, concurrency=2))
        load = Load(ingress.port, PATH, clients=10, grpc_clients=10)
        async with load.running():
            await eventually(lambda: sum(load.answers.values()) > 300, "300 answers", 20)
        assert load.failures == []
        for pod in (one, two):
            # REST and gRPC together: the activator counts requests, not connections.
            assert 1 <= pod.http.most_active <= 2
            assert 1 <= pod.most_grpc_active <= 2
        assert min(load.answers.values()) > 30
        assert len(load.answers) == 4


async def test_a_client_that_leaves_frees_its_place(ingress: Ingress) -> None:
    await ingress.publish(held("r"))
    waiting = [asyncio.create_task(get(ingress.port, PATH)) for _ in range(3)]
    calls = [asyncio.create_task(call(ingress.port, PATH)) for _ in range(3)]
    await ingress.held(6)
    for task in (*waiting[:2], *calls[:2]):
        task.cancel()
    await ingress.held(2)
    async with pods("one") as (pod,):
        await ingress.publish(held("r", pod))
        assert (await waiting[2])[0] == 200
        assert await calls[2] == b"one:x"
        assert (pod.http.requests, pod.grpc_requests) == (1, 1)


async def test_past_the_bound_the_largest_holder_gives_way(tmp_path: Path) -> None:
    async with running(tmp_path, ActivatorConfig(max_held=4)) as ingress:
        new = table(entry("flights", r=100), entry("other", s=100), held("r"), held("s"))
        ingress.activator.publish(new)
        ingress.router.publish(new)
        assert await ingress.router.settled()
        flood = []
        for count in range(1, 5):
            flood.append(asyncio.create_task(get(ingress.port, PATH)))
            await ingress.held(count)
        status, head, body = await get(ingress.port, PATH)
        assert status == 503
        assert "retry-after: 1" in head
        assert "default/r" in json.loads(body)["error"]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(ingress.port, PATH)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (refused.value.details() or "").startswith("4 requests wait already")

        other = asyncio.create_task(get(ingress.port, "/serving/default/other"))
        await ingress.held(1, "default/s")
        assert (await flood.pop())[0] == 503
        await ingress.held(3)
        for task in (*flood, other):
            task.cancel()
        await ingress.held(0)


async def test_a_wait_ends_with_the_deadline_of_the_revision_or_of_the_call(ingress: Ingress) -> None:
    await ingress.publish(held("r", timeout_s=0.5))
    status, head, body = await get(ingress.port, PATH)
    assert status == 503
    assert "retry-after: 1" in head
    assert "no replica of revision default/r was free for 0." in json.loads(body)["error"]
    await ingress.publish(held("r", timeout_s=30.0))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(ingress.port, PATH, timeout_s=0.3)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    await ingress.held(0)


async def test_who_has_failed_is_not_waited_for(ingress: Ingress) -> None:
    await ingress.publish(held("r"))
    waiting = asyncio.create_task(get(ingress.port, PATH))
    await ingress.held(1)
    await ingress.publish(backend("r"))
    status, _, body = await waiting
    assert status == 503
    assert "default/r has failed" in json.loads(body)["error"]
    assert (await get(ingress.port, PATH))[0] == 503


async def test_where_the_last_pod_has_died_requests_wait_before_anybody_was_told(ingress: Ingress) -> None:
    gone = HttpServer("gone")
    await gone.start()
    endpoint = Endpoint("default/gone", "127.0.0.1", gone.port, gone.port)
    await gone.close()
    # Straight to the pod, as far as anybody knows; it takes no connection. So Envoy asks the activator, which knows
    # no better at first.
    await ingress.publish(Backend("default/r", (endpoint,), 0, 30.0))
    waiting = [asyncio.create_task(get(ingress.port, PATH)) for _ in range(10)]
    await ingress.publish(held("r"))
    async with pods("one") as (pod,):
        await ingress.publish(held("r", pod))
        assert [(await task)[0] for task in waiting] == [200] * 10


async def test_a_dead_pod_costs_no_request(ingress: Ingress) -> None:
    gone = HttpServer("gone")
    await gone.start()
    endpoint = Endpoint("default/gone", "127.0.0.1", gone.port, gone.port)
    await gone.close()
    async with pods("one") as (pod,):
        both = Backend("default/r", (pod.endpoint, endpoint), 20, 30.0, Mode.PROXY)
        await ingress.publish(both)
        for _ in range(20):
            status, head, _ = await get(ingress.port, PATH)
            assert status == 200
            assert "x-glowplug" not in head
            assert await call(ingress.port, PATH) == b"one:x"


async def test_headers_of_a_client_choose_no_pod_and_no_revision(ingress: Ingress) -> None:
    async with pods("one", "two") as (one, two):
        await ingress.publish(held("r", one), held("s", two))
        spoofed = (
            f"x-envoy-original-dst-host: 127.0.0.1:{two.http.port}\r\nknative-serving-revision: s\r\n"
            "knative-serving-namespace: default\r\nx-glowplug-hold: mine\r\n"
        )
        async with Client(ingress.port) as client:
            for _ in range(5):
                assert (await client.request(PATH, headers=spoofed))[2] == b"one"


async def test_shares_are_kept_between_a_held_and_a_serving_revision(ingress: Ingress) -> None:
    async with pods("one", "two") as (one, two):
        await ingress.publish(backend("r", one), held("s", two), r=75, s=25)
        async with Client(ingress.port) as client:
            answers = [(await client.request(PATH))[2] for _ in range(400)]
        # Binomial(400, 0.25): 100 with a standard deviation of 8.7; 6 of them on either side.
        assert 48 <= answers.count(b"two") <= 152
        assert answers.count(b"one") == 400 - answers.count(b"two")


async def test_no_request_fails_while_the_activator_goes_in_and_out(ingress: Ingress) -> None:
    async with pods("one", "two", delay_s=0.002) as (one, two):
        # A revision's limit never changes.
        states = [
            held("r"), held("r", one), backend("r", one, concurrency=20), backend("r", one, two, concurrency=20),
            held("r", two),
        ]  # fmt: skip
        await ingress.publish(states[1])
        load = Load(ingress.port, PATH, clients=4, grpc_clients=4)
        async with load.running():
            for number in range(60):
                await ingress.publish(states[number % len(states)])
                if number % 5 == 0:
                    await asyncio.sleep(0.02)
            await ingress.publish(states[3])
        assert load.failures == []
        assert sum(load.answers.values()) > 100


async def test_what_waits_survives_nothing_but_a_new_envoy_starts_clean(ingress: Ingress) -> None:
    async with pods("one", delay_s=0.5) as (pod,):
        await ingress.publish(held("r", pod, concurrency=1))
        lost = [asyncio.create_task(get(ingress.port, PATH)) for _ in range(3)]
        await ingress.held(2)
        assert ingress.router.pid is not None
        os.kill(ingress.router.pid, signal.SIGKILL)
        answers = await asyncio.gather(*lost, return_exceptions=True)
        assert all(isinstance(answer, (OSError, asyncio.IncompleteReadError)) for answer in answers)
        await ingress.held(0)
        old = ingress.router.pid

        async def answers_again() -> int:
            with suppress(OSError, asyncio.IncompleteReadError):
                return (await get(ingress.port, PATH))[0]
            return 0

        for _ in range(200):
            if await answers_again() == 200:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail(f"no answer after Envoy {old} was killed")
        # The place of the request that died with Envoy is free again.
        assert (await get(ingress.port, PATH))[0] == 200
