"""Jobs in virtual time: pods until they succeed, back-off between failures, and every end counted once."""

from __future__ import annotations

from typing import Any

import pytest
from unit.controllers.fakes import Object, stamp
from unit.controllers.machine import NAMESPACE, Machine

from glowplug.spec import kinds
from glowplug.spec.jobs import default_job


def job(name: str = "train", **spec: Any) -> Object:
    policy = spec.pop("restart_policy", "Never")
    template = {"spec": {"restartPolicy": policy, "containers": [{"name": "main", "command": ["true"]}]}}
    return default_job(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"template": template, **spec},
        }
    )


def pods(machine: Machine, phase: str = "") -> list[Object]:
    found = [pod for pod in machine.objects.list(kinds.POD) if "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in found if not phase or pod.get("status", {}).get("phase") == phase]


def waiting(machine: Machine) -> list[Object]:
    """Pods that have not ended."""
    return [pod for pod in pods(machine) if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]


def end(machine: Machine, pod: Object, phase: str) -> None:
    """The pod's container ends now."""
    live = machine.objects.get(kinds.POD, NAMESPACE, pod["metadata"]["name"])
    terminated = {"exitCode": 0 if phase == "Succeeded" else 1, "finishedAt": stamp(machine.now)}
    live["status"] = {
        "phase": phase,
        "containerStatuses": [{"name": "main", "restartCount": 0, "state": {"terminated": terminated}}],
    }
    machine._unkillable(lambda: machine.objects.update_status(kinds.POD, live))


def status(machine: Machine, name: str = "train") -> Object:
    found: Object = machine.get(kinds.JOB, name).get("status", {})
    return found


def held(machine: Machine, name: str = "train") -> dict[str, str]:
    """Condition → reason, of those that are true."""
    conditions = status(machine, name).get("conditions", ())
    return {each["type"]: each["reason"] for each in conditions if each["status"] == "True"}


def run(machine: Machine, *phases: str) -> None:
    """Ends one pod after the other, as soon as there is one."""
    for phase in phases:
        machine.settle(node=False)
        end(machine, waiting(machine)[0], phase)
    machine.settle(node=False)


def reasons(machine: Machine) -> list[str]:
    return [reason for _, _, reason, _ in machine.events]


def assert_rests(machine: Machine) -> None:
    """Looking at everything again writes nothing."""
    writes = machine.objects.writes
    machine.controllers.wake_all()
    machine.settle(node=False)
    assert machine.objects.writes == writes


def test_a_pod_that_succeeds_completes_the_job() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job())
    machine.settle(node=False)
    assert status(machine)["active"] == 1
    assert status(machine)["startTime"] == stamp(machine.now)
    pod = pods(machine)[0]
    assert pod["metadata"]["name"].startswith("train-")
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
    run(machine, "Succeeded")
    assert status(machine)["succeeded"] == 1 and "active" not in status(machine)
    assert held(machine) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert status(machine)["completionTime"] == stamp(machine.now)
    assert "uncountedTerminatedPods" not in status(machine)
    assert reasons(machine) == ["SuccessfulCreate", "Completed"]
    assert_rests(machine)


def test_as_many_pods_at_a_time_as_parallelism_says() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(completions=5, parallelism=2))
    machine.settle(node=False)
    assert len(waiting(machine)) == 2
    run(machine, "Succeeded", "Succeeded", "Succeeded")
    assert len(waiting(machine)) == 2
    run(machine, "Succeeded")
    assert len(waiting(machine)) == 1
    run(machine, "Succeeded")
    assert status(machine)["succeeded"] == 5 and "Complete" in held(machine)
    assert len(pods(machine)) == 5


def test_a_queue_of_work_is_done_when_one_succeeded_and_all_have_ended() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(parallelism=2))
    run(machine, "Succeeded")
    assert len(waiting(machine)) == 1 and "Complete" not in held(machine)
    run(machine, "Succeeded")
    assert len(pods(machine)) == 2 and "Complete" in held(machine)


def test_failures_are_tried_again_later_and_later_until_the_limit() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(backoffLimit=2))
    run(machine, "Failed")
    assert status(machine)["failed"] == 1
    machine.advance(9.5, node=False)
    assert not waiting(machine)
    machine.advance(1, node=False)
    assert len(waiting(machine)) == 1
    run(machine, "Failed")
    machine.advance(19, node=False)
    assert not waiting(machine)
    machine.advance(2, node=False)
    run(machine, "Failed")
    machine.advance(1000, node=False)
    assert len(pods(machine)) == 3 and status(machine)["failed"] == 3
    assert held(machine) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
    assert reasons(machine)[-1] == "BackoffLimitExceeded"


def test_a_success_ends_the_back_off() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(completions=2))
    run(machine, "Failed")
    machine.advance(10, node=False)
    run(machine, "Succeeded")
    assert len(waiting(machine)) == 1


@pytest.mark.parametrize(("restarts", "limit", "is_over"), [(2, 3, False), (3, 3, True), (1, 0, True)])
def test_with_on_failure_the_starts_of_a_container_count(restarts: int, limit: int, is_over: bool) -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(restart_policy="OnFailure", backoffLimit=limit))
    machine.settle(node=False)
    pod = machine.objects.get(kinds.POD, NAMESPACE, pods(machine)[0]["metadata"]["name"])
    pod["status"] = {
        "phase": "Running",
        "containerStatuses": [{"name": "main", "restartCount": restarts, "state": {}}],
    }
    machine.objects.update_status(kinds.POD, pod)
    machine.settle(node=False)
    assert ("FailureTarget" in held(machine)) is is_over
    # Its pod is to end first.
    assert "Failed" not in held(machine)
    assert bool(pods(machine)) is not is_over
    if is_over:
        machine.objects.delete(kinds.POD, NAMESPACE, pod["metadata"]["name"], 0)
        machine.settle(node=False)
        assert held(machine)["Failed"] == "BackoffLimitExceeded"


def test_past_its_deadline_a_job_fails_and_its_pods_end() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(activeDeadlineSeconds=60))
    machine.advance(59, node=False)
    assert len(waiting(machine)) == 1
    machine.advance(1, node=False)
    assert not pods(machine) and held(machine) == {"FailureTarget": "DeadlineExceeded"}
    (leaving,) = machine.objects.list(kinds.POD)
    machine.objects.delete(kinds.POD, NAMESPACE, leaving["metadata"]["name"], 0)
    machine.settle(node=False)
    assert held(machine)["Failed"] == "DeadlineExceeded"
    assert "failed" not in status(machine), "a pod that the Job ended is no failure"


def test_a_deadline_does_not_run_while_the_machine_is_down() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(activeDeadlineSeconds=60))
    machine.settle(node=False)
    machine.now += 1000
    machine.restart()
    machine.advance(59, node=False)
    assert len(waiting(machine)) == 1
    machine.advance(1, node=False)
    assert not waiting(machine)


def test_a_suspended_job_has_no_pods_and_begins_anew_when_resumed() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job())
    machine.settle(node=False)
    machine.apply(kinds.JOB, job(suspend=True))
    machine.settle(node=False)
    assert not pods(machine) and held(machine) == {"Suspended": "JobSuspended"}
    assert "startTime" not in status(machine) and "failed" not in status(machine)
    machine.advance(100, node=False)
    machine.apply(kinds.JOB, job())
    machine.settle(node=False)
    assert len(waiting(machine)) == 1 and status(machine)["startTime"] == stamp(machine.now)
    assert not held(machine)


def test_a_job_that_is_over_goes_after_its_time_to_live_with_its_pods() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(ttlSecondsAfterFinished=30))
    run(machine, "Succeeded")
    machine.advance(29, node=False)
    assert machine.names(kinds.JOB)
    machine.advance(1, node=False)
    assert not machine.names(kinds.JOB)
    assert not pods(machine)


def test_a_deleted_job_lets_its_pods_go() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job())
    machine.settle(node=False)
    machine.objects.delete(kinds.JOB, NAMESPACE, "train")
    machine.settle(node=False)
    assert not any(pod["metadata"].get("finalizers") for pod in machine.objects.list(kinds.POD))


def test_a_pod_that_somebody_takes_away_is_a_failure_and_is_replaced() -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job())
    machine.settle(node=False)
    machine.objects.delete(kinds.POD, NAMESPACE, pods(machine)[0]["metadata"]["name"])
    machine.settle(node=False)
    assert status(machine)["failed"] == 1
    assert len(waiting(machine)) == 1


@pytest.mark.parametrize("fuse", range(1, 40))
def test_every_end_is_counted_once_wherever_the_machine_dies(fuse: int) -> None:
    machine = Machine()
    machine.apply(kinds.JOB, job(completions=3, parallelism=2, backoffLimit=3))
    machine.objects.fuse = fuse
    failures = 1
    for _ in range(200):
        machine.settle(node=False)
        if "Complete" in held(machine):
            break
        live = waiting(machine)
        assert len(live) <= 2
        if live:
            end(machine, live[0], "Failed" if failures else "Succeeded")
            failures = 0
        else:
            machine.advance(10, node=False)
    assert (status(machine)["succeeded"], status(machine)["failed"]) == (3, 1)
    assert len(pods(machine, "Succeeded")) == 3 and len(pods(machine, "Failed")) == 1
    assert "uncountedTerminatedPods" not in status(machine)
    assert_rests(machine)
