"""Timelines of real starts: on the pod, in an event, in histograms, and as the command prints them."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import pytest
from unit.supervisor.machine import a_pod, echo, running
from unit.supervisor.warm import ROOT, warm_machine, warmed

from glowplug.cli import coldstart
from glowplug.spec import names
from glowplug.spec.kinds import POD
from glowplug.supervisor.cold_start import PHASES
from glowplug.supervisor.images import discover

ROW = {"inputs": [{"name": "input-0", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.2, 0.3]}]}


def phases(machine, name: str, container: str = "main") -> dict:
    written = machine.pod(name)["metadata"].get("annotations", {}).get(names.COLD_START, "{}")
    return json.loads(written).get(container, {}).get("ms", {})


async def predict(port: int) -> None:
    import httpx2

    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/v2/models/m/infer", json=ROW)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("is_warm", [True, False])
async def test_the_timeline_of_a_server_of_ours(tmp_path, small_model, is_warm):
    if is_warm and not sys.platform.startswith("linux"):
        pytest.skip("replicas are forked on Linux only")
    images = discover([ROOT / "predictors" / "xgboost"]).units
    async with running(warm_machine(tmp_path / "data", *images, has_warm_pool=is_warm)) as machine:
        await warmed(machine)
        container = {
            "name": "main",
            "image": "glowplug/xgboost",
            "args": ["--model_name=m", "--model_dir=/mnt/m"],
        }
        container["volumeMounts"] = [{"name": "m", "mountPath": "/mnt/m"}]
        volumes = [{"name": "m", "hostPath": {"path": str(small_model)}}]
        decided = time.time() - 0.5
        annotations = {names.DECIDED_AT: f"{decided:.6f}"}
        machine.objects.create(POD, a_pod("one", container, volumes=volumes, annotations=annotations))
        await machine.ready("one")
        await machine.until(lambda: phases(machine, "one"), "the timeline")
        told = phases(machine, "one")
        assert list(told) == [phase for phase in PHASES if phase != "first_byte"]
        assert told["decided"] >= 500
        assert all(value >= 0 for value in told.values())
        event = next(message for kind, reason, message in machine.events if reason == "ColdStart")
        assert ("from the warm pool" if is_warm else "as a new process") in event
        assert 'phase="first_byte"' not in machine.supervisor.metrics()
        await predict(machine.endpoint("one")["http"])
        await machine.until(lambda: "first_byte" in phases(machine, "one"), "the first answer")
        conditions = machine.pod("one")["status"]["conditions"]
        (told_in_status,) = [each for each in conditions if each["type"] == names.COLD_START_CONDITION]
        assert told_in_status["status"] == "True"
        assert event in told_in_status["message"] and "first answer" in told_in_status["message"]
        how = "fork" if is_warm else "exec"
        labels = f'{{image="glowplug/xgboost",how="{how}",phase="first_byte"}}'
        assert f"glowplug_cold_start_phase_seconds_count{labels} 1" in machine.supervisor.metrics()
        (start,) = coldstart.from_annotation(machine.pod("one"))
        assert (start.how, list(start.ms)) == (how, list(PHASES))
        assert len(coldstart.lines(start)) == 1 + len(PHASES)
        metrics = await asyncio.to_thread(_page, machine.endpoint("one")["http"])
        inner = coldstart.inner_phases(metrics)
        assert list(inner) == ["imported", "loaded", "warmed", "listening", "first_byte"]
        assert inner["loaded"] * 1000 == pytest.approx(told["loaded"], abs=1.0)


def _page(port: int) -> str:
    import httpx2

    return httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


async def test_a_program_that_says_nothing_has_the_phases_that_are_seen_from_outside(tmp_path):
    async with running(warm_machine(tmp_path / "data")) as machine:
        machine.objects.create(POD, a_pod("one", echo(ports=[{"containerPort": 8080}])))
        await machine.ready("one")
        await machine.until(lambda: phases(machine, "one"), "the timeline")
        assert list(phases(machine, "one")) == ["decided", "downloaded", "started", "ready"]
        first = machine.pod("one")["metadata"]["annotations"][names.COLD_START]
        with pytest.raises(OSError):
            await machine.ask("one", "/exit")
        await machine.until(
            lambda: machine.pod("one")["metadata"]["annotations"][names.COLD_START] != first, "again"
        )
        again = json.loads(machine.pod("one")["metadata"]["annotations"][names.COLD_START])["main"]
        assert (again["restart"], again["how"], list(again["ms"])) == (1, "exec", ["started", "ready"])


async def test_what_a_program_makes_up_is_not_believed(tmp_path):
    script = (
        'echo "loaded nan" >"$GLOWPLUG_TIMELINE"; echo "warmed 9e99" >"$GLOWPLUG_TIMELINE"; '
        'head -c 9000 /dev/zero >"$GLOWPLUG_TIMELINE"; exec python3 "$0"'
    )
    container = echo(ports=[{"containerPort": 8080}])
    container["command"] = ["sh", "-c", script, container["command"][1]]
    async with running(warm_machine(tmp_path / "data")) as machine:
        machine.objects.create(POD, a_pod("liar", container))
        await machine.ready("liar")
        await machine.until(lambda: phases(machine, "liar"), "the timeline")
        told = phases(machine, "liar")
        assert "loaded" not in told
        assert sum(told.values()) < 60_000
        assert names.ENDPOINT_PORTS in machine.pod("liar")["metadata"]["annotations"]
