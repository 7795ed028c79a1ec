"""A real API server on a free port in a thread of its own, and real clients against it."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import anyio
import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from glowplug.apiserver.objects import Objects
from glowplug.apiserver.server import ApiServer, ApiServerConfig, State

T = TypeVar("T")
KUBECTL = Path(sys.executable).parent / "kubectl"
ISVC = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"


@dataclass
class MemoryLog:
    """The output of one container, in memory: what a supervisor has on disk."""

    lines: list[bytes] = field(default_factory=list)
    is_over: bool = False
    readers: int = 0


class MemoryLogs:
    """A log source whose lines the test writes."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, str, str | None], MemoryLog] = {}
        self.asked: list[dict[str, Any]] = []

    def log(self, namespace: str, pod: str, container: str) -> MemoryLog:
        return self.logs.setdefault((namespace, pod, container), MemoryLog())

    async def read(
        self,
        namespace: str,
        pod: str,
        container: str | None,
        *,
        follow: bool,
        tail_lines: int | None,
        **others: Any,
    ) -> AsyncIterator[bytes]:
        self.asked.append(others)
        log = self.logs.setdefault((namespace, pod, container), MemoryLog())
        position = max(0, len(log.lines) - tail_lines) if tail_lines is not None else 0
        log.readers += 1
        try:
            while True:
                for line in log.lines[position:]:
                    yield line
                position = len(log.lines)
                if not follow or log.is_over:
                    return
                await anyio.sleep(0.005)
        finally:
            log.readers -= 1


class ApiLab:
    """One running API server, its objects, and ways to talk to it."""

    def __init__(self, portal: BlockingPortal, config: ApiServerConfig, home: Path) -> None:
        self.config = config
        self.logs = MemoryLogs()
        self._portal = portal
        self._home = home
        self.end: Callable[[], Any] = lambda: None
        self.state, self.server = portal.call(self._open)

    def stop(self) -> None:
        """End the server in order; the second time nothing happens."""
        end, self.end = self.end, lambda: None
        end()

    def _open(self) -> tuple[State, ApiServer]:
        state = State.open(self.config)
        try:
            return state, ApiServer(self.config, state, self.logs)
        except BaseException:
            state.close()
            raise

    @property
    def objects(self) -> Objects:
        return self.state.objects

    @property
    def url(self) -> str:
        return self.server.url

    def do(self, function: Callable[..., T], *args: Any) -> T:
        """Call something of the server's on its own thread."""
        return self._portal.call(function, *args)

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client that trusts the server and bears the token."""
        return httpx.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=str(self.server.pki.ca_cert)),
            headers={"authorization": f"Bearer {self.server.token}"},
            timeout=10,
            **options,
        )

    def environment(self) -> dict[str, str]:
        """The environment of a client process: the machine's kubeconfig and a home of its own."""
        keep = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
        return {**keep, "KUBECONFIG": str(self.config.kubeconfig), "HOME": str(self._home)}

    def kubectl(self, *args: str, stdin: str = "", code: int | None = 0, **env: str) -> str:
        """Run kubectl to its end: stdout, or with `code` other than 0 both outputs."""
        done = subprocess.run(
            [str(KUBECTL), *args],
            input=stdin,
            env={**self.environment(), **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        both = f"kubectl {' '.join(args)}\nstdout: {done.stdout}\nstderr: {done.stderr}"
        if code is not None:
            assert done.returncode == code, both
        return done.stdout if code == 0 else done.stdout + done.stderr

    @contextmanager
    def following(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """A kubectl that goes on until the block ends."""
        with subprocess.Popen(
            [str(KUBECTL), *args],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def api_server(folder: Path, **settings: Any) -> Iterator[ApiLab]:
    """An API server over `folder`, stopped in order at the end."""
    config = ApiServerConfig(data_dir=folder / "data", **{"port": 0, **settings})
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio"))
        lab = ApiLab(portal, config, home)
        stack.callback(portal.call, lab.state.close)
        stopped = portal.call(anyio.Event)
        serving, _ = portal.start_task(_serve, lab.server, stopped)
        lab.end = lambda: (portal.call(stopped.set), serving.result(20))
        stack.callback(lab.stop)
        yield lab


async def _serve(server: ApiServer, stopped: anyio.Event, *, task_status: Any) -> None:
    async with anyio.create_task_group() as group:
        await group.start(server.run)
        task_status.started()
        await stopped.wait()
        group.cancel_scope.cancel()


def wait_until(condition: Callable[[], T], deadline_s: float = 10.0) -> T:
    """The first true value of the condition; an AssertionError after the deadline."""
    end = monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert monotonic() < end, f"not true within {deadline_s} s, last was {value!r}"
        sleep(0.01)


def config_map(name: str, namespace: str = "default", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def isvc(name: str, uri: str = "pvc://models/flights", **metadata: Any) -> dict[str, Any]:
    """A small InferenceService."""
    model = {"modelFormat": {"name": "xgboost"}, "protocolVersion": "v2", "storageUri": uri}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {"predictor": {"model": model}},
    }


def lines_of(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a watch."""
    for line in response.iter_lines():
        yield json.loads(line)
