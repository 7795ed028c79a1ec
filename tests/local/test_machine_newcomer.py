"""What a newcomer meets on a running machine: refused objects, commands typed twice, names that are not there."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import subprocess
import sys

import pytest
from local.machine_lab import MachineLab, Object, inference_service, wait_for

from glowplug.cli import demo, kube


def test_up_detached_twice_says_that_it_runs(machine: MachineLab) -> None:
    again = machine.glowplug("up", "--detach", "--data-dir", str(machine.data_dir))
    assert f"the machine runs already (process {machine.description['pid']})" in again.stderr
    assert f"export KUBECONFIG={machine.directory.kubeconfig}" in again.stderr
    foreground = machine.glowplug("up", "--data-dir", str(machine.data_dir), check=False)
    assert foreground.returncode == 1
    assert "is held by the machine" in foreground.stderr


def test_next_steps_can_be_typed_where_the_path_has_a_space(tmp_path: pathlib.Path) -> None:
    lab = MachineLab(tmp_path / "my data")
    try:
        said = lab.glowplug(
            "up",
            "-d",
            "--data-dir",
            str(lab.data_dir),
            "--ingress-port",
            "0",
            "--api-port",
            "0",
            "--broker-port",
            "0",
        ).stderr
        assert f"export KUBECONFIG='{lab.directory.kubeconfig}'" in said
        down = lab.glowplug("down", "--data-dir", str(lab.data_dir)).stderr
        assert f"glowplug up --data-dir '{lab.data_dir}'" in down
        status = lab.glowplug("status", "--data-dir", str(lab.data_dir), check=False)
        assert f"no machine runs on {lab.data_dir}" in status.stderr
        assert "--data-dir" in status.stderr.partition("hint:")[2]
    finally:
        lab.close()


@pytest.mark.parametrize("verb", [("create",), ("apply",), ("apply", "--server-side")])
def test_kubectl_names_the_refused_object(machine: MachineLab, verb: tuple[str, ...]) -> None:
    bad = json.dumps(inference_service("bad", "file:///x", minReplicas=-1))
    refused = machine.kubectl(*verb, "-f", "-", stdin=bad, check=False)
    assert refused.returncode == 1
    assert 'The InferenceService "bad" is invalid: spec.predictor.minReplicas: ' in refused.stderr


def test_a_program_that_does_not_exist(machine: MachineLab) -> None:
    service = inference_service("nosuch", "file:///x")
    service["spec"]["predictor"] = {
        "containers": [{"name": "kserve-container", "image": "x", "command": ["nosuchprog"]}]
    }
    machine.apply(service)
    failure = 'Container failed with: exec: "nosuchprog": executable file not found in $PATH'
    try:
        wait_for(lambda: failure in _ready(machine, "nosuch").get("message", ""), "the failure to be told")
        assert _ready(machine, "nosuch")["status"] == "False"
        (pod,) = machine.get("pods", "", "-lserving.kserve.io/inferenceservice=nosuch")["items"]
        (status,) = pod["status"]["containerStatuses"]
        assert status["state"]["waiting"]["reason"] == "RunContainerError"
        ended = status["lastState"]["terminated"]
        assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
        logs = machine.glowplug("logs", "nosuch")
        assert 'waits: RunContainerError: exec: "nosuchprog"' in logs.stderr
    finally:
        machine.delete("nosuch")


def test_a_name_that_is_not_there(machine: MachineLab) -> None:
    for command in (("get", "isvc", "nope"), ("delete", "isvc", "nope"), ("predict", "nope")):
        missing = machine.glowplug(*command, check=False)
        assert missing.returncode == 1
        assert '"nope" not found' in missing.stderr
        assert "hint: `glowplug get isvc -A` lists them" in missing.stderr


def test_a_stopped_service_says_how_to_start_it(machine: MachineLab, small_model: pathlib.Path) -> None:
    service = inference_service("halted", small_model)
    service["metadata"].setdefault("annotations", {})["serving.kserve.io/stop"] = "true"
    machine.apply(service)
    wait_for(lambda: _ready(machine, "halted"), "a status")
    for command in (("predict", "halted"), ("logs", "halted")):
        said = machine.glowplug(*command, check=False).stderr
        assert "is stopped" in said
        assert "kubectl annotate isvc halted serving.kserve.io/stop-" in said
    machine.delete("halted")


def test_predict_on_a_terminal_says_what_it_waits_for(machine: MachineLab) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"{}\n\x04")
        ran = subprocess.run(
            [sys.executable, "-m", "glowplug.cli.main", "predict", "nope"],
            stdin=theirs, capture_output=True, text=True, check=False, timeout=50,
            env={**os.environ, "KUBECONFIG": str(machine.directory.kubeconfig)},
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert ran.stderr.startswith("reading the request from the terminal; end with Ctrl-D (or use -d FILE)\n")


def test_the_demos_redis_survives_another_binary(
    machine: MachineLab, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    cluster = kube.connect(machine.directory.kubeconfig, None, "default")
    former = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "redis"},
        "spec": {"containers": [{"name": "redis", "image": "redis", "command": ["sleep", "1000"]}]},
    }  # fmt: skip
    machine.apply(former)
    try:
        url = demo._start_redis(cluster, machine.directory)
        uid = machine.get("pod", "redis")["metadata"]["uid"]
        elsewhere = tmp_path / "redis-server"
        elsewhere.symlink_to(demo.find_redis())
        monkeypatch.setattr(demo, "find_redis", lambda: str(elsewhere))
        assert demo._start_redis(cluster, machine.directory) == url
        assert machine.get("pod", "redis")["metadata"]["uid"] == uid, "one that answers is kept"
    finally:
        cluster._http.close()
        machine.kubectl("delete", "pod", "redis")


def _ready(machine: MachineLab, name: str) -> Object:
    conditions = machine.get("isvc", name).get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == "Ready"), {})
