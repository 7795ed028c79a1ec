"""Shadow traffic on a real machine: who is tried, what is found, and that no caller notices."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import pathlib
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from local.machine_lab import MachineLab, Object, inference_service, v2_body, wait_for, write_model
from prometheus_client.parser import text_string_to_metric_families

from glowplug.spec import names

ROWS = [[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]

# Answers `MODE`: a number, nothing at all (`hang`), or an answer of that many bytes (`large`).
PROGRAM = """
import json, os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = os.environ["MODE"]

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def do_GET(self):
        self._answer(b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", "0")))
        if MODE == "hang" and "x-glowplug-shadow" in self.headers:
            time.sleep(3600)
        size = 2 * 2**20 if MODE == "large" else 0
        self._answer(json.dumps({"predictions": [float(os.environ["VALUE"])], "pad": "x" * size}).encode())

    def _answer(self, body):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def program(name: str, *, value: float = 1.0, mode: str = "answer", canary: int | None = None) -> Object:
    """An InferenceService that answers `value`, wholly shadowed."""
    service = inference_service(name, pathlib.Path("/"))
    container = {
        "name": "kserve-container",
        "image": "example/program",
        "command": [sys.executable, "-c", PROGRAM],
        "env": [{"name": "VALUE", "value": str(value)}, {"name": "MODE", "value": mode}],
    }
    service["spec"]["predictor"] = {"containers": [container]}
    return shadowed(service, canary)


def shadowed(service: Object, canary: int | None = None, percent: str = "100") -> Object:
    service["metadata"]["annotations"][names.SHADOW] = percent
    if canary is not None:
        service["spec"]["predictor"]["canaryTrafficPercent"] = canary
    return service


def outcomes(machine: MachineLab, name: str) -> dict[tuple[str, str], int]:
    """By the shadow's number and what came of it, from the page of metrics."""
    page = api(machine).get("/metrics").text
    return {
        (sample.labels["shadow"][-1], sample.labels["outcome"]): int(sample.value)
        for family in text_string_to_metric_families(page)
        if family.name == "glowplug_shadow_requests"
        for sample in family.samples
        if sample.labels["service"] == name
    }


@functools.cache
def api(machine: MachineLab) -> httpx2.Client:
    """The machine's API, faster asked than through kubectl."""
    config = yaml.safe_load(machine.directory.kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trust = ssl.create_default_context(
        cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
    )
    headers = {"Authorization": f"Bearer {user['token']}"}
    return httpx2.Client(base_url=cluster["server"], headers=headers, verify=trust, trust_env=False)


def wait_shadow(machine: MachineLab, name: str, number: int) -> None:
    """Until the revision of that number is ready and the machine's own process takes copies."""
    revision = f"{name}-predictor-{number:05}"
    wait_for(
        lambda: machine.get("ksvc", f"{name}-predictor")["status"]["latestReadyRevisionName"] == revision,
        f"{revision} to be ready",
    )
    wait_for(lambda: shadow_process(machine), "the shadow's process")


def shadow_process(machine: MachineLab) -> psutil.Process | None:
    for child in psutil.Process(machine.description["pid"]).children():
        # One that was killed has no command line until it is collected.
        with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if "glowplug.shadow.process" in child.cmdline():
                return child
    return None


def post(machine: MachineLab, name: str, size: int = 0) -> float:
    """One request to the program; what it answered."""
    body = json.dumps({"instances": [1], "pad": "x" * size})
    url = f"{machine.ingress}/serving/default/{name}/v1/models/{name}:predict"
    response = machine.http.post(url, content=body)
    assert response.status_code == 200, response.text
    return float(response.json()["predictions"][0])


def tried(machine: MachineLab, name: str, send: Any, **expected: int) -> None:
    """Sends until the page says so much more than now: the first copies may miss a process that only starts."""
    key = {(kind[-1], kind[:-2]): count for kind, count in expected.items()}
    before = outcomes(machine, name)

    def is_there() -> bool:
        send()
        after = outcomes(machine, name)
        return all(after.get(kind, 0) - before.get(kind, 0) >= count for kind, count in key.items())

    wait_for(is_there, f"{expected} of {name}; found {outcomes(machine, name)}")


@pytest.fixture
def served(machine: MachineLab, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a service that the test applies."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:30].strip("-")
    yield name
    machine.delete(name)


def test_the_new_version_of_a_model_is_tried_unseen(
    machine: MachineLab, served: str, small_model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    write_model(tmp_path / "same")
    write_model(tmp_path / "other", seed=7)
    write_model(tmp_path / "wide", features=4)
    machine.apply(shadowed(inference_service(served, small_model)))
    machine.wait_ready(served)
    answer = machine.infer(served, ROWS).json()["outputs"]
    body = json.dumps(v2_body(ROWS))

    def rest() -> None:
        response = machine.infer(served, ROWS)
        assert response.status_code == 200 and response.json()["outputs"] == answer

    def grpc() -> None:
        said = machine.glowplug("predict", served, "-d", "-", "--grpc", stdin=body).stdout
        assert json.loads(said)["outputs"][0]["data"] == answer[0]["data"]

    for number, folder, outcome in ((2, "same", "equal"), (3, "other", "different"), (4, "wide", "error")):
        machine.apply(shadowed(inference_service(served, tmp_path / folder), 0))
        wait_shadow(machine, served, number)
        tried(machine, served, rest, **{f"{outcome}_{number}": 1})
        tried(machine, served, grpc, **{f"{outcome}_{number}": 1})
    assert set(outcomes(machine, served)) == {("2", "equal"), ("3", "different"), ("4", "error")}
    page = api(machine).get(f"/shadows/default/{served}").json()
    assert "output" in page["differences"][0]["what"]
    assert page["differences"][-1]["what"] in (
        "status 200 and status 400",
        "status OK and status INVALID_ARGUMENT",
    )
    assert page["differences"][-1]["path"].endswith("nfer")
    # Neither the judge nor the access log takes a copy for a request of the canary's.
    metrics = api(machine).get("/metrics").text
    assert (
        f'glowplug_revision_responses_total{{namespace="default",revision="{served}-predictor-00004"'
        not in metrics
    )
    assert f"{served}-predictor-00004" not in (machine.data_dir / "envoy" / "access.log").read_text()


def test_all_of_a_service_is_told_of_in_an_event(machine: MachineLab, served: str) -> None:
    machine.apply(program(served))
    machine.wait_ready(served)
    machine.apply(program(served, value=2.0, canary=0))
    wait_shadow(machine, served, 2)
    tried(machine, served, lambda: post(machine, served), different_2=20)
    field = f"--field-selector=involvedObject.name={served},reason=ShadowDiffers"
    (event,) = wait_for(lambda: machine.get("events", "", field)["items"], "an event")
    assert event["involvedObject"]["kind"] == "InferenceService"
    assert (
        f"{served}-predictor-00002 differs from {served}-predictor-00001 in 20 of the last"
        in event["message"]
    )
    assert "predictions: 1.0 and 2.0" in event["message"].replace("[0]", "")


def test_the_share_is_the_one_asked_for(machine: MachineLab, served: str) -> None:
    machine.apply(program(served))
    machine.wait_ready(served)
    machine.apply(shadowed(program(served, canary=0, value=1.0, mode="again"), percent="30"))
    wait_shadow(machine, served, 2)
    tried(machine, served, lambda: post(machine, served), equal_2=1)
    before = outcomes(machine, served)[("2", "equal")]
    for _ in range(400):
        assert post(machine, served) == 1.0
    seen = (
        wait_for(lambda: steady(lambda: outcomes(machine, served)[("2", "equal")]), "the count to rest")
        - before
    )
    # 30 % of 400 is 120; 99.9 % of all binomial samples are within 30 of it.
    assert 90 <= seen <= 150
    assert set(outcomes(machine, served)) == {("2", "equal")}


def steady(read: Any) -> int:
    """What `read` gives, if it gives the same a report later; else 0."""
    first = read()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        if read() != first:
            return 0
    return int(first)


def test_a_shadow_that_hangs_or_answers_too_much_delays_nobody(machine: MachineLab, served: str) -> None:
    machine.apply(program(served))
    machine.wait_ready(served)
    machine.apply(program(served, mode="large", canary=0))
    wait_shadow(machine, served, 2)
    tried(machine, served, lambda: post(machine, served), too_large_2=1)
    tried(machine, served, lambda: post(machine, served, size=2 * 2**20), too_large_2=1)
    machine.apply(program(served, mode="hang", canary=0))
    wait_shadow(machine, served, 3)
    # Eight at a time hang, 64 wait, the others are dropped.
    tried(machine, served, lambda: post(machine, served), dropped_3=5)
    # Ends what hangs: its requests are over, and the next revision is tried.
    machine.apply(program(served, value=1.0, canary=0, mode="better"))
    wait_shadow(machine, served, 4)
    tried(machine, served, lambda: post(machine, served), equal_4=5)


def test_copies_that_nobody_takes_delay_nobody(machine: MachineLab, served: str) -> None:
    machine.apply(program(served))
    machine.wait_ready(served)
    machine.apply(program(served, canary=0, mode="again"))
    wait_shadow(machine, served, 2)
    tried(machine, served, lambda: post(machine, served), equal_2=1)
    process = shadow_process(machine)
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        # They wait for it.
        assert all(post(machine, served) == 1.0 for _ in range(400))
        # More than may wait.
        assert all(post(machine, served, size=2**20) == 1.0 for _ in range(40))
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert post(machine, served) == 1.0
    wait_for(lambda: (p := shadow_process(machine)) and p.pid != process.pid, "another process")
    tried(machine, served, lambda: post(machine, served), equal_2=1)


@pytest.fixture
def starts_at_zero(machine: MachineLab) -> Iterator[None]:
    """Services may start without a pod."""
    metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}}
    data = {"allow-zero-initial-scale": "true"}
    machine.apply(namespace, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    yield
    machine.kubectl("delete", "configmap", "-n", "knative-serving", "config-autoscaler")


def test_a_revision_at_zero_is_woken_to_be_tried(
    machine: MachineLab, starts_at_zero: None, served: str
) -> None:
    def service(value: float, canary: int | None = None) -> Object:
        made = program(served, value=value, canary=canary)
        made["metadata"]["annotations"]["autoscaling.knative.dev/initial-scale"] = "0"
        made["spec"]["predictor"]["minReplicas"] = 0
        return made

    machine.apply(service(1.0))
    machine.wait_ready(served)
    assert post(machine, served) == 1.0
    machine.apply(service(3.0, 0))
    wait_shadow(machine, served, 2)
    pods = f"-lserving.knative.dev/revision={served}-predictor-00002"
    assert not machine.get("pods", "", pods)["items"]
    tried(machine, served, lambda: post(machine, served), different_2=1)
    assert machine.get("pods", "", pods)["items"]


def test_a_wrong_percentage_is_refused(machine: MachineLab) -> None:
    service = shadowed(inference_service("refused", pathlib.Path("/m")), percent="200")
    said = machine.kubectl("apply", "-f", "-", stdin=json.dumps(service), check=False)
    assert said.returncode == 1
    assert names.SHADOW in said.stderr and "from 0 to 100" in said.stderr


def test_the_process_goes_with_the_last_shadow(machine: MachineLab, served: str) -> None:
    machine.apply(program(served))
    machine.wait_ready(served)
    machine.apply(program(served, canary=0, mode="again"))
    wait_shadow(machine, served, 2)
    machine.apply(program(served, mode="again"))
    wait_for(lambda: shadow_process(machine) is None, "the shadow's process to end")
