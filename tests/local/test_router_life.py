"""How the router starts, recovers, refuses and ends; with the real Envoy."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import anyio
import psutil
import pytest
from local.router_upstreams import Client, Load, backend, entry, eventually, get, pods, running_router, table

from glowplug.errors import ConfigError, GlowplugError
from glowplug.router import Router, RouterConfig
from glowplug.router import router as router_module
from glowplug.spec.routes import Backend, Endpoint

PATH = "/serving/default/flights"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_what_was_published_before_is_served_from_the_first_request(tmp_path: Path) -> None:
    async with pods("one") as (pod,):
        router = Router(RouterConfig(tmp_path, port=0))
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        address = router.local_address("default", "flights")
        async with anyio.create_task_group() as tasks:
            await tasks.start(router.run)
            assert (await get(router.real_port, PATH))[0] == 200
            assert (await get(int(address.partition(":")[2]), "/"))[0] == 200
            tasks.cancel_scope.cancel()


async def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use") as caught:
            await Router(RouterConfig(tmp_path, port=port)).run()
    assert "--ingress-port" in caught.value.hint


async def test_two_routers_cannot_share_a_port(tmp_path: Path) -> None:
    async with running_router(tmp_path / "one") as router:
        with pytest.raises(ConfigError, match="is in use"):
            await Router(RouterConfig(tmp_path / "two", port=router.real_port)).run()
        assert (await get(router.real_port, "/"))[0] == 404


async def test_an_envoy_that_does_not_start_is_an_error_with_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        router_module, "envoy_command", lambda *_: ["/bin/sh", "-c", "echo no disk >&2; exit 3"]
    )
    with pytest.raises(GlowplugError, match=r"(?s)status 3.*no disk"):
        await Router(RouterConfig(tmp_path, port=0)).run()


async def test_a_first_table_that_envoy_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    router = Router(RouterConfig(tmp_path, port=0))
    bad = Backend("default/r", (Endpoint("default/bad", "127.0.0.1", 70000, None),), 0, 30.0)
    router.publish(table(entry("flights", r=100), bad))
    with pytest.raises(GlowplugError, match=r"first configuration.*less than or equal to 65535"):
        await router.run()


async def test_envoy_is_started_again_when_it_dies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pids: list[int] = []
    async with pods("one") as (pod,):
        router = Router(RouterConfig(tmp_path, port=0), on_pid=pids.append)
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        async with anyio.create_task_group() as tasks:
            await tasks.start(router.run)
            port = router.real_port
            assert pids == [router.pid]
            os.kill(pids[0], signal.SIGKILL)
            await eventually(lambda: len(pids) == 2, "no new Envoy")
            with anyio.fail_after(10):
                while True:
                    try:
                        assert (await get(port, PATH))[0] == 200
                        break
                    except OSError:
                        await asyncio.sleep(0.01)
            router.publish(table(entry("flights", r=100), backend("r")))
            assert await router.settled()
            assert (await get(port, PATH))[0] == 503
            tasks.cancel_scope.cancel()
    assert "Envoy ended with status -9" in caplog.text


async def test_what_envoy_refuses_is_reported_and_the_last_good_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_router(tmp_path) as router, pods("one") as (pod,):
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        assert await router.settled()
        bad = Backend("default/r", (Endpoint("default/bad", "127.0.0.1", 70000, None),), 0, 30.0)
        router.publish(table(entry("flights", r=100), bad))
        assert not await router.settled()
        assert "Envoy refused an update" in caplog.text
        assert "less than or equal to 65535" in caplog.text
        assert (await get(router.real_port, PATH))[0] == 200
        assert not await router.without("default/bad", timeout_s=0.05)

        router.publish(table(entry("fraud", r=100), backend("r", pod)))
        assert await router.settled()
        assert await router.without("default/bad")
        assert (await get(router.real_port, "/serving/default/fraud"))[0] == 200


async def test_a_full_disk_is_reported_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_router(tmp_path) as router, pods("one") as (pod,):
        # A folder where the file is to be written beside; the writing fails as it does without space.
        obstacle = tmp_path / "xds" / ".rds.json.tmp"
        obstacle.mkdir()
        monkeypatch.setattr(router_module, "_RETRY_INTERVAL_S", 0.05)
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        await eventually(lambda: "could not be written" in caplog.text, "no report")
        assert (await get(router.real_port, PATH))[0] == 404
        obstacle.rmdir()
        assert await router.settled()
        assert (await get(router.real_port, PATH))[0] == 200


async def test_unchanged_resources_are_not_written_again(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router, pods("one", "two") as (one, two):

        def written() -> dict[str, int]:
            return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "xds").iterdir()}

        router.publish(table(entry("flights", r=100), backend("r", one)))
        assert await router.settled()
        before = written()
        router.publish(table(entry("flights", r=100), backend("r", one, two)))
        assert await router.settled()
        assert written() == before
        router.publish(table(entry("flights", r=100), entry("fraud", r=100), backend("r", one, two)))
        assert await router.settled()
        assert {name for name, at in written().items() if at != before[name]} == {"rds.json"}


async def test_many_changes_at_once_become_one(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router, pods("one") as (pod,):
        for number in range(200):
            router.publish(table(entry(f"flights-{number}", r=100), backend("r", pod)))
        assert await router.settled()
        assert (await get(router.real_port, "/serving/default/flights-199"))[0] == 200
        assert (await get(router.real_port, "/serving/default/flights-198"))[0] == 404


async def test_a_stopping_router_finishes_what_is_in_flight(tmp_path: Path) -> None:
    async with pods("one", delay_s=0.4) as (pod,):
        router = Router(RouterConfig(tmp_path, port=0))
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        async with anyio.create_task_group() as tasks, Client(0) as client:
            run = anyio.CancelScope()

            async def running(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                with run:
                    await router.run(task_status=task_status)

            await tasks.start(running)
            client.port = port = router.real_port
            answer = asyncio.ensure_future(client.request(PATH))
            await eventually(lambda: pod.http.active == 1, "no request")
            run.cancel()
            assert (await answer)[0] == 200
        assert router.pid is None
        with pytest.raises(OSError):
            await get(port, PATH)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".sock")]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
async def test_envoy_does_not_outlive_a_router_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import anyio, pathlib, sys\n"
        "from glowplug.router import Router, RouterConfig\n"
        "router = Router(RouterConfig(pathlib.Path(sys.argv[1]), port=0), on_pid=lambda pid: print(pid, flush=True))\n"
        "anyio.run(router.run)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), stdout=asyncio.subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    envoy = psutil.Process(int(await process.stdout.readline()))
    await eventually(lambda: envoy.name() == "envoy", "no Envoy")
    process.kill()
    await process.wait()
    await eventually(
        lambda: not envoy.is_running() or envoy.status() == psutil.STATUS_ZOMBIE, "Envoy lives on"
    )


async def test_the_access_log_is_json_without_secrets_and_bounded(tmp_path: Path) -> None:
    config = {"access_log_max_bytes": 2000, "access_log_check_interval_s": 0.1}
    async with running_router(tmp_path, **config) as router, pods("one") as (pod,):
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        assert await router.settled()
        headers = "authorization: Bearer secret-1\r\ncookie: secret-2\r\nx-request-id: me\r\n"
        async with Client(router.real_port) as client:
            await client.request(f"{PATH}/v2?token=secret-3", headers=headers)
        log = router.access_log
        await eventually(lambda: log.exists() and log.stat().st_size > 0, "no access log")
        text = log.read_text()
        line = json.loads(text.splitlines()[0])
        assert (line["path"], line["status"], line["id"]) == (f"{PATH}/v2", 200, "me")
        assert (line["service"], line["cluster"], line["method"]) == ("default/flights", "default/r", "GET")
        assert "secret" not in text

        load = Load(router.real_port, PATH, clients=2)
        async with load.running():
            await eventually(log.with_name("access.log.1").exists, "not rotated")
        assert load.failures == []
        await eventually(lambda: log.exists() and log.stat().st_size > 0, "no new access log")


async def test_other_users_are_kept_out(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router:
        assert mode(tmp_path) == 0o700
        assert {name: mode(tmp_path / name) for name in os.listdir(tmp_path) if name.endswith(".sock")} == {
            "admin.sock": 0o600,
            "endpoints.sock": 0o600,
            "probe.sock": 0o600,
            "shadow.sock": 0o600,
        }
        sockets = [s for s in psutil.net_connections("inet") if s.pid == router.pid and s.status == "LISTEN"]
        assert [s.laddr for s in sockets] == [("127.0.0.1", router.real_port)]


async def test_a_directory_with_a_long_path_works(tmp_path: Path) -> None:
    async with running_router(tmp_path / ("long-" * 20)) as router, pods("one") as (pod,):
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        assert await router.settled()
        assert (await get(router.real_port, PATH))[0] == 200


async def test_an_idle_router_does_nothing(tmp_path: Path) -> None:
    async with running_router(tmp_path) as router, pods("one") as (pod,):
        router.publish(table(entry("flights", r=100), backend("r", pod)))
        assert await router.settled()
        envoy, mine = psutil.Process(router.pid), psutil.Process()

        def cpu_s() -> float:
            return sum(sum(process.cpu_times()[:2]) for process in (envoy, mine))

        before = cpu_s()
        await asyncio.sleep(2)
        # 0.5 % of a core is the goal; the clock's unit is 10 ms, so 2 s can tell 1 %.
        assert cpu_s() - before <= 0.03
