"""The warm floor's controller, a process of its own, against a whole machine."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from local.machine_lab import MachineLab, Object, inference_service, wait_for

MIN_SCALE = "autoscaling.knative.dev/min-scale"
FLOOR = "glowplug.dev/warm-floor"


@pytest.fixture
def start(machine: MachineLab, tmp_path: pathlib.Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts controllers; those that still run at the end are stopped."""
    started: list[subprocess.Popen[bytes]] = []
    with (tmp_path / "log").open("wb") as log:

        def run() -> subprocess.Popen[bytes]:
            options = ["--interval", "1", "--lease-duration", "3"]
            command = [sys.executable, "-m", "glowplug.cli.main", "warmfloor", "run", *options]
            environment = {**os.environ, "KUBECONFIG": str(machine.directory.kubeconfig)}
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            return started[-1]

        yield run
        for process in started:
            process.terminate()
        try:
            for process in started:
                process.wait(20)
        finally:
            # What does not stop must not outlive the test either.
            for process in started:
                process.kill()
                process.wait()
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text, text[-4000:]


def revision(machine: MachineLab, name: str) -> Object:
    return machine.get("revisions.serving.knative.dev", f"{name}-predictor-00001")


def min_scale(machine: MachineLab, name: str) -> str | None:
    return (revision(machine, name)["metadata"].get("annotations") or {}).get(MIN_SCALE)


def ready_pods(machine: MachineLab, name: str) -> int:
    found = machine.get("pods", "", f"-lserving.kserve.io/inferenceservice={name}")["items"]
    return sum(
        any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in pod["status"].get("conditions", ())
        )
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
    )


def revisions(machine: MachineLab, name: str) -> list[str]:
    label = f"-lserving.kserve.io/inferenceservice={name}"
    return [
        each["metadata"]["name"] for each in machine.get("revisions.serving.knative.dev", "", label)["items"]
    ]


def reasons(machine: MachineLab, name: str) -> list[tuple[str, str]]:
    events = machine.get("events", "", f"--field-selector=involvedObject.name={name}")["items"]
    return [
        (event["reason"], event.get("message", ""))
        for event in events
        if event["reason"].startswith("WarmFloor")
    ]


def holder(machine: MachineLab) -> str:
    found = machine.kubectl(
        "get", "lease", "glowplug-warm-floor", "-o", "jsonpath={.spec.holderIdentity}", check=False
    )
    return found.stdout


def at(moment: datetime) -> str:
    return f"{moment.second} {moment.minute} {moment.hour} * * *"


@contextmanager
def shown(machine: MachineLab) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{machine.account()}") from error


def test_a_schedule_moves_the_floor_of_the_live_revision_and_a_crash_loses_nothing(
    machine: MachineLab, small_model: pathlib.Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    first = start()
    wait_for(lambda: f"_{first.pid}_" in holder(machine), "the controller to act", 40)
    now = datetime.now(timezone.utc)
    # Long enough for the service to be ready and the controller to have been killed before.
    low = now + timedelta(seconds=18)
    schedule = f"{at(now - timedelta(minutes=2))}=2; {at(low)}=0"
    service = inference_service("clock", small_model, minReplicas=1)
    service["metadata"]["annotations"].update(
        {FLOOR: "true", f"{FLOOR}-schedule": schedule, "autoscaling.knative.dev/window": "6s"}
    )
    machine.apply(service)
    machine.wait_ready("clock")
    uid = revision(machine, "clock")["metadata"]["uid"]
    with shown(machine):
        wait_for(lambda: ready_pods(machine, "clock") == 2, "the schedule's two replicas", 30)
        assert min_scale(machine, "clock") == "2"
        kept = json.loads(machine.get("configmap", "clock-warm-floor")["data"]["grips"])
        assert kept["clock-predictor-00001"]["own"] == "1"

        first.send_signal(signal.SIGKILL)
        first.wait()
        # Nobody let go of it, and whoever comes next knows that the 2 is not its user's.
        assert min_scale(machine, "clock") == "2"
        second = start()
        standby = start()
        wait_for(lambda: min_scale(machine, "clock") == "1", "the floor to fall", 50)
        wait_for(lambda: ready_pods(machine, "clock") == 1, "the surplus replica to go", 60)

        status = machine.glowplug("warmfloor", "status", "clock").stdout
        assert "predictor: floor" in status and "to start" in status
        told = dict(reversed(reasons(machine, "clock")))
        assert (
            f"min-scale of clock-predictor-00001 1 → 2: schedule {at(now - timedelta(minutes=2))} = 2"
            in (told["WarmFloorRaised"])
        )
        assert "2 → 1" in told["WarmFloorLowered"]

        # Two run, one acts: no floor is written twice.
        assert [reason for reason, _ in reasons(machine, "clock")].count("WarmFloorLowered") == 1
        for process in (second, standby):
            process.terminate()
            assert process.wait(20) == 0
    assert revisions(machine, "clock") == ["clock-predictor-00001"]
    assert revision(machine, "clock")["metadata"]["uid"] == uid
    machine.delete("clock")


def test_a_stopped_controller_puts_back_what_was_there_and_wrong_values_change_nothing(
    machine: MachineLab, small_model: pathlib.Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    service = inference_service("bounds", small_model, minReplicas=1)
    service["metadata"]["annotations"].update({FLOOR: "true", f"{FLOOR}-min": "2"})
    machine.apply(service)
    wrong = inference_service("wrong", small_model, minReplicas=1)
    wrong["metadata"]["annotations"].update(
        {FLOOR: "true", f"{FLOOR}-min": "two", f"{FLOOR}-schedule": "often=1"}
    )
    machine.apply(wrong)
    machine.wait_ready("bounds")
    machine.wait_ready("wrong")
    with shown(machine):
        controller = start()
        wait_for(lambda: min_scale(machine, "bounds") == "2", "the floor", 30)
        (told,) = wait_for(lambda: reasons(machine, "wrong"), "an event that says what is wrong", 20)
        assert told[0] == "WarmFloorInvalid"
        assert f'{FLOOR}-min = "two", must be a whole number' in told[1]
        assert '"often" is no cron expression' in told[1]
        assert min_scale(machine, "wrong") == "1"

        for _ in range(20):
            assert machine.infer("bounds", [[0.1, 0.2, 0.3]]).status_code == 200
        counted = (
            'glowplug_revision_requests_total{namespace="default",revision="bounds-predictor-00001"} 20.0'
        )
        wait_for(lambda: counted in machine.kubectl("get", "--raw", "/metrics").stdout, "what was asked", 20)
        controller.terminate()
        assert controller.wait(20) == 0
        assert min_scale(machine, "bounds") == "1"
    assert revisions(machine, "bounds") == ["bounds-predictor-00001"]
    for name in ("bounds", "wrong"):
        assert not machine.get("isvc", name)["metadata"].get("finalizers")
        machine.delete(name)
