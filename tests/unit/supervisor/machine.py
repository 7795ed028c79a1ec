"""A supervisor with everything around it, for tests that run real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from unit.supervisor.fakes import FakeObjects, Object

from glowplug.spec import names
from glowplug.spec.kinds import POD
from glowplug.supervisor.agent import Supervisor
from glowplug.supervisor.config import MACHINE_PATH, SupervisorConfig
from glowplug.supervisor.images import ImageTable
from glowplug.supervisor.storage import Storage

ECHO = Path(__file__).parents[2] / "local" / "pods" / "echo.py"
DEADLINE_S = 15.0


class Machine:
    def __init__(self, data_dir: Path, images: ImageTable | None = None, **settings: Any) -> None:
        self.objects = FakeObjects()
        self.events: list[tuple[str, str, str]] = []
        self.unrouted: list[str] = []
        self.data_dir = data_dir
        settings.setdefault("backoff_base_s", 0.05)
        settings.setdefault("shutdown_grace_s", 2.0)
        env = {"PATH": os.environ["PATH"], "HOME": str(data_dir), "AWS_SECRET_ACCESS_KEY": "not-for-pods"}
        self.config = SupervisorConfig(data_dir, sys.executable, host_env=env, **settings)
        self.storage = Storage(data_dir, sys.executable, dict(os.environ), MACHINE_PATH)
        self.images = images or ImageTable()
        self.supervisor = self.new_supervisor()

    def new_supervisor(self) -> Supervisor:
        return Supervisor(
            self.objects,
            lambda regarding, type, reason, message: self.events.append((type, reason, message)),
            self.images,
            self.storage,
            lambda namespace, service: "127.0.0.1:9999" if service == "other" else None,
            self._unrouted,
            self.config,
        )

    async def _unrouted(self, pod: str) -> None:
        self.unrouted.append(pod)

    def pod(self, name: str) -> Object:
        return self.objects.get(POD, "default", name)

    def is_ready(self, name: str) -> bool:
        conditions = (self.pod(name).get("status") or {}).get("conditions") or ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def container(self, name: str, index: int = 0) -> Object:
        statuses = (self.pod(name).get("status") or {}).get("containerStatuses") or [{}]
        return statuses[index]

    def endpoint(self, name: str) -> Object:
        return json.loads(self.pod(name)["metadata"]["annotations"][names.ENDPOINT_PORTS])

    def exists(self, name: str) -> bool:
        return any(each["metadata"]["name"] == name for each in self.objects.list(POD))

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Wait, or fail with all that is known."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                pods = json.dumps([each.get("status") for each in self.objects.list(POD)], indent=1)
                raise AssertionError(f"not in time: {what}\n{pods}\n{self.events}")
            await asyncio.sleep(0.005)

    async def ready(self, name: str) -> None:
        await self.until(lambda: self.is_ready(name), f"{name} ready")

    async def ask(self, name: str, path: str = "/") -> Any:
        return await asyncio.to_thread(get, self.endpoint(name)["http"], path)

    async def logs(self, name: str, container: str = "main", **query: Any) -> str:
        return b"".join(
            [each async for each in self.supervisor.read("default", name, container, **query)]
        ).decode()


def get(port: int, path: str = "/") -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        body = answer.read()
    return json.loads(body) if body else None


@contextlib.asynccontextmanager
async def running(machine: Machine) -> AsyncIterator[Machine]:
    task = asyncio.create_task(machine.supervisor.run())
    try:
        yield machine
    finally:
        machine.supervisor.stop()
        await task


def a_pod(name: str, *containers: Object, **spec: Any) -> Object:
    annotations = spec.pop("annotations", {})
    labels = {names.REVISION_LABEL: name, **spec.pop("labels", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations, "labels": labels},
        "spec": {"containers": list(containers), **spec},
    }


def echo(name: str = "main", **fields: Any) -> Object:
    env = [{"name": key, "value": value} for key, value in fields.pop("environ", {}).items()]
    return {
        "name": name,
        "image": "example/echo",
        "command": ["python", str(ECHO)],
        **fields,
        "env": env + fields.get("env", []),
    }


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
