"""What goes wrong, and what the machine then says and keeps: each message names the thing and what to do."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import socket
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from local.machine_lab import MachineLab, Object, inference_service, wait_for
from local.machine_load import Load

ROWS = [[0.1, 0.2, 0.3]]
# Answers POST requests. It waits for a file before it starts (GATE=start) or before each answer (GATE=answer); one that
# has a predictor asks it and passes its answer on.
PROGRAM = """
import http.client, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def wait(gate):
    while os.environ.get("GATE") == gate and not os.path.exists(os.environ["GATE_FILE"]):
        time.sleep(0.02)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        print("asked", flush=True)
        wait("answer")
        status, body = 200, os.environ["WORDS"].encode()
        if "--predictor_host" in sys.argv:
            host = sys.argv[sys.argv.index("--predictor_host") + 1]
            predictor = http.client.HTTPConnection(host, timeout=30)
            predictor.request("POST", "/", b"{}")
            answer = predictor.getresponse()
            status, body = answer.status, answer.read()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

wait("start")
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
"""


def container(**variables: object) -> Object:
    """A container that runs `PROGRAM` with these environment variables."""
    return {
        "name": "kserve-container",
        "image": "example/program",
        "command": [sys.executable, "-c", PROGRAM],
        "env": [{"name": name, "value": str(value)} for name, value in variables.items()],
    }


def program_service(name: str, serving: Object, annotations: dict[str, str] | None = None) -> Object:
    """An InferenceService whose predictor is the container `serving`."""
    service = inference_service(name, pathlib.Path("/"))
    service["spec"]["predictor"] = {"minReplicas": 0, "containers": [serving]}
    service["metadata"]["annotations"].update(annotations or {})
    return service


def post(machine: MachineLab, name: str) -> tuple[int, str]:
    """The status and body of one request, on a connection of its own."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(machine.ingress).netloc, timeout=30)
    try:
        connection.request("POST", f"/serving/default/{name}/", b"{}")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def bystander(machine: MachineLab, small_model: pathlib.Path):
    """A service that must not notice what the others do."""
    machine.apply(inference_service("bystander", small_model))
    machine.wait_ready("bystander")
    yield "bystander"
    assert machine.infer("bystander", ROWS).status_code == 200
    machine.delete("bystander")


def condition_messages(machine: MachineLab, name: str) -> str:
    status = machine.get("isvc", name).get("status", {})
    failure = status.get("modelStatus", {}).get("lastFailureInfo", {})
    said = [condition.get("message", "") for condition in status.get("conditions", ())]
    return " ".join([*said, failure.get("message", "")])


def test_missing_model_file(machine: MachineLab, bystander: str, tmp_path: pathlib.Path) -> None:
    machine.apply(inference_service("missing", tmp_path / "nowhere"))
    assert wait_for(
        lambda: str(tmp_path / "nowhere") in condition_messages(machine, "missing"),
        "the missing path to be named",
    )
    machine.delete("missing")


def test_unreadable_model(machine: MachineLab, bystander: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "model.ubj").write_bytes(b"this is no booster")
    machine.apply(inference_service("broken", folder))
    assert wait_for(
        lambda: "model.ubj" in condition_messages(machine, "broken"), "the broken file to be named"
    )
    machine.delete("broken")


def test_predictor_that_dies_at_start(machine: MachineLab, bystander: str) -> None:
    service = inference_service("dying", pathlib.Path("/"))
    del service["spec"]["predictor"]["model"]
    service["spec"]["predictor"]["containers"] = [
        {
            "name": "kserve-container",
            "image": "example/dying",
            "command": ["sh", "-c", "echo the fuse blew >&2; exit 3"],
        }
    ]
    machine.apply(service)
    assert wait_for(
        lambda: "the fuse blew" in condition_messages(machine, "dying"), "the last line to be shown"
    )
    pods = machine.kubectl("get", "pods", "-lserving.kserve.io/inferenceservice=dying", check=False).stdout
    assert "CrashLoopBackOff" in pods or "Error" in pods or not pods.strip()
    machine.delete("dying")


def test_unknown_image_lists_the_known(machine: MachineLab, bystander: str) -> None:
    service = inference_service("unknown", pathlib.Path("/"))
    del service["spec"]["predictor"]["model"]
    service["spec"]["predictor"]["containers"] = [
        {"name": "kserve-container", "image": "example/nobody-knows:1"}
    ]
    machine.apply(service)
    assert wait_for(
        lambda: "glowplug/xgboost" in condition_messages(machine, "unknown"), "the known images to be listed"
    )
    machine.delete("unknown")


def test_wrong_fields_are_all_named_with_file_and_line(
    machine: MachineLab, bystander: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "apiVersion: serving.kserve.io/v1beta1\n"
        "kind: InferenceService\n"
        "metadata:\n"
        "  name: wrong\n"
        "  annotations: {serving.kserve.io/deploymentMode: Knative}\n"
        "spec:\n"
        "  predictor:\n"
        "    minReplicas: -1\n"
        "    canaryTrafficPercent: 101\n"
        "    model:\n"
        "      modelFormat: {name: xgboost}\n"
        "      storageUri: gopher://old/model\n"
    )
    refused = machine.glowplug("apply", "-f", str(file), check=False)
    assert refused.returncode == 1
    for line, field in ((8, "minReplicas"), (9, "canaryTrafficPercent"), (12, "storageUri")):
        assert f"{file}:{line}" in refused.stderr, refused.stderr
        assert field in refused.stderr
    by_kubectl = machine.kubectl("apply", "-f", str(file), check=False)
    assert by_kubectl.returncode == 1
    assert "minReplicas" in by_kubectl.stderr
    assert "canaryTrafficPercent" in by_kubectl.stderr


def test_unknown_field_is_refused_with_what_was_meant(machine: MachineLab, small_model: pathlib.Path) -> None:
    service = inference_service("typo", small_model, minReplica=1)
    refused = machine.glowplug("apply", "-f", "-", stdin=json.dumps(service), check=False)
    assert refused.returncode == 1
    assert "minReplica" in refused.stderr
    assert "minReplicas" in refused.stderr


def test_broken_yaml_names_the_line(machine: MachineLab, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x\ndata: {}\n")
    refused = machine.glowplug("apply", "-f", str(file), check=False)
    assert refused.returncode == 1
    assert f"{file}:4" in refused.stderr or f"{file}:3" in refused.stderr


def test_unknown_kind(machine: MachineLab, tmp_path: pathlib.Path) -> None:
    refused = machine.glowplug(
        "apply", "-f", "-", stdin="apiVersion: v1\nkind: Teapot\nmetadata: {name: x}\n", check=False
    )
    assert refused.returncode == 1
    assert "Teapot" in refused.stderr


def test_second_up_says_who_holds_the_directory(machine: MachineLab) -> None:
    pid = machine.description["pid"]
    refused = machine.glowplug("up", "--data-dir", str(machine.data_dir), check=False)
    assert refused.returncode == 1
    assert str(pid) in refused.stderr
    assert "glowplug down" in refused.stderr
    # In the background it is what was asked for.
    detached = machine.glowplug("up", "--detach", "--data-dir", str(machine.data_dir))
    assert f"runs already (process {pid})" in detached.stdout + detached.stderr
    assert psutil.pid_exists(pid)


def test_port_in_use_is_named(own_machine: MachineLab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ("--ingress-port", "--api-port", "--broker-port")
        for flag in flags:
            others = [part for other in flags if other != flag for part in (other, "0")]
            refused = own_machine.glowplug(
                "up", "--data-dir", str(own_machine.data_dir), flag, str(port), *others, check=False
            )
            assert refused.returncode == 1
            assert str(port) in refused.stderr
            assert flag in refused.stderr


def test_nothing_outlives_a_killed_machine_and_everything_comes_back(
    own_machine: MachineLab, small_model: pathlib.Path
) -> None:
    own_machine.up()
    service = inference_service("phoenix", small_model)
    own_machine.apply(service)
    own_machine.wait_ready("phoenix")
    uid = own_machine.get("isvc", "phoenix")["metadata"]["uid"]
    processes = own_machine.processes()
    assert len(processes) >= 3  # machine, Envoy, predictor
    own_machine.kill()
    wait_for(lambda: not any(is_alive(process) for process in processes), "every process to be gone", 10)
    own_machine.up()
    own_machine.wait_ready("phoenix")
    assert own_machine.get("isvc", "phoenix")["metadata"]["uid"] == uid
    assert wait_for(
        lambda: own_machine.infer("phoenix", ROWS).status_code == 200, "the model to answer again"
    )
    revisions = own_machine.get("revisions")["items"]
    assert [revision["metadata"]["name"] for revision in revisions] == ["phoenix-predictor-00001"]


def test_down_leaves_nothing_behind(own_machine: MachineLab, small_model: pathlib.Path) -> None:
    own_machine.up()
    own_machine.apply(inference_service("short", small_model))
    own_machine.wait_ready("short")
    processes = own_machine.processes()
    own_machine.down()
    assert not any(is_alive(process) for process in processes)


def test_a_killed_replica_is_restarted(own_machine: MachineLab, small_model: pathlib.Path) -> None:
    own_machine.up()
    own_machine.apply(inference_service("hit", small_model))
    own_machine.wait_ready("hit")
    predictor = next(p for p in own_machine.processes() if "glowplug_xgboost" in " ".join(p.cmdline()))
    os.kill(predictor.pid, 9)
    assert wait_for(
        lambda: own_machine.get("pods")["items"][0]["status"]["containerStatuses"][0]["restartCount"] >= 1,
        "the restart to be counted",
    )
    assert wait_for(lambda: own_machine.infer("hit", ROWS).status_code == 200, "the model to answer again")


@pytest.fixture
def zero_at_first(machine: MachineLab) -> Iterator[dict[str, str]]:
    """Annotations of a service that has no pods until somebody asks for it."""
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    machine.kubectl("create", "namespace", "knative-serving", check=False)
    machine.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"allow-zero-initial-scale": "true"},
        }
    )
    yield {"autoscaling.knative.dev/initial-scale": "0", "autoscaling.knative.dev/window": "6s"}
    machine.kubectl("delete", "configmap", "-n", "knative-serving", "config-autoscaler")


def test_requests_that_wait_for_a_revision_are_served_though_another_takes_over(
    machine: MachineLab, tmp_path: pathlib.Path, zero_at_first: dict[str, str]
) -> None:
    gate = tmp_path / "gate"
    old = container(WORDS="old", GATE="start", GATE_FILE=gate)
    machine.apply(program_service("moved", old, zero_at_first))
    machine.wait_ready("moved")
    label = "-lserving.kserve.io/inferenceservice=moved"
    with ThreadPoolExecutor(5) as executor:
        waiting = [executor.submit(post, machine, "moved") for _ in range(5)]
        wait_for(lambda: machine.get("pods", "", label)["items"], "a pod to start")
        machine.apply(program_service("moved", container(WORDS="new"), zero_at_first))
        routes = ("get", "revision", "moved-predictor-00001", "-o", "jsonpath={.metadata.labels}")
        wait_for(lambda: '"reserve"' in machine.kubectl(*routes).stdout, "the old revision to be left")
        assert post(machine, "moved") == (200, "new")
        assert not any(request.done() for request in waiting)
        gate.touch()
        assert [request.result() for request in waiting] == [(200, "old")] * 5
    machine.delete("moved")


def test_what_a_transformer_still_works_on_finds_its_predictor_when_the_service_is_deleted(
    machine: MachineLab, tmp_path: pathlib.Path
) -> None:
    gate = tmp_path / "gate"
    service = program_service("deleted", container(WORDS="predicted"))
    transformer = container(WORDS="transformed", GATE="answer", GATE_FILE=gate)
    service["spec"]["transformer"] = {"minReplicas": 1, "containers": [transformer]}
    machine.apply(service)
    machine.wait_ready("deleted")
    label = "-lserving.kserve.io/inferenceservice=deleted,component=transformer"
    with ThreadPoolExecutor(3) as executor:
        asked = [executor.submit(post, machine, "deleted") for _ in range(3)]
        wait_for(
            lambda: machine.kubectl("logs", label, "--tail=-1").stdout.count("asked") == 3, "the transformer"
        )
        machine.kubectl("delete", "isvc", "deleted", "--wait=false")
        wait_for(
            lambda: any(
                "deletionTimestamp" in p["metadata"] for p in machine.get("pods", "", label)["items"]
            ),
            "the transformer to be told to end",
        )
        gate.touch()
        assert [request.result() for request in asked] == [(200, "predicted")] * 3
    machine.delete("deleted")


def test_all_replicas_killed_at_once_cost_no_request(machine: MachineLab, small_model: pathlib.Path) -> None:
    machine.apply(inference_service("both", small_model, minReplicas=2, maxReplicas=2))
    machine.wait_ready("both")

    def containers() -> set[int]:
        statuses = [
            status
            for pod in machine.get("pods", "", "-lserving.kserve.io/inferenceservice=both")["items"]
            for status in pod["status"].get("containerStatuses", ())
        ]
        return {int(s["containerID"].removeprefix("process://")) for s in statuses if s.get("ready")}

    before = wait_for(lambda: found if len(found := containers()) == 2 else None, "two ready containers")
    with Load(machine, "both") as load:
        wait_for(lambda: len(load.clients) == 6, "every client to have called")
        for pid in before:
            os.kill(pid, 9)
        wait_for(lambda: len(containers() - before) == 2, "two other containers")
    assert not load.failures, load.told()
    machine.delete("both")


def test_a_killed_envoy_is_replaced_and_the_status_names_the_new_one(
    machine: MachineLab, bystander: str
) -> None:
    before = machine.description["processes"]["envoy"]
    os.kill(before, 9)
    envoy = wait_for(
        lambda: found if (found := machine.description["processes"]["envoy"]) != before else None, "an Envoy"
    )
    wait_for(lambda: "envoy" in psutil.Process(envoy).name(), "that process to be Envoy")
    address = urllib.parse.urlsplit(machine.ingress)

    def is_open() -> bool:
        with socket.socket() as client:
            return client.connect_ex((address.hostname or "", address.port or 0)) == 0

    wait_for(is_open, "the ingress to listen")


def test_kubeconfig_is_for_its_owner_only(machine: MachineLab) -> None:
    assert machine.directory.kubeconfig.stat().st_mode & 0o777 == 0o600
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{machine.description['urls']['api']}/api/v1/pods", context=context)
    assert refused.value.code == 401
    refused.value.close()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
