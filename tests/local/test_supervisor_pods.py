"""Pods as real processes: start, ready, requests, drain."""

from __future__ import annotations

import asyncio
import time

import pytest
from unit.supervisor.machine import ECHO, Machine, a_pod, echo, is_alive, running

from glowplug.errors import StoreFull
from glowplug.spec.kinds import CONFIG_MAP, POD
from glowplug.supervisor.images import ImageTable, Unit


async def test_a_pod_becomes_ready_and_answers(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        container = echo(ports=[{"containerPort": 8080}], args=["--http_port=8080"])
        machine.objects.create(POD, a_pod("one", container))
        await machine.ready("one")
        answer = await machine.ask("one")
        port = str(machine.endpoint("one")["http"])
        assert answer["argv"] == [f"--http_port={port}"]
        assert answer["env"]["PORT"] == port
        assert "AWS_SECRET_ACCESS_KEY" not in answer["env"]
        assert machine.endpoint("one")["grpc"] is None
        pid = machine.supervisor.processes()["default/one"]["main"]
        machine.objects.delete(POD, "default", "one")
        await machine.until(lambda: not machine.exists("one"), "deleted")
        assert not is_alive(pid)
        assert machine.unrouted == ["default/one"]
    assert not list((tmp_path / "pods").iterdir())


async def test_two_containers_share_their_ports_and_both_must_be_ready(tmp_path):
    front = echo(
        "front",
        ports=[{"containerPort": 8090}],
        args=["--predictor_host=localhost:8081", "--http_port", "8090"],
    )
    back = echo(
        "kserve-container",
        args=["--http_port=8080", "--grpc_port=8081"],
        command=["sh", "-c", 'sleep 0.4; PORT=${1#*=} exec python3 "$0" "$@"', str(ECHO)],
    )
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("pair", front, back))
        await machine.until(lambda: machine.container("pair").get("ready"), "front ready")
        assert not machine.is_ready("pair")
        await machine.ready("pair")
        endpoint = machine.endpoint("pair")
        answer = await machine.ask("pair")
        assert endpoint["grpc"] is None
        host, http_flag, http = answer["argv"]
        assert (http_flag, http) == ("--http_port", str(endpoint["http"]))
        grpc = host.removeprefix("--predictor_host=localhost:")
        assert grpc.isdecimal() and grpc != "8081"


async def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        pod = a_pod("deaf", echo(environ={"IGNORE_TERM": "1"}), terminationGracePeriodSeconds=1)
        machine.objects.create(POD, pod)
        await machine.ready("deaf")
        started = time.monotonic()
        machine.objects.delete(POD, "default", "deaf")
        await machine.until(lambda: not machine.exists("deaf"), "killed")
        assert 0.9 < time.monotonic() - started < 5


async def test_a_second_deletion_with_less_grace_hurries(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("deaf", echo(environ={"IGNORE_TERM": "1"})))
        await machine.ready("deaf")
        machine.objects.delete(POD, "default", "deaf", 600)
        await machine.until(lambda: machine.unrouted == ["default/deaf"], "draining")
        machine.objects.delete(POD, "default", "deaf", 1)
        await machine.until(lambda: not machine.exists("deaf"), "killed")


async def test_a_pod_that_vanishes_is_killed_at_once(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("deaf", echo(environ={"IGNORE_TERM": "1"})))
        await machine.ready("deaf")
        pid = machine.supervisor.processes()["default/deaf"]["main"]
        machine.objects.delete(POD, "default", "deaf", 0)
        await machine.until(lambda: not is_alive(pid), "killed")
        await machine.until(lambda: not machine.supervisor.processes(), "forgotten")
        assert machine.unrouted == []


async def test_pods_of_a_stopped_machine_run_again_with_the_next(tmp_path):
    machine = Machine(tmp_path, shutdown_grace_s=0.5)
    async with running(machine):
        for name in ("a", "b", "c"):
            machine.objects.create(POD, a_pod(name, echo(environ={"IGNORE_TERM": "1"})))
        for name in ("a", "b", "c"):
            await machine.ready(name)
        await machine.until(lambda: machine.container("a")["restartCount"] == 0)
        pids = [each["main"] for each in machine.supervisor.processes().values()]
        with pytest.raises(OSError):
            await machine.ask("a", "/exit")
        await machine.until(lambda: machine.container("a")["restartCount"] == 1, "restarted")
        await machine.ready("a")
        started = time.monotonic()
    assert time.monotonic() - started < 2, "three deaf pods end in parallel"
    assert not any(is_alive(pid) for pid in pids)
    assert machine.is_ready("b")
    machine.supervisor = machine.new_supervisor()
    machine.supervisor.prepare()
    assert not machine.is_ready("b"), "nothing may be routed to processes that are gone"
    async with running(machine):
        await machine.ready("a")
        await machine.ready("b")
        assert machine.container("a")["restartCount"] == 1
        assert (await machine.ask("a"))["env"]["PORT"] == str(machine.endpoint("a")["http"])


async def test_cancelling_the_machine_ends_every_process(tmp_path):
    machine = Machine(tmp_path)
    task = asyncio.create_task(machine.supervisor.run())
    machine.objects.create(POD, a_pod("one", echo()))
    await machine.ready("one")
    pid = machine.supervisor.processes()["default/one"]["main"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)


async def test_a_configmap_that_comes_later_starts_the_pod(tmp_path):
    container = echo(
        envFrom=[{"configMapRef": {"name": "store"}, "prefix": "X_"}],
        volumeMounts=[{"name": "views", "mountPath": "/etc/views"}],
        environ={"FILES": "/etc/views"},
    )
    volumes = [{"name": "views", "configMap": {"name": "views"}}]
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("late", container, volumes=volumes))
        await machine.until(lambda: machine.container("late").get("state", {}).get("waiting"), "waits")
        waiting = machine.container("late")["state"]["waiting"]
        assert waiting["reason"] == "ContainerCreating"
        assert 'configmap "views" not found' in waiting["message"]
        machine.objects.create(CONFIG_MAP, {"metadata": {"name": "views"}, "data": {"a.yaml": "one"}})
        await machine.until(
            lambda: machine.container("late")["state"]["waiting"]["reason"] == "CreateContainerConfigError",
            "env",
        )
        assert machine.container("late")["state"]["waiting"]["message"] == 'configmap "store" not found'
        machine.objects.create(
            CONFIG_MAP, {"metadata": {"name": "store"}, "data": {"URL": "redis://localhost:6379"}}
        )
        await machine.ready("late")
        answer = await machine.ask("late")
        assert answer["env"]["X_URL"] == "redis://localhost:6379"
        assert answer["files"] == {"a.yaml": "one"}
        update = machine.objects.get(CONFIG_MAP, "default", "views")
        update["data"] = {"b.yaml": "two"}
        machine.objects.update(CONFIG_MAP, update)
        for _ in range(100):
            if (await machine.ask("late"))["files"] == {"b.yaml": "two"}:
                break
        else:
            raise AssertionError("the volume did not follow the ConfigMap")


async def test_an_unknown_image_says_which_are_known(tmp_path):
    images = ImageTable((Unit("glowplug/xgboost", "python -m x", tmp_path),))
    async with running(Machine(tmp_path / "data", images)) as machine:
        machine.objects.create(POD, a_pod("odd", {"name": "main", "image": "nginx:1.25"}))
        await machine.until(lambda: machine.container("odd").get("state", {}).get("waiting"), "waits")
        waiting = machine.container("odd")["state"]["waiting"]
        assert waiting["reason"] == "ErrImagePull"
        assert '"nginx:1.25"' in waiting["message"] and "glowplug/xgboost" in waiting["message"]
        assert machine.pod("odd")["status"]["phase"] == "Pending"
        machine.objects.delete(POD, "default", "odd")
        await machine.until(lambda: not machine.exists("odd"), "deleted")


async def test_a_program_that_is_not_there_is_one_clear_message(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("odd", {"name": "main", "command": ["no-such-program"]}))
        machine.objects.create(
            POD, a_pod("lost", {"name": "main", "command": ["true"], "workingDir": "/no/such"})
        )
        await machine.until(lambda: machine.container("odd").get("state", {}).get("waiting"), "waits")
        await machine.until(lambda: machine.container("lost").get("state", {}).get("waiting"), "waits")
        assert "executable file not found in $PATH" in machine.container("odd")["state"]["waiting"]["message"]
        assert "/no/such" in machine.container("lost")["state"]["waiting"]["message"]


async def test_a_pod_that_is_not_restarted_ends(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        for name, code in (("good", 0), ("bad", 4)):
            container = {"name": "main", "command": ["sh", "-c", f"echo done; exit {code}"]}
            machine.objects.create(POD, a_pod(name, container, restartPolicy="Never"))
        await machine.until(lambda: machine.pod("good").get("status", {}).get("phase") == "Succeeded", "good")
        await machine.until(lambda: machine.pod("bad").get("status", {}).get("phase") == "Failed", "bad")
        assert machine.container("bad")["state"]["terminated"]["exitCode"] == 4
        assert await machine.logs("bad") == "done\n"


async def test_a_full_disk_disturbs_nothing_that_runs(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(
            POD, a_pod("one", echo(lifecycle={"preStop": {"exec": {"command": ["true"]}}}))
        )
        machine.objects.create(POD, a_pod("two", echo()))
        await machine.ready("one")
        await machine.ready("two")
        assert (
            "Warning",
            "Unsupported",
            "lifecycle hooks of container main are not run here",
        ) in machine.events
        before = machine.supervisor.processes()["default/one"]["main"]
        machine.objects.delete(POD, "default", "two")
        machine.objects.fault = StoreFull("no space left on device")
        with pytest.raises(OSError):
            await machine.ask("one", "/exit")
        await machine.until(lambda: not machine.supervisor.processes()["default/two"], "ended")
        runner = machine.supervisor._find("default", "one")
        await machine.until(lambda: runner.pids().get("main") not in (None, before), "restarted")
        assert machine.container("one")["restartCount"] == 0, "nothing could be written"
        machine.objects.fault = None
        await machine.until(lambda: machine.container("one")["restartCount"] == 1, "written at last")
        await machine.until(lambda: not machine.exists("two"), "deleted at last")
        await machine.ready("one")


async def test_a_router_that_fails_does_not_keep_a_pod(tmp_path):
    machine = Machine(tmp_path, unroute_timeout_s=0.2)

    async def broken(pod: str) -> None:
        if pod == "default/slow":
            await asyncio.sleep(600)
        raise RuntimeError("no such table")

    machine._unrouted = broken
    machine.supervisor = machine.new_supervisor()
    async with running(machine):
        for name in ("slow", "bad"):
            machine.objects.create(POD, a_pod(name, echo()))
        for name in ("slow", "bad"):
            await machine.ready(name)
            machine.objects.delete(POD, "default", name)
            await machine.until(lambda name=name: not machine.exists(name), "deleted")


async def test_a_pod_of_no_revision_that_names_no_port_is_ready_when_it_runs(tmp_path):
    pod = a_pod("redis", {"name": "redis", "image": "x", "command": ["sleep", "60"]})
    pod["metadata"]["labels"] = {}
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, pod)
        await machine.until(lambda: machine.is_ready("redis"), "the pod to be ready")
        assert machine.container("redis")["started"]
