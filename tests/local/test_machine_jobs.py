"""Jobs on a whole machine, with the real kubectl: success, failure, deadline, logs, and what survives a restart."""

from __future__ import annotations

import json
import pathlib

from local.machine_lab import MachineLab, Object, wait_for


def job(name: str, script: str, **spec: object) -> Object:
    """A Job of one container that runs a shell script."""
    policy = spec.pop("restart_policy", "Never")
    container = {"name": "main", "image": "any", "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": policy, "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


def held(machine: MachineLab, name: str) -> dict[str, str]:
    """Condition → reason, of those that are true."""
    conditions = machine.get("job", name).get("status", {}).get("conditions", ())
    return {each["type"]: each["reason"] for each in conditions if each["status"] == "True"}


def pods(machine: MachineLab, name: str) -> list[Object]:
    found: list[Object] = machine.get("pods", "", f"-lbatch.kubernetes.io/job-name={name}")["items"]
    return found


def wait(machine: MachineLab, name: str, condition: str) -> None:
    waited = machine.kubectl(
        "wait", f"--for=condition={condition}", "--timeout=50s", f"job/{name}", check=False
    )
    assert waited.returncode == 0, f"{waited.stderr}{machine.account()}"


def delete(machine: MachineLab, *names: str) -> None:
    """Deletes Jobs, and waits until their pods have gone with them."""
    machine.kubectl("delete", "job", *names)
    wait_for(lambda: not any(pods(machine, name) for name in names), "the pods of the Jobs to go")


def test_a_job_completes_and_kubectl_shows_it(machine: MachineLab) -> None:
    machine.apply(job("hello", "echo hello from a job", completions=3, parallelism=2))
    wait(machine, "hello", "complete")
    status = machine.get("job", "hello")["status"]
    assert status["succeeded"] == 3 and "active" not in status and status["completionTime"]
    assert len(pods(machine, "hello")) == 3
    assert machine.kubectl("logs", "job/hello").stdout.strip() == "hello from a job"
    shown = machine.kubectl("get", "job", "hello", "--no-headers").stdout.split()
    assert shown[:3] == ["hello", "Complete", "3/3"]
    described = machine.kubectl("describe", "job", "hello").stdout
    assert "3 Succeeded" in described and "Job completed" in described
    delete(machine, "hello")


def test_a_job_fails_at_its_limit_and_says_why(machine: MachineLab) -> None:
    machine.apply(
        job("broken", "echo no luck; exit 3", backoffLimit=1), job("lost", "true", backoffLimit=0),
    )  # fmt: skip
    missing = job("missing", "", backoffLimit=0)
    missing["spec"]["template"]["spec"]["containers"][0]["command"] = ["no-such-program"]
    machine.apply(missing)
    wait(machine, "missing", "failed")
    (pod,) = pods(machine, "missing")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    wait(machine, "broken", "failed")
    assert held(machine, "broken")["Failed"] == "BackoffLimitExceeded"
    tries = sorted(pod["metadata"]["creationTimestamp"] for pod in pods(machine, "broken"))
    assert len(tries) == 2
    assert machine.get("job", "broken")["status"]["failed"] == 2
    wait(machine, "lost", "complete")
    delete(machine, "broken", "lost", "missing")


def test_on_failure_the_container_starts_again_in_its_pod(
    machine: MachineLab, tmp_path: pathlib.Path
) -> None:
    mark = tmp_path / "mark"
    script = f"test -e {mark} && echo again && exit 0; touch {mark}; exit 1"
    machine.apply(job("stubborn", script, restart_policy="OnFailure"))
    wait(machine, "stubborn", "complete")
    (pod,) = pods(machine, "stubborn")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
    delete(machine, "stubborn")


def test_past_its_deadline_a_job_ends_with_its_processes(machine: MachineLab) -> None:
    machine.apply(job("slow", "echo started; exec sleep 1000", activeDeadlineSeconds=2))
    wait(machine, "slow", "failed")
    assert held(machine, "slow")["Failed"] == "DeadlineExceeded"
    assert not pods(machine, "slow")
    delete(machine, "slow")


def test_a_suspended_job_runs_when_it_is_resumed_and_goes_when_its_time_is_up(machine: MachineLab) -> None:
    machine.apply(job("later", "true", suspend=True, ttlSecondsAfterFinished=1))
    wait(machine, "later", "suspended")
    assert not pods(machine, "later")
    machine.kubectl("patch", "job", "later", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    gone = machine.kubectl("wait", "--for=delete", "job/later", "--timeout=50s", check=False)
    assert gone.returncode == 0, gone.stderr
    wait_for(lambda: not pods(machine, "later"), "its pod to go")


def test_what_cannot_be_run_is_refused(machine: MachineLab) -> None:
    indexed = job("indexed", "true", completionMode="Indexed", completions=2)
    always = job("always", "true", restart_policy="Always")
    for obj, said in ((indexed, "has no indexed Jobs"), (always, 'supported values: "OnFailure", "Never"')):
        refused = machine.kubectl("apply", "-f", "-", check=False, stdin=json.dumps(obj))
        assert refused.returncode == 1 and said in refused.stderr
    warned = machine.kubectl(
        "create", "-f", "-",
        stdin=json.dumps(job("policy", "true", podFailurePolicy={"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]})),
    )  # fmt: skip
    assert "podFailurePolicy: without effect" in warned.stderr
    delete(machine, "policy")


def test_jobs_survive_the_end_of_the_machine(own_machine: MachineLab, tmp_path: pathlib.Path) -> None:
    machine, go = own_machine, tmp_path / "go"
    machine.up("--no-warm-pool")
    script = f"echo begin; while ! test -e {go}; do sleep 0.05; done; echo end"
    machine.apply(job("done", "echo it is done"), job("long", script, backoffLimit=0))
    wait(machine, "done", "complete")
    before = machine.get("job", "done")["status"]
    wait_for(lambda: "begin" in machine.kubectl("logs", "job/long", check=False).stdout, "the Job to begin")
    (pod,) = pods(machine, "long")
    machine.kill()
    machine.up("--no-warm-pool")
    assert machine.get("job", "done")["status"] == before
    assert machine.kubectl("logs", "job/done").stdout == "it is done\n"
    wait_for(lambda: "begin" in machine.kubectl("logs", "job/long", check=False).stdout, "the Job to go on")
    machine.down()
    machine.up("--no-warm-pool")
    go.touch()
    wait(machine, "long", "complete")
    # The machine's end is no failure of the Job, which has none to spare, and its pod is the same.
    assert [each["metadata"]["uid"] for each in pods(machine, "long")] == [pod["metadata"]["uid"]]
    assert "failed" not in machine.get("job", "long")["status"]
    machine.kubectl("delete", "job", "done", "long")
    wait_for(lambda: not machine.get("pods")["items"], "all pods to go")
