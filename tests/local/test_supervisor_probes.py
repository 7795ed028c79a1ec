"""Probes against real servers, and what they do to a container."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from unit.supervisor.machine import Machine, a_pod, echo, running

from glowplug.spec.kinds import POD
from glowplug.supervisor import grpc_health
from glowplug.supervisor.images import discover
from glowplug.supervisor.probes import Exec, Grpc, HttpGet, Probe, TcpSocket
from glowplug.supervisor.probing import ask


async def no_exec(argv: tuple[str, ...]) -> tuple[int, str]:
    raise AssertionError("not an exec probe")


def http(port: int, path: str = "/") -> Probe:
    return Probe(HttpGet("127.0.0.1", port, path), timeout_s=0.3)


@contextlib.asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[int]:
    """Answers every connection with `answer` and closes; None keeps silent."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(1)
        if answer is not None:
            writer.write(answer)
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for writer in connections:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.0 399 ?\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "statuscode: 503"),
        (b"HTTP/1.1 199 ?\r\n\r\n", "statuscode: 199"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"x" * 100_000, "not HTTP"),
        (b"", "0 bytes read"),
        (None, "timed out after 0.3s"),
    ],
)
async def test_an_http_probe(answer, failure):
    async with server(answer) as port:
        found = await ask(http(port), no_exec)
    assert found is None if failure is None else failure in found
    assert found is None or f"127.0.0.1:{port}" in found


async def test_a_tcp_probe_and_a_closed_port():
    async with server(None) as port:
        assert await ask(Probe(TcpSocket("127.0.0.1", port)), no_exec) is None
    found = await ask(Probe(TcpSocket("127.0.0.1", port)), no_exec)
    assert found == f"dial tcp 127.0.0.1:{port}: connection refused"


async def test_an_exec_probe():
    async def run(argv: tuple[str, ...]) -> tuple[int, str]:
        return (0, "") if argv == ("good",) else (3, "not today")

    assert await ask(Probe(Exec(("good",))), run) is None
    assert "code 3: not today" in (await ask(Probe(Exec(("bad",))), run) or "")


@contextlib.contextmanager
def health_server(answers: dict[str, bytes]):
    """A grpc.health.v1.Health whose answers are serialized messages by serialized request."""

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request not in answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answers[request]

    handler = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
    )
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


async def test_a_grpc_probe_against_grpcio():
    long = "a.service.with.a.name" * 10
    request = b"\x0a\xd2\x01" + long.encode()
    answers = {b"": b"\x08\x01", b"\x0a\x04warm": b"\x08\x02", request: b"\x08\x01", b"\x0a\x01u": b""}
    with health_server(answers) as port:
        assert await ask(Probe(Grpc(port, "")), no_exec) is None
        assert await ask(Probe(Grpc(port, long)), no_exec) is None
        assert await grpc_health.check("127.0.0.1", port, "warm") == "NOT_SERVING"
        assert await grpc_health.check("127.0.0.1", port, "u") == "UNKNOWN"
        found = await ask(Probe(Grpc(port, "missing")), no_exec)
        assert found is not None and "no health service" in found
    async with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert await ask(Probe(Grpc(port, ""), timeout_s=0.5), no_exec) is not None


async def test_liveness_restarts_and_startup_holds_it_back(tmp_path):
    container = echo(
        environ={"START_DELAY_S": "0.5"},
        startupProbe={"httpGet": {"path": "/health"}, "periodSeconds": 1, "failureThreshold": 30},
        livenessProbe={"httpGet": {"path": "/health"}, "periodSeconds": 0.05, "failureThreshold": 1},
        readinessProbe={"exec": {"command": ["sh", "-c", f"test -e ready || {sys.executable} -c 'exit(1)'"]}},
    )
    async with running(Machine(tmp_path)) as machine:
        pod = machine.objects.create(POD, a_pod("one", container))
        folder = tmp_path / "pods" / pod["metadata"]["uid"]
        await machine.until(lambda: machine.container("one").get("started"), "started")
        assert machine.container("one")["restartCount"] == 0
        assert not machine.is_ready("one")
        (folder / "ready").touch()
        await machine.ready("one")
        (folder / "sick").touch()
        await machine.until(lambda: machine.container("one")["lastState"].get("terminated"), "restarted")
        (folder / "sick").unlink()
        last = machine.container("one")["lastState"]["terminated"]
        assert last["message"].startswith("Liveness probe failed: GET http://127.0.0.1:")
        await machine.ready("one")
        assert (
            "Normal",
            "Killing",
            "Container main failed liveness probe, will be restarted",
        ) in machine.events


async def test_a_startup_probe_is_the_deadline_of_a_start(tmp_path):
    container = echo(
        environ={"START_DELAY_S": "60"},
        startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 0.1, "failureThreshold": 2},
    )
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("slow", container))
        await machine.until(lambda: machine.container("slow").get("restartCount", 0) >= 1, "given up")
        await machine.until(lambda: machine.container("slow")["lastState"].get("terminated"), "killed")
        message = machine.container("slow")["lastState"]["terminated"]["message"]
        assert "Startup probe failed" in message and "connection refused" in message


async def test_readiness_comes_and_goes_without_a_restart(tmp_path):
    container = echo(
        readinessProbe={"httpGet": {"path": "/health"}, "periodSeconds": 0.05, "failureThreshold": 2}
    )
    async with running(Machine(tmp_path)) as machine:
        pod = machine.objects.create(POD, a_pod("one", container))
        sick = tmp_path / "pods" / pod["metadata"]["uid"] / "sick"
        await machine.ready("one")
        sick.touch()
        await machine.until(lambda: not machine.is_ready("one"), "unready")
        sick.unlink()
        await machine.ready("one")
        assert machine.container("one")["restartCount"] == 0


async def test_what_never_gets_ready_says_where_it_was_asked(tmp_path):
    container = {
        "name": "main",
        "command": ["sleep", "600"],
        "readinessProbe": {"tcpSocket": {}, "periodSeconds": 0.1},
    }
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("mute", container))

        def message() -> str:
            conditions = (machine.pod("mute").get("status") or {}).get("conditions") or ()
            return next((each.get("message", "") for each in conditions if each["type"] == "Ready"), "")

        await machine.until(lambda: "connection refused" in message(), "hint")
        assert message().startswith("containers with unready status: [main]; main: dial tcp 127.0.0.1:")


async def test_a_unit_is_asked_at_its_own_readiness_path(tmp_path):
    unit = tmp_path / "units" / "thing"
    (unit / "src" / "thing").mkdir(parents=True)
    (unit / "pyproject.toml").write_text(
        '[tool.glowplug.unit]\nimage = "glowplug/thing"\nrun = "python -m thing"\nreadiness = "/health"\n'
    )
    source = Path(__file__).parent / "pods" / "echo.py"
    (unit / "src" / "thing" / "__main__.py").write_text(source.read_text())
    async with running(Machine(tmp_path / "data", discover([tmp_path / "units"]))) as machine:
        container = {
            "name": "kserve-container",
            "image": "ghcr.io/x/glowplug/thing:1.0",
            "args": ["--model_name=m"],
        }
        pod = machine.objects.create(POD, a_pod("one", container, restartPolicy="Always"))
        sick = tmp_path / "data" / "pods" / pod["metadata"]["uid"] / "sick"
        sick.parent.mkdir(parents=True)
        sick.touch()
        await machine.until(lambda: machine.container("one").get("started"), "started")
        await asyncio.to_thread(_wait_for_port, machine.endpoint("one")["http"])
        assert not machine.is_ready("one")
        sick.unlink()
        await machine.ready("one")
        answer = await machine.ask("one")
        assert answer["argv"] == ["--model_name=m"]
        assert answer["env"]["GRPC_PORT"] == str(machine.endpoint("one")["grpc"])


def _wait_for_port(port: int) -> None:
    import socket
    import time

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise AssertionError(f"nothing listens on {port}")
