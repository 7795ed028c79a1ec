"""Processes that die, and machines that die: back-off, last lines, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from unit.supervisor.machine import Machine, a_pod, echo, is_alive, running

from glowplug.spec.kinds import POD
from glowplug.supervisor import guard

SRC = Path(guard.__file__).parents[2]
TESTS = Path(__file__).parents[1]

# A machine with one pod, whose container starts a child in its group and one in a session of its own.
LITTLE_MACHINE = """
import asyncio, sys
from pathlib import Path
from glowplug.spec.kinds import POD
from unit.supervisor.machine import Machine, a_pod, running

async def main():
    command = ["sh", "-c", "python3 -c 'import time; time.sleep(600)' & setsid sleep 601 & sleep 602 & wait"]
    async with running(Machine(Path(sys.argv[1]))) as machine:
        machine.objects.create(POD, a_pod("one", {"name": "main", "command": command}))
        await machine.until(lambda: machine.supervisor.processes().get("default/one"), "started")
        print(machine.supervisor.processes()["default/one"]["main"], machine.supervisor._guard.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_port_that_is_taken_is_explained(tmp_path):
    command = ["sh", "-c", "echo 'OSError: [Errno 98] Address already in use' >&2; exit 1"]
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("taken", {"name": "main", "command": command}))
        await machine.until(lambda: machine.container("taken").get("restartCount", 0) >= 1, "restarts")
        await machine.until(lambda: "waiting" in machine.container("taken")["state"], "backs off")
        assert "--grpc_port=8081" in machine.container("taken")["lastState"]["terminated"]["message"]


async def test_a_container_that_never_gets_ready_shows_its_last_lines(tmp_path):
    command = ["sh", "-c", "echo loading; echo 'model.ubj: no such file' >&2; exit 7"]
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("bad", {"name": "main", "command": command}))
        await machine.until(lambda: machine.container("bad").get("restartCount", 0) >= 2, "restarts")
        await machine.until(lambda: "waiting" in machine.container("bad")["state"], "backs off")
        container = machine.container("bad")
        assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert "never became ready: exit code 7" in container["state"]["waiting"]["message"]
        last = container["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (7, "Error")
        assert last["message"] == "loading\nmodel.ubj: no such file"
        assert any(reason == "BackOff" and "model.ubj" in text for _, reason, text in machine.events)
        assert machine.pod("bad")["status"]["phase"] == "Running"
        assert await machine.logs("bad", previous=True) == "loading\nmodel.ubj: no such file\n"


async def test_a_container_that_dies_after_being_ready_comes_back(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("one", echo()))
        await machine.ready("one")
        with pytest.raises(OSError):
            await machine.ask("one", "/exit")
        await machine.until(lambda: machine.container("one")["restartCount"] == 1, "restarted")
        await machine.ready("one")
        last = machine.container("one")["lastState"]["terminated"]
        assert last["exitCode"] == 3
        assert any("died after being ready: exit code 3" in text for _, _, text in machine.events)
        assert (await machine.ask("one"))["env"]["PORT"]


async def test_a_container_takes_its_children_with_it(tmp_path):
    command = [
        "sh",
        "-c",
        "sleep 600 & echo $! > child; setsid sleep 601 & echo $! > stray; sleep 0.1; exit 1",
    ]
    async with running(Machine(tmp_path, backoff_base_s=60)) as machine:
        pod = machine.objects.create(POD, a_pod("one", {"name": "main", "command": command}))
        await machine.until(lambda: machine.container("one").get("lastState", {}).get("terminated"), "died")
        folder = tmp_path / "pods" / pod["metadata"]["uid"]
        child, stray = int((folder / "child").read_text()), int((folder / "stray").read_text())
        await machine.until(lambda: not is_alive(child), "child gone")
        machine.objects.delete(POD, "default", "one")
        await machine.until(lambda: not machine.exists("one"), "deleted")
        await machine.until(lambda: not is_alive(stray), "stray gone")


async def test_a_guardian_that_dies_is_replaced(tmp_path):
    async with running(Machine(tmp_path)) as machine:
        machine.objects.create(POD, a_pod("one", echo()))
        await machine.ready("one")
        before = machine.supervisor._guard.pid
        os.kill(before, signal.SIGKILL)
        await machine.until(lambda: machine.supervisor._guard.pid not in (None, before), "new guardian")
        assert machine.is_ready("one")


def test_kill_9_of_the_machine_leaves_nothing(tmp_path):
    machine, pid, _ = _little_machine(tmp_path)
    family = _family(tmp_path)
    assert pid in family and len(family) >= 4
    machine.kill()
    machine.wait()
    _assert_gone(family, 2.0)


def test_kill_9_of_machine_and_guardian_is_cleared_by_the_next_start(tmp_path):
    machine, _, guardian_pid = _little_machine(tmp_path)
    family = _family(tmp_path)
    os.kill(machine.pid, signal.SIGSTOP)
    os.kill(guardian_pid, signal.SIGKILL)
    machine.kill()
    machine.wait()
    survivors = [each for each in family if is_alive(each)]
    assert survivors, "the grandchildren at least outlive both"
    assert guard.clear_stale(tmp_path / "run" / "groups", guard.mark_of(tmp_path)) >= 1
    _assert_gone(family, 2.0)
    assert not list((tmp_path / "run" / "groups").iterdir())


def test_a_recycled_process_number_is_never_hit(tmp_path):
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        groups = tmp_path / "groups"
        groups.mkdir()
        (groups / str(bystander.pid)).write_text(f"12345 {guard.boot_id()}")
        assert guard.clear_stale(groups, "no-such-mark") == 0
        assert bystander.poll() is None
        (groups / str(bystander.pid)).write_text(
            f"{guard.guardian.start_of(bystander.pid)} {guard.boot_id()}"
        )
        assert guard.clear_stale(groups, "no-such-mark") == 1
        assert bystander.wait(5) == -signal.SIGKILL
    finally:
        bystander.kill()
        bystander.wait()


def _little_machine(data_dir: Path) -> tuple[subprocess.Popen[str], int, int]:
    machine = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LITTLE_MACHINE), str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{SRC}:{TESTS}"},
    )
    assert machine.stdout is not None
    pid, guardian_pid = map(int, machine.stdout.readline().split())
    machine.stdout.close()
    deadline = time.monotonic() + 10
    while len(_family(data_dir)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    return machine, pid, guardian_pid


def _family(data_dir: Path) -> list[int]:
    return guard.guardian.marked(guard.guardian.MARK, guard.mark_of(data_dir))


def _assert_gone(pids: list[int], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if is_alive(pid)]
        time.sleep(0.01)


async def test_pods_run_on_while_one_floods_its_output(tmp_path):
    flood = {"name": "main", "command": ["sh", "-c", "yes 'a line of output that goes on and on'"]}
    async with running(Machine(tmp_path, log_max_bytes=200_000, log_files=2)) as machine:
        machine.objects.create(POD, a_pod("flood", flood, restartPolicy="Never"))
        machine.objects.create(POD, a_pod("calm", echo()))
        await machine.ready("calm")
        await asyncio.wait_for(machine.ask("calm"), 5)
        folder = next((tmp_path / "logs").glob("*_flood_*")) / "main"
        await machine.until(lambda: len(list(folder.iterdir())) == 2, "rotated")
        assert sum(each.stat().st_size for each in folder.iterdir()) <= 2 * 200_000
        machine.objects.delete(POD, "default", "flood", 1)
        await machine.until(lambda: not machine.exists("flood"), "deleted")
