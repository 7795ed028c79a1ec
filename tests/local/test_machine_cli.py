"""The command line on a running machine: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import psutil
import pytest
from local.machine_lab import MachineLab, inference_service

VERBS = ("up", "down", "status", "apply", "get", "delete", "logs", "predict", "doctor", "demo")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    command = [sys.executable, "-m", "glowplug.cli.main", verb, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"Example: glowplug {verb}" in shown.stdout


def test_a_wrong_flag_is_a_usage_error() -> None:
    command = [sys.executable, "-m", "glowplug.cli.main", "up", "--no-such-flag"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_status_json_names_ports_urls_and_processes(machine: MachineLab) -> None:
    status = json.loads(machine.glowplug("status", "--data-dir", str(machine.data_dir), "-o", "json").stdout)
    assert status["running"] is True
    assert set(status["ports"]) >= {"ingress", "api"}
    assert status["urls"]["ingress"] == f"http://127.0.0.1:{status['ports']['ingress']}"
    assert all(psutil.pid_exists(pid) for pid in status["processes"].values())
    assert "machine" in status["processes"]


def test_status_without_a_machine_fails(tmp_path: pathlib.Path, machine: MachineLab) -> None:
    none = machine.glowplug("status", "--data-dir", str(tmp_path), check=False)
    assert none.returncode == 1
    assert "glowplug up" in none.stderr


def test_apply_says_created_then_unchanged_then_configured(
    machine: MachineLab, small_model: pathlib.Path
) -> None:
    service = inference_service("spoken", small_model)
    outcomes = []
    for change in ({}, {}, {"minReplicas": 2}):
        service["spec"]["predictor"].update(change)
        said = machine.glowplug("apply", "-f", "-", stdin=json.dumps(service)).stdout
        outcomes.append(said.split()[-1])
    assert outcomes == ["created", "unchanged", "configured"]
    assert "glowplug predict spoken" in machine.glowplug("apply", "-f", "-", stdin=json.dumps(service)).stderr
    machine.delete("spoken")


def test_apply_kustomization(machine: MachineLab, tmp_path: pathlib.Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("configMapGenerator:\n- name: made\n  literals: [a=b]\n")
    said = machine.glowplug("apply", "-k", str(tmp_path)).stdout
    assert said.startswith("configmap/made-")
    machine.glowplug("delete", "-k", str(tmp_path))


def test_get_and_delete(machine: MachineLab) -> None:
    machine.kubectl("create", "configmap", "plain", "--from-literal=a=b")
    assert "plain" in machine.glowplug("get", "cm").stdout
    assert machine.glowplug("get", "configmaps", "plain", "-o", "name").stdout == "configmap/plain\n"
    assert machine.glowplug("delete", "cm", "plain").stdout == "configmap/plain deleted\n"
    gone = machine.glowplug("get", "cm", "plain", check=False)
    assert gone.returncode == 1
    assert 'configmaps "plain" not found' in gone.stderr


def test_doctor(machine: MachineLab, tmp_path: pathlib.Path) -> None:
    local = machine.glowplug("doctor", "--data-dir", str(machine.data_dir))
    assert "Envoy" in local.stderr
    on_api = machine.glowplug("doctor", "--kubeconfig", str(machine.directory.kubeconfig))
    assert "InferenceService in serving.kserve.io/v1beta1" in on_api.stderr
    nobody = machine.glowplug("doctor", "--kubeconfig", str(tmp_path / "none"), check=False)
    assert nobody.returncode == 1


def test_foreground_up_stops_on_sigterm(own_machine: MachineLab) -> None:
    command = [
        sys.executable, "-m", "glowplug.cli.main", "up", "--data-dir", str(own_machine.data_dir),
        "--ingress-port", "0", "--api-port", "0", "--broker-port", "0",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("the machine is up" in line for line in lines)
    process.terminate()
    process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 0


def test_without_tls_python_clients_still_log_in(own_machine: MachineLab) -> None:
    own_machine.up("--no-tls")
    assert own_machine.description["urls"]["api"].startswith("http://127.0.0.1:")
    assert "No resources found" in own_machine.glowplug("get", "isvc").stderr
    refused = own_machine.http.get(f"{own_machine.description['urls']['api']}/api/v1/pods")
    assert refused.status_code == 401
