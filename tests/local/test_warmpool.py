"""The warm pool with real processes: a forked replica is what an executed one would be, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from unit.supervisor.machine import Machine, a_pod, is_alive, running
from unit.supervisor.warm import ROOT, container, warm_machine, warm_unit, warmed

from glowplug.spec.kinds import POD
from glowplug.supervisor import guardian
from glowplug.supervisor.localize import POD_MARK

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="replicas are forked on Linux only"
)
SAME = (
    "orig_argv", "is_leader", "parent", "main", "signals", "mask", "handles", "path", "scheduler", "mode",
)  # fmt: skip


def zygote(machine: Machine, image: str = "example/warm-echo") -> int | None:
    return next(each.pid for each in machine.supervisor.pool() if each.image == image)


def shown(pid: int) -> str | None:
    """The command line, as `ps` shows it; None where there is no such process, not even a dead one."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    except OSError:
        return None


async def start(machine: Machine, name: str, **fields: object) -> dict[str, object]:
    machine.objects.create(POD, a_pod(name, container(**fields)))
    await machine.ready(name)
    answer = await machine.ask(name)
    answer["pid"] = machine.supervisor.processes()[f"default/{name}"]["main"]
    return answer


async def test_a_forked_replica_is_what_an_executed_one_is(tmp_path):
    warm = warm_unit(tmp_path / "warm")
    cold = warm_unit(tmp_path / "cold", "example/cold-echo", is_pooled=False)
    async with running(warm_machine(tmp_path / "data", warm, cold)) as machine:
        await warmed(machine)
        given = {"args": ["--a=$(X) b", ""], "environ": {"X": "ü 1", "TZ": "Asia/Tokyo", "EMPTY": ""}}
        forked = await start(machine, "forked", **given)
        executed = await start(machine, "executed", image="example/cold-echo", **given)
        assert forked["is_forked"] and not executed["is_forked"]
        for answer in (forked, executed):
            answer["path"] = [
                each.replace("/cold/", "/warm/").replace(answer["cwd"], ".") for each in answer["path"]
            ]
        assert {key: forked[key] for key in SAME} == {key: executed[key] for key in SAME}
        assert forked["argv"][1:] == executed["argv"][1:] == ["--a=ü 1 b", ""]
        assert Path(forked["argv"][0]) == tmp_path / "warm/src/warm_echo/__main__.py"
        assert forked["parent"] == os.getpid()
        assert forked["cwd"] == str(tmp_path / "data/pods" / machine.pod("forked")["metadata"]["uid"])
        own = ("K_REVISION", "PORT", "GRPC_PORT", "GLOWPLUG_POD_UID", "GLOWPLUG_TIMELINE", "PYTHONPATH")
        assert {k: v for k, v in forked["env"].items() if k not in own} == {
            k: v for k, v in executed["env"].items() if k not in own
        }
        assert forked["env"].keys() == executed["env"].keys()
        pid, uid = forked["pid"], machine.pod("forked")["metadata"]["uid"]
        assert guardian.marked(POD_MARK, uid) == [pid]
        assert pid in guardian.marked(guardian.MARK, machine.supervisor._guard.mark)
        assert shown(pid) == f"{sys.executable} -m warm_echo --a=ü 1 b "
        second = await start(machine, "second")
        assert second["drawn"] != forked["drawn"], "random numbers of replicas must differ"
        assert await machine.logs("forked") == "listening\n"


async def test_the_exit_of_a_forked_replica_is_seen_and_it_comes_back(tmp_path):
    async with running(warm_machine(tmp_path / "data", warm_unit(tmp_path / "warm"))) as machine:
        await warmed(machine)
        first = await start(machine, "one")
        with pytest.raises(OSError):
            await machine.ask("one", "/exit/7")
        await machine.until(lambda: machine.container("one")["restartCount"] == 1, "restarted")
        last = machine.container("one")["lastState"]["terminated"]
        assert (last["exitCode"], last["message"]) == (7, "listening\nleaving with 7")
        await machine.ready("one")
        second = await machine.ask("one")
        assert second["is_forked"] and second["drawn"] != first["drawn"]
        os.kill(machine.supervisor.processes()["default/one"]["main"], signal.SIGKILL)
        await machine.until(lambda: machine.container("one")["restartCount"] == 2, "restarted")
        assert machine.container("one")["lastState"]["terminated"]["exitCode"] == 137
        await machine.ready("one")
        pid = machine.supervisor.processes()["default/one"]["main"]
        machine.objects.delete(POD, "default", "one")
        await machine.until(lambda: not machine.exists("one"), "deleted")
        assert shown(pid) is None, "reaped"


async def test_replicas_outlive_their_zygote(tmp_path):
    async with running(warm_machine(tmp_path / "data", warm_unit(tmp_path / "warm"))) as machine:
        await warmed(machine)
        one = await start(machine, "one")
        dead = zygote(machine)
        os.kill(dead, signal.SIGKILL)
        await machine.until(lambda: zygote(machine) not in (None, dead), "another zygote")
        assert (await machine.ask("one"))["drawn"] != one["drawn"]
        assert machine.container("one")["restartCount"] == 0
        two = await start(machine, "two")
        assert two["is_forked"]
        with pytest.raises(OSError):
            await machine.ask("one", "/exit/5")
        await machine.until(lambda: machine.container("one")["restartCount"] == 1, "restarted")
        assert machine.container("one")["lastState"]["terminated"]["exitCode"] == 5
        await machine.ready("one")
        pids = [each["main"] for each in machine.supervisor.processes().values()]
        last = zygote(machine)
    assert not any(is_alive(pid) for pid in (*pids, last))


async def test_a_zygote_that_hangs_delays_a_start_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("glowplug.supervisor.pool._FORK_TIMEOUT_S", 0.2)
    async with running(warm_machine(tmp_path / "data", warm_unit(tmp_path / "warm"))) as machine:
        await warmed(machine)
        hung = zygote(machine)
        os.kill(hung, signal.SIGSTOP)
        assert not (await start(machine, "one"))["is_forked"]
        await machine.until(lambda: zygote(machine) not in (None, hung), "another zygote")
        assert not is_alive(hung)
        assert (await start(machine, "two"))["is_forked"]


async def test_what_was_read_at_import_decides_who_may_be_forked(tmp_path):
    async with running(warm_machine(tmp_path / "data", warm_unit(tmp_path / "warm"))) as machine:
        await warmed(machine)
        moded = await start(machine, "moded", environ={"WARM_MODE": "x"})
        assert (moded["is_forked"], moded["mode"]) == (False, "x")
        seeded = await start(machine, "seeded", environ={"PYTHONHASHSEED": "1"})
        assert not seeded["is_forked"]
        limited = await start(machine, "limited", resources={"limits": {"cpu": "1"}})
        assert limited["is_forked"] and limited["env"]["OMP_NUM_THREADS"] == "1"
        own = await start(machine, "own", command=["python", "-m", "warm_echo"], environ={
            "PYTHONPATH": str(tmp_path / "warm/src")
        })  # fmt: skip
        assert not own["is_forked"], "a container with a command of its own is executed"


async def test_changed_code_is_what_runs(tmp_path):
    async with running(warm_machine(tmp_path / "data", warm_unit(tmp_path / "warm"))) as machine:
        await warmed(machine)
        before = zygote(machine)
        heavy = tmp_path / "warm/src/warm_echo/heavy.py"
        heavy.write_text(heavy.read_text().replace("VERSION = 1", "VERSION = 2000"))
        changed = await start(machine, "changed")
        assert (changed["is_forked"], changed["version"]) == (False, 2000)
        await machine.until(lambda: zygote(machine) not in (None, before), "another zygote")
        again = await start(machine, "again")
        assert (again["is_forked"], again["version"]) == (True, 2000)


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "2 threads"),
        ("FILE = open(__file__)", "heavy.py open"),
        ("raise RuntimeError('no such device')", "RuntimeError: no such device"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)  # fmt: skip
async def test_what_cannot_be_forked_says_why_and_runs_by_exec(tmp_path, code, trouble):
    unit = warm_unit(tmp_path / "warm")
    heavy = unit.src / "warm_echo" / "heavy.py"
    heavy.write_text(heavy.read_text() + textwrap.dedent(code) + "\n")
    async with running(warm_machine(tmp_path / "data", unit)) as machine:
        await warmed(machine)
        (member,) = machine.supervisor.pool()
        assert member.pid is None and trouble in member.why_not
        if "raise" not in code and "no_such" not in code:
            assert not (await start(machine, "one"))["is_forked"]


LITTLE_MACHINE = """
import asyncio, sys
from pathlib import Path
from glowplug.spec.kinds import POD
from unit.supervisor.machine import a_pod, running
from unit.supervisor.warm import container, warm_machine, warm_unit, warmed

async def main():
    folder = Path(sys.argv[1])
    async with running(warm_machine(folder / "data", warm_unit(folder / "warm"))) as machine:
        await warmed(machine)
        machine.objects.create(POD, a_pod("one", container()))
        await machine.ready("one")
        assert (await machine.ask("one"))["is_forked"]
        (member,) = machine.supervisor.pool()
        pids = machine.supervisor.processes()["default/one"]["main"], machine.supervisor.guardian_pid, member.pid
        print(*pids, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("is_guarded", [True, False])
def test_kill_9_of_the_machine_ends_replicas_and_zygotes(tmp_path, is_guarded):
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    machine = subprocess.Popen(
        [sys.executable, "-c", LITTLE_MACHINE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert machine.stdout is not None
    with machine.stdout:
        replica, watchman, zygote_pid = map(int, machine.stdout.readline().split())
        assert is_alive(replica) and is_alive(zygote_pid)
        if not is_guarded:
            os.kill(watchman, signal.SIGSTOP)
        machine.kill()
        machine.wait()
    try:
        deadline = time.monotonic() + 10
        while is_alive(replica) or is_alive(zygote_pid):
            assert time.monotonic() < deadline, "left behind"
            time.sleep(0.01)
    finally:
        os.kill(watchman, signal.SIGCONT)
