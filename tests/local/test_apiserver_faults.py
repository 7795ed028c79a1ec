"""What goes wrong around the API server: kills, full disks, ports in use, ends with streams open."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from local.apiserver_fixture import ISVC, api_server, config_map, isvc, lines_of, wait_until

from glowplug.apiserver.server import ApiServerConfig, State
from glowplug.errors import ConfigError, DataDirHeld
from glowplug.spec.kinds import CONFIG_MAP, NAMESPACE

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
# A server in a process of its own; says where it is when it answers.
SERVER = """
import sys
from pathlib import Path
import anyio
from glowplug.apiserver.server import ApiServer, ApiServerConfig, State

async def main():
    config = ApiServerConfig(data_dir=Path(sys.argv[1]), port=0)
    state = State.open(config)
    server = ApiServer(config, state, None)
    async with anyio.create_task_group() as group:
        await group.start(server.run)
        print(server.url, server.token, flush=True)

anyio.run(main)
"""


def child(folder: Path) -> tuple[subprocess.Popen[str], httpx.Client]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url, token = process.stdout.readline().split()
    context = ssl.create_default_context(cafile=str(folder / "pki" / "ca.crt"))
    return process, httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, verify=context)


def end(process: subprocess.Popen[str], client: httpx.Client) -> None:
    """Kill the server and let go of everything."""
    process.kill()
    process.wait()
    client.close()
    if process.stdout:
        process.stdout.close()


def test_kill_loses_no_acknowledged_write(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    asked: set[str] = set()
    for round_ in range(3):
        process, client = child(tmp_path)

        def write(worker: int, round_: int = round_, client: httpx.Client = client) -> None:
            number = 0
            while True:
                name, value = f"w{worker}-{number % 20}", f"{round_}.{number}"
                asked.add(f"{name}={value}")
                obj = config_map(name, value=value, filler="x" * 3000)
                try:
                    answer = client.post(CONFIG_MAPS, json=obj)
                    if answer.status_code == 409:
                        answer = client.put(f"{CONFIG_MAPS}/{name}", json=obj)
                except httpx.HTTPError:
                    return
                assert answer.status_code in (200, 201), answer.text
                acknowledged[name] = value
                number += 1

        workers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        before = len(asked)
        wait_until(lambda before=before: len(asked) > before + 60)  # type: ignore[misc]
        process.kill()
        for worker in workers:
            worker.join(10)
        end(process, client)

        state = State.open(ApiServerConfig(data_dir=tmp_path))
        found = {one["metadata"]["name"]: one for one in state.objects.list(CONFIG_MAP, "default")}
        for name, value in acknowledged.items():
            live = found[name]["data"]["value"]
            # What was asked for and not yet acknowledged may be there too, whole.
            assert live == value or (f"{name}={live}" in asked and live > ""), (name, value, live)
            assert _order(live) >= _order(value)
        for one in found.values():
            assert one["data"]["filler"] == "x" * 3000
            assert int(one["metadata"]["resourceVersion"]) <= state.objects.revision
        state.close()
    assert len(acknowledged) >= 40


def _order(value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split("."))


def test_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    with api_server(tmp_path) as lab, lab.client() as http:
        kept = http.post(CONFIG_MAPS, json=config_map("kept", a="1")).json()
        database = lab.state.store._database

        def limit(pages: int) -> None:
            database.execute(f"PRAGMA max_page_count = {pages}")

        (pages,) = lab.do(lambda: database.execute("PRAGMA page_count").fetchone())
        lab.do(limit, pages)
        refused = http.post(CONFIG_MAPS, json=config_map("big", a="x" * 500_000))
        found = refused.json()
        assert (refused.status_code, found["reason"]) == (507, "InsufficientStorage")
        assert "free some space" in found["message"]
        assert found["details"]["name" if "name" in found["details"] else "kind"]
        assert http.get(f"{CONFIG_MAPS}/kept").json() == kept
        assert http.get(f"{CONFIG_MAPS}/big").status_code == 404
        assert http.get("/readyz").text == "ok"
        lab.do(limit, 10**6)
        assert http.post(CONFIG_MAPS, json=config_map("big", a="x" * 500_000)).status_code == 201


def test_disk_that_takes_no_more(tmp_path: Path) -> None:
    """The kernel refuses writes past a file size, as a full disk does; the server outlives it."""
    process, http = child(tmp_path)
    try:
        _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (600_000, most))
        written = 0
        answer = http.post(CONFIG_MAPS, json=config_map("c0", a="x" * 50_000))
        while answer.status_code == 201:
            written += 1
            assert written < 50
            answer = http.post(CONFIG_MAPS, json=config_map(f"c{written}", a="x" * 50_000))
        assert (answer.status_code, answer.json()["reason"]) == (507, "InsufficientStorage"), answer.text
        assert len(http.get(CONFIG_MAPS).json()["items"]) == written > 2
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        assert http.post(CONFIG_MAPS, json=config_map("after")).status_code == 201
    finally:
        end(process, http)
    state = State.open(ApiServerConfig(data_dir=tmp_path))
    assert len(state.objects.list(CONFIG_MAP, "default")) == written + 1
    state.close()


def test_port_in_use_names_the_holder(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        text = f"port {port} on 127.0.0.1 is in use by .*process {os.getpid()}"
        with pytest.raises(ConfigError, match=text) as caught, api_server(tmp_path, port=port):
            pass
        assert "another port" in caught.value.hint
    with api_server(tmp_path, port=port) as lab:
        assert lab.server.port == port


def test_data_directory_has_one_owner(tmp_path: Path) -> None:
    with api_server(tmp_path), pytest.raises(DataDirHeld), api_server(tmp_path):
        pass


def test_restart_keeps_objects_and_clients(tmp_path: Path) -> None:
    with api_server(tmp_path) as lab, lab.client() as http:
        made = http.post(ISVC, json=isvc("kept")).json()
        port = lab.server.port
        kubeconfig = lab.config.kubeconfig.read_bytes()
        assert lab.config.kubeconfig.stat().st_mode & 0o777 == 0o600
    with api_server(tmp_path, port=port) as lab, lab.client() as http:
        assert lab.config.kubeconfig.read_bytes() == kubeconfig
        assert http.get(f"{ISVC}/kept").json() == made
        with http.stream("GET", ISVC, params={"watch": "1", "resourceVersion": "1"}) as events:
            assert next(lines_of(events))["object"]["code"] == 410


def test_end_is_quick_and_clean_with_streams_open(tmp_path: Path) -> None:
    ended = threading.Event()
    with api_server(tmp_path) as lab:
        client = lab.client()

        def follow() -> None:
            with client.stream("GET", CONFIG_MAPS, params={"watch": "1"}) as events:
                assert list(lines_of(events)) == []
            ended.set()

        thread = threading.Thread(target=follow)
        thread.start()
        with lab.following("get", "cm", "-w") as kubectl:
            wait_until(lambda: lab.state.hub.watcher_count == 2)
            start = time.monotonic()
            lab.stop()
            assert time.monotonic() - start < 3
            assert ended.wait(3), "the stream ended as HTTP wants it, not by a broken connection"
            thread.join()
            kubectl.kill()
        client.close()


def test_plain_http_where_tls_is_off(tmp_path: Path) -> None:
    with api_server(tmp_path, is_tls=False) as lab:
        headers = {"authorization": f"Bearer {lab.server.token}"}
        assert httpx.get(f"{lab.url}/api/v1/namespaces", headers=headers).status_code == 200
        assert lab.url.startswith("http://")


def test_damaged_store_is_named(tmp_path: Path) -> None:
    with api_server(tmp_path):
        pass
    path = tmp_path / "data" / "objects.db"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(ConfigError, match=r"objects\.db"), api_server(tmp_path):
        pass


def test_file_of_the_store_is_plain_sqlite(tmp_path: Path) -> None:
    """What backs a user's data up must not need glowplug to read it."""
    with api_server(tmp_path) as lab:
        lab.do(lab.objects.create, CONFIG_MAP, config_map("plain", a="b"))
    database = sqlite3.connect(tmp_path / "data" / "objects.db")
    rows = dict(database.execute("SELECT resource || '/' || name, body FROM objects").fetchall())
    database.close()
    assert json.loads(rows["configmaps/plain"])["data"] == {"a": "b"}
    assert f"{NAMESPACE.plural}/default" in rows


def test_idle_server_sleeps(tmp_path: Path) -> None:
    process, client = child(tmp_path)
    try:
        with client.stream("GET", CONFIG_MAPS, params={"watch": "1"}):
            ticks = _cpu_s(process.pid)
            time.sleep(2)
            assert _cpu_s(process.pid) - ticks <= 0.04
    finally:
        end(process, client)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
