from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest
from unit.controllers.fakes import HANG, FakeNode, FakeObjects, FixedAutoscaler, Object
from unit.controllers.machine import inference_service, is_ready, knative_service, runtime

from glowplug.controllers import Controllers, ControllersConfig
from glowplug.errors import StoreFull
from glowplug.spec import kinds
from glowplug.spec.routes import RouteTable

FAST = ControllersConfig(retire_delay_s=0, retry_base_s=0.01)
MIN_ONE = {"autoscaling.knative.dev/min-scale": "1"}


class Running:
    """The real loop on the real clock, over the in-memory API."""

    def __init__(self, publish: Callable[[RouteTable], Awaitable[bool | None] | None] | None = None) -> None:
        self.objects = FakeObjects(time.time)
        self.node = FakeNode(self.objects, time.time)
        self.tables: list[RouteTable] = []
        self.controllers = Controllers(
            self.objects, lambda *event: None, publish or self.publish, FixedAutoscaler(), FAST
        )

    def publish(self, table: RouteTable) -> None:
        self.tables.append(table)

    def status(self, kind: kinds.Kind, name: str) -> str:
        try:
            obj = self.objects.get(kind, "default", name)
        except Exception:
            return "absent"
        found = [c["status"] for c in obj.get("status", {}).get("conditions", ()) if c["type"] == "Ready"]
        return found[0] if found else "none"

    def ready_pods(self) -> list[Object]:
        return [pod for pod in self.objects.list(kinds.POD) if is_ready(pod)]

    async def until(self, is_met: Callable[[], bool]) -> None:
        with anyio.fail_after(20):
            while not is_met():
                self.node.step()
                self.objects.collect_garbage()
                await asyncio.sleep(0.002)


async def test_a_service_is_brought_up_changed_and_deleted() -> None:
    running = Running()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        running.objects.create(kinds.KNATIVE_SERVICE, knative_service(annotations=MIN_ONE))
        await running.until(lambda: running.status(kinds.KNATIVE_SERVICE, "web") == "True")
        service = running.objects.get(kinds.KNATIVE_SERVICE, "default", "web")
        service["spec"]["template"]["spec"]["containers"][0]["image"] = "app:2"
        running.objects.update(kinds.KNATIVE_SERVICE, service)
        await running.until(lambda: running.tables[-1].backends[0].revision == "default/web-00002")
        running.objects.delete(kinds.KNATIVE_SERVICE, "default", "web")
        await running.until(lambda: not running.objects.live and running.tables[-1] == RouteTable())
        tasks.cancel_scope.cancel()
    assert running.controllers.errors == {}


async def test_nothing_runs_while_nothing_changes() -> None:
    running = Running()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        running.objects.create(kinds.CLUSTER_SERVING_RUNTIME, runtime())
        for number in range(10):
            running.objects.create(kinds.INFERENCE_SERVICE, inference_service(f"m{number}"))
        await running.until(
            lambda: all(running.status(kinds.INFERENCE_SERVICE, f"m{n}") == "True" for n in range(10))
        )
        # The last echoes of the watch.
        await running.until(lambda: not running.objects.changes)
        await asyncio.sleep(0.05)
        steps = 0
        step = running.controllers.step

        def counted() -> bool:
            nonlocal steps
            steps += 1
            return step()

        running.controllers.step = counted  # type: ignore[method-assign]
        writes, tables = running.objects.writes, len(running.tables)
        await asyncio.sleep(0.5)
        assert (steps, running.objects.writes, len(running.tables)) == (0, writes, tables)
        tasks.cancel_scope.cancel()


async def test_a_timer_ends_on_time() -> None:
    running = Running()
    annotations = {**MIN_ONE, "serving.knative.dev/progress-deadline": "2s"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        service = knative_service(image=f"app-{HANG}", annotations=annotations)
        running.objects.create(kinds.KNATIVE_SERVICE, service)
        await running.until(lambda: len(running.objects.list(kinds.POD)) == 1)
        await running.until(lambda: running.status(kinds.REVISION, "web-00001") == "False")
        await running.until(lambda: running.objects.list(kinds.POD) == [])
        tasks.cancel_scope.cancel()


async def test_a_route_is_ready_and_an_old_revision_retires_only_when_the_router_has_taken_the_table() -> (
    None
):
    taken = asyncio.Event()
    tables: list[RouteTable] = []

    async def publish(table: RouteTable) -> bool:
        tables.append(table)
        await taken.wait()
        return True

    running = Running(publish)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        running.objects.create(kinds.KNATIVE_SERVICE, knative_service(annotations=MIN_ONE))
        await running.until(lambda: len(running.ready_pods()) == 1)
        await asyncio.sleep(0.05)
        assert running.status(kinds.KNATIVE_SERVICE, "web") == "Unknown"
        taken.set()
        await running.until(lambda: running.status(kinds.KNATIVE_SERVICE, "web") == "True")
        taken.clear()
        service = running.objects.get(kinds.KNATIVE_SERVICE, "default", "web")
        service["spec"]["template"]["spec"]["containers"][0]["image"] = "app:2"
        running.objects.update(kinds.KNATIVE_SERVICE, service)
        await running.until(lambda: tables[-1].routes[0].splits[0].revision == "default/web-00002")
        await asyncio.sleep(0.1)
        assert len(running.ready_pods()) == 2, "Envoy may still send requests to the old one"
        taken.set()
        await running.until(lambda: len(running.objects.list(kinds.POD)) == 1)
        tasks.cancel_scope.cancel()


async def test_all_that_there_was_is_routed_once_the_router_has_taken_the_first_table() -> None:
    taken = asyncio.Event()
    tables: list[RouteTable] = []

    async def publish(table: RouteTable) -> bool:
        tables.append(table)
        await taken.wait()
        return True

    running = Running(publish)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        await running.until(lambda: bool(tables))
        with pytest.raises(TimeoutError), anyio.fail_after(0.02):
            await running.controllers.has_routed()
        taken.set()
        with anyio.fail_after(5):
            await running.controllers.has_routed()
        tasks.cancel_scope.cancel()


async def test_pods_outlive_their_route_until_the_router_has_let_go_of_it() -> None:
    taken = asyncio.Event()
    taken.set()
    tables: list[RouteTable] = []

    async def publish(table: RouteTable) -> None:
        tables.append(table)
        await taken.wait()

    running = Running(publish)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        template = knative_service(annotations=MIN_ONE)["spec"]["template"]
        for kind, spec in (
            (kinds.CONFIGURATION, {"template": template}),
            (kinds.ROUTE, {"traffic": [{"configurationName": "a", "latestRevision": True, "percent": 100}]}),
        ):
            metadata = {"name": "a", "namespace": "default"}
            running.objects.create(
                kind, {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": spec}
            )
        await running.until(lambda: running.status(kinds.ROUTE, "a") == "True")
        taken.clear()
        running.objects.delete(kinds.ROUTE, "default", "a")
        await running.until(lambda: tables[-1].routes == ())
        await asyncio.sleep(0.1)
        assert len(running.ready_pods()) == 1
        taken.set()
        await running.until(lambda: running.objects.list(kinds.POD) == [])
        await running.until(lambda: tables[-1] == RouteTable())
        tasks.cancel_scope.cancel()


async def test_a_table_that_the_router_refuses_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    attempts = 0

    async def publish(table: RouteTable) -> bool:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError("no space left on device")
        return attempts > 2

    running = Running(publish)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        running.objects.create(kinds.KNATIVE_SERVICE, knative_service(annotations=MIN_ONE))
        await running.until(lambda: running.status(kinds.KNATIVE_SERVICE, "web") == "True")
        tasks.cancel_scope.cancel()
    assert running.controllers.errors == {"RouteTable": 2}
    assert "the route table could not be published" in caplog.text


async def test_a_failing_key_backs_off_is_counted_and_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = Running()
    create = running.objects.create
    is_full = True

    def refuse(kind: kinds.Kind, obj: Object) -> Object:
        if is_full and kind == kinds.POD and obj["metadata"]["name"].startswith("bad"):
            raise StoreFull("no space left on device")
        return create(kind, obj)

    running.objects.create = refuse  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        create(kinds.KNATIVE_SERVICE, knative_service("bad", annotations=MIN_ONE))
        create(kinds.KNATIVE_SERVICE, knative_service("good", annotations=MIN_ONE))
        await running.until(lambda: running.status(kinds.KNATIVE_SERVICE, "good") == "True")
        await running.until(lambda: running.controllers.errors.get("Revision", 0) >= 3)
        assert "Revision default/bad-00001 could not be reconciled" in caplog.text
        is_full = False
        await running.until(lambda: running.status(kinds.KNATIVE_SERVICE, "bad") == "True")
        tasks.cancel_scope.cancel()


async def test_a_conflict_is_looked_at_again_without_an_error(caplog: pytest.LogCaptureFixture) -> None:
    running = Running()
    update_status = running.objects.update_status
    conflicts = 0

    def meddle(kind: kinds.Kind, obj: Object) -> Object:
        nonlocal conflicts
        if kind == kinds.KNATIVE_SERVICE and conflicts < 3:
            conflicts += 1
            live = running.objects.get(kind, "default", "web")
            live["metadata"]["labels"] = {"seen": str(conflicts)}
            running.objects.update(kind, live)
        return update_status(kind, obj)

    running.objects.update_status = meddle  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.controllers.run)
        running.objects.create(kinds.KNATIVE_SERVICE, knative_service(annotations=MIN_ONE))
        await running.until(lambda: running.status(kinds.KNATIVE_SERVICE, "web") == "True")
        tasks.cancel_scope.cancel()
    assert conflicts == 3
    assert running.controllers.errors == {}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
