"""Hundreds of requests wait in a real Envoy: in order, none lost, and nothing of them stays behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import psutil
from local.router_upstreams import METHOD, Client, Pod, pods
from local.test_activator import PATH, Ingress, held, running

from glowplug.activator.throttler import Admission, Ticket
from glowplug.activator.waiting import Outcome

_WAVE = 150
# What an allocator rounds up and what a second wave's connections find fragmented, over some 25 MB of the first.
_SLACK_BYTES = 4 << 20


class Crowd:
    """Clients on connections of their own, and gRPC calls on one; what they got, in the order of the answers."""

    def __init__(self, ingress: Ingress, stack: AsyncExitStack) -> None:
        self.answers: list[tuple[str, int]] = []
        self._ingress = ingress
        self._stack = stack
        self._tasks: list[asyncio.Task[None]] = []

    async def rest(self, wave: str, count: int, *, requests: int = 1) -> None:
        """`count` clients that send `requests` each, one after another."""
        for number in range(count):
            client = await self._stack.enter_async_context(Client(self._ingress.port))
            self._tasks.append(asyncio.create_task(self._ask(client, wave, number, requests)))

    async def grpc(self, wave: str, count: int) -> None:
        """`count` calls on one connection."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._ingress.port}")
        await self._stack.enter_async_context(channel)
        method = channel.unary_unary(f"{PATH}/{METHOD}")
        for number in range(count):
            self._tasks.append(asyncio.create_task(self._call(method, wave, number)))

    async def done(self) -> None:
        """All are answered; raises what went wrong."""
        await asyncio.gather(*self._tasks)

    async def _ask(self, client: Client, wave: str, number: int, requests: int) -> None:
        for turn in range(requests):
            status, _, body = await client.request(f"{PATH}/{number}/{turn}", body=b"x" * 100)
            assert (status, body) == (200, b"one")
            self.answers.append((wave, number))

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable, wave: str, number: int) -> None:
        assert await method(b"%d" % number, timeout=60) == b"one:%d" % number
        self.answers.append((wave, number))


@asynccontextmanager
async def crowd(ingress: Ingress) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(ingress, stack)


async def test_who_came_first_goes_first_whatever_its_protocol(tmp_path: Path) -> None:
    async with running(tmp_path) as ingress, pods("one") as (pod,), crowd(ingress) as clients:
        admitted = admissions_of(ingress)
        await ingress.publish(held("r", concurrency=4))
        for wave, send in (("a", clients.rest), ("b", clients.grpc), ("c", clients.rest)):
            await send(wave, _WAVE)
            await ingress.held((ord(wave) - ord("a") + 1) * _WAVE)
        await ingress.publish(held("r", pod, concurrency=4))
        await clients.done()
        assert len(clients.answers) == len(set(clients.answers)) == 3 * _WAVE
        assert (pod.http.requests, pod.grpc_requests) == (2 * _WAVE, _WAVE)
        assert admitted == ["rest"] * _WAVE + ["grpc"] * _WAVE + ["rest"] * _WAVE


def admissions_of(ingress: Ingress) -> list[str]:
    """The protocol of each request, as they are let go: how soon a pod or a client sees them says more of those."""
    admitted: list[str] = []
    answer = ingress.activator._answer

    def answer_noted(outcomes: Iterable[Outcome]) -> None:
        found = list(outcomes)
        admitted.extend(
            "grpc" if outcome.ticket.is_grpc else "rest"
            for outcome in found
            if isinstance(outcome, Admission)
        )
        answer(found)

    ingress.activator._answer = answer_noted  # type: ignore[method-assign]
    return admitted


async def test_a_client_s_requests_stay_in_order_and_nothing_of_them_stays_behind(tmp_path: Path) -> None:
    async with running(tmp_path) as ingress, pods("one") as (pod,):
        assert ingress.router.pid is not None
        envoy = psutil.Process(ingress.router.pid)
        peaks = [await _a_wave(ingress, pod, envoy) for _ in range(3)]
        # What a wave took is there for the next one, else its 25 MB would show.
        assert peaks[2] - peaks[1] < _SLACK_BYTES, peaks
        assert [each for each in gc.get_objects() if type(each) is Ticket] == []


async def _a_wave(ingress: Ingress, pod: Pod, envoy: psutil.Process) -> int:
    """Hold a wave, let it go, and see it leave; Envoy's resident bytes while it was held."""
    pod.http.heads.clear()
    await ingress.publish(held("r", concurrency=8))
    async with crowd(ingress) as clients:
        await clients.rest("a", _WAVE, requests=3)
        await clients.grpc("b", _WAVE)
        await ingress.held(2 * _WAVE)
        resident = int(envoy.memory_info().rss)
        await ingress.publish(held("r", pod, concurrency=8))
        await clients.done()
    turns: dict[str, list[str]] = {}
    for head in pod.http.heads:
        *_, number, turn = head.split(b" ", 2)[1].decode().split("/")
        turns.setdefault(number, []).append(turn)
    assert len(turns) == _WAVE
    assert set(map(tuple, turns.values())) == {("0", "1", "2")}
    assert ingress.activator.held() == {}
    await _until_over(ingress)
    gc.collect()
    return resident


async def _until_over(ingress: Ingress) -> None:
    """Envoy has told of every end."""
    for _ in range(500):
        if not ingress.activator.in_progress("default/r"):
            # The meter of a revision that nobody asks goes with the next reading.
            ingress.activator.loads()
            return
        await asyncio.sleep(0.01)
    raise AssertionError("requests are still said to be in flight")
