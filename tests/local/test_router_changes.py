"""A change of the table drops no request: load that never retries, while everything behind it moves."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from local.router_upstreams import Load, Pod, backend, entry, running_router, table

from glowplug.router import Router

CHANGES = 100


class Machine:
    """A service whose revisions and pods change at random, each change as the controllers make it."""

    def __init__(self, router: Router, rng: random.Random, *, concurrency: int) -> None:
        self.router = router
        self.rng = rng
        self.concurrency = concurrency
        self.revisions: dict[str, list[Pod]] = {}
        self.weights: dict[str, int] = {}
        self.all_pods: list[Pod] = []
        self.leaving: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.revisions = {"rev0": [await self.start_pod("rev0")]}
        self.weights = {"rev0": 100}
        self.publish()
        assert await self.router.settled()

    async def stop(self) -> None:
        await asyncio.gather(*self.leaving)
        for pod in (pod for pods in self.revisions.values() for pod in pods):
            await pod.close()

    def publish(self) -> None:
        backends = (
            backend(name, *pods, concurrency=self.concurrency) for name, pods in self.revisions.items()
        )
        self.router.publish(table(entry("flights", **self.weights), *backends))

    async def change(self) -> None:
        changes = [
            self.reweigh, self.scale_up, self.scale_down, self.move, self.add_revision, self.remove_revision,
        ]  # fmt: skip
        await self.rng.choice(changes)()

    async def start_pod(self, revision: str) -> Pod:
        pod = Pod(f"{revision}-{len(self.all_pods)}", delay_s=self.rng.choice([0.0, 0.003]))
        self.all_pods.append(pod)
        await pod.start()
        return pod

    async def stop_pod(self, pod: Pod) -> None:
        assert await self.router.without(pod.name)
        self.leaving.append(asyncio.create_task(pod.close(linger_s=0.2), name=pod.name))

    async def reweigh(self) -> None:
        names = sorted(self.revisions)
        cuts = sorted(self.rng.choices(range(101), k=len(names) - 1))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
        self.weights = dict(zip(names, parts, strict=True))
        self.publish()
        if self.rng.random() < 0.5:
            await self.router.settled()

    async def scale_up(self) -> None:
        revision = self.rng.choice(sorted(self.revisions))
        if len(self.revisions[revision]) < 3:
            self.revisions[revision].append(await self.start_pod(revision))
        self.publish()

    async def scale_down(self) -> None:
        revision = self.rng.choice(sorted(self.revisions))
        if len(self.revisions[revision]) > 1:
            pod = self.revisions[revision].pop(0)
            self.publish()
            await self.stop_pod(pod)

    async def move(self) -> None:
        revision = self.rng.choice(sorted(self.revisions))
        old = self.revisions[revision]
        self.revisions[revision] = [await self.start_pod(revision)]
        self.publish()
        for pod in old:
            await self.stop_pod(pod)

    async def add_revision(self) -> None:
        if len(self.revisions) < 3:
            name = f"rev{len(self.all_pods)}"
            self.revisions[name] = [await self.start_pod(name)]
            await self.reweigh()

    async def remove_revision(self) -> None:
        if len(self.revisions) > 1:
            old = self.revisions.pop(self.rng.choice(sorted(self.revisions)))
            await self.reweigh()
            for pod in old:
                await self.stop_pod(pod)


@pytest.mark.parametrize("concurrency", [0, 1])
async def test_no_request_fails_while_the_table_changes(tmp_path: Path, concurrency: int) -> None:
    async with running_router(tmp_path) as router:
        machine = Machine(router, random.Random(concurrency), concurrency=concurrency)
        await machine.start()
        load = Load(router.real_port, "/serving/default/flights", clients=8, grpc_clients=4)
        async with load.running():
            for _ in range(CHANGES):
                await machine.change()
            assert await router.settled()
        await machine.stop()
    assert load.failures == []
    assert sum(count for name, count in load.answers.items() if name.startswith("rest")) > 200
    assert sum(count for name, count in load.answers.items() if name.startswith("grpc")) > 100
    assert len(load.answers) > 10
    if concurrency:
        assert max(pod.http.most_active for pod in machine.all_pods) == concurrency
        assert max(pod.most_grpc_active for pod in machine.all_pods) == concurrency
