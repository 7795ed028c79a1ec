"""A whole machine scales on load: to zero and back, up under a burst, and never at the cost of a request."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
from local.machine_lab import MachineLab, Object, inference_service, v2_body, wait_for

ROW = [[0.1, 0.2, 0.3]]
FAST = {"autoscaling.knative.dev/window": "6s"}


def service(
    name: str, model: pathlib.Path, annotations: dict[str, str] | None = None, **predictor: object
) -> Object:
    found = inference_service(name, model, **predictor)
    found["metadata"]["annotations"].update(FAST if annotations is None else annotations)
    return found


def pods(machine: MachineLab, name: str) -> list[Object]:
    found: list[Object] = machine.get("pods", "", f"-lserving.kserve.io/inferenceservice={name}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def autoscaler(machine: MachineLab, name: str) -> Object:
    return machine.get("podautoscalers.autoscaling.internal.knative.dev", f"{name}-predictor-00001")["status"]


@contextmanager
def load(machine: MachineLab, name: str, clients: int) -> Iterator[list[str]]:
    """`clients` that ask without pause and never retry; what failed."""
    failures: list[str] = []
    is_over = threading.Event()
    url = f"{machine.ingress}/serving/default/{name}/v2/models/{name}/infer"

    def ask() -> None:
        with httpx2.Client(timeout=60, trust_env=False) as client:
            while not is_over.is_set():
                try:
                    answer = client.post(url, json=v2_body(ROW))
                except httpx2.HTTPError as error:
                    failures.append(repr(error))
                    continue
                if answer.status_code != 200:
                    failures.append(f"{answer.status_code} {answer.text}")

    with ThreadPoolExecutor(clients) as executor:
        asking = [executor.submit(ask) for _ in range(clients)]
        try:
            yield failures
        finally:
            is_over.set()
        for task in asking:
            task.result()


def test_to_zero_and_back_without_a_failed_request(machine: MachineLab, small_model: pathlib.Path) -> None:
    machine.apply(service("idle", small_model, minReplicas=0))
    machine.wait_ready("idle")
    assert machine.infer("idle", ROW).status_code == 200
    wait_for(lambda: not pods(machine, "idle"), "the idle service to scale to zero", 90)
    status = autoscaler(machine, "idle")
    assert (status["desiredScale"], status["actualScale"]) == (0, 0)
    active = next(c for c in status["conditions"] if c["type"] == "Active")
    assert (active["status"], active["reason"]) == ("False", "NoTraffic")
    # Nobody would call that broken.
    machine.wait_ready("idle")

    with ThreadPoolExecutor(30) as executor:
        answers = list(executor.map(lambda _: machine.infer("idle", ROW), range(30)))
    assert [answer.status_code for answer in answers] == [200] * 30
    assert len(pods(machine, "idle")) == 1
    machine.delete("idle")


def test_a_burst_brings_pods_within_bounds_and_costs_no_request(
    machine: MachineLab, small_model: pathlib.Path
) -> None:
    wide = service(
        "burst", small_model, minReplicas=1, maxReplicas=3, scaleTarget=1, scaleMetric="concurrency"
    )
    machine.apply(wide)
    machine.wait_ready("burst")
    with load(machine, "burst", 1) as failures:
        assert len(pods(machine, "burst")) == 1
    with load(machine, "burst", 12) as failures:
        wait_for(lambda: autoscaler(machine, "burst")["actualScale"] == 3, "three ready pods", 60)
        assert len(pods(machine, "burst")) == 3
    assert failures == []
    wait_for(lambda: len(pods(machine, "burst")) == 1, "the surplus pods to go", 90)
    machine.delete("burst")


def test_container_concurrency_is_kept_and_what_is_over_it_waits(
    machine: MachineLab, small_model: pathlib.Path
) -> None:
    machine.apply(service("narrow", small_model, minReplicas=1, maxReplicas=2, containerConcurrency=1))
    machine.wait_ready("narrow")
    with load(machine, "narrow", 8) as failures:
        wait_for(lambda: autoscaler(machine, "narrow")["actualScale"] == 2, "two ready pods", 60)
    assert failures == []
    machine.delete("narrow")


def test_a_killed_replica_costs_no_request(machine: MachineLab, small_model: pathlib.Path) -> None:
    machine.apply(service("killed", small_model, minReplicas=1))
    machine.wait_ready("killed")

    def container() -> int:
        (pod,) = pods(machine, "killed")
        (status,) = pod["status"]["containerStatuses"]
        return int(status["containerID"].removeprefix("process://")) if status.get("ready") else 0

    with load(machine, "killed", 4) as failures:
        for _ in range(2):
            before = wait_for(container, "a ready container")
            os.kill(before, signal.SIGKILL)
            wait_for(lambda before=before: container() not in (0, before), "another container", 60)
            time.sleep(0.2)
    assert failures == []
    machine.delete("killed")


# Answers anything, unless the file is there: then it never begins to.
_MOODY = """
import http.server, os, pathlib, sys, time
while pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.1)
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    do_POST = do_GET
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""


def moody(name: str, file: pathlib.Path, version: str, **annotations: str) -> Object:
    found = service(name, file, annotations)
    container = {
        "name": "kserve-container",
        "image": "example/moody",
        "command": ["python", "-c", _MOODY, str(file)],
        "env": [{"name": "VERSION", "value": version}],
    }
    found["spec"]["predictor"] = {"minReplicas": 1, "containers": [container]}
    return found


def test_a_replica_that_never_becomes_ready_takes_none_of_the_old_ones_down(
    machine: MachineLab, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "hangs"
    machine.apply(moody("moody", file, "1"))
    machine.wait_ready("moody")
    (first,) = pods(machine, "moody")
    file.touch()
    with load(machine, "moody", 2) as failures:
        # One more replica of the same revision.
        machine.kubectl(
            "annotate",
            "revision",
            "moody-predictor-00001",
            "autoscaling.knative.dev/min-scale=2",
            "--overwrite",
        )
        wait_for(lambda: len(pods(machine, "moody")) == 2, "a second pod")
        wait_for(lambda: autoscaler(machine, "moody")["desiredScale"] == 2, "two pods to be wanted")
        assert autoscaler(machine, "moody")["actualScale"] == 1
        # And another revision, which has three seconds.
        machine.apply(moody("moody", file, "2", **{"serving.knative.dev/progress-deadline": "3s"}))

        def failed() -> bool:
            conditions = machine.get("revision", "moody-predictor-00002")["status"].get("conditions") or []
            return any(each.get("reason") == "ProgressDeadlineExceeded" for each in conditions)

        wait_for(failed, "the second revision to fail", 30)
        kept = [pod["metadata"]["name"] for pod in pods(machine, "moody")]
        assert first["metadata"]["name"] in kept
        assert all("predictor-00001" in name for name in kept)
    assert failures == []
    machine.delete("moody")


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        ("min-scale", "-1", "expected 0 <= -1 <= 2147483647"),
        ("window", "1s", "expected 6s <= 1s <= 1h0m0s"),
        ("target", "nothing", "invalid value: nothing"),
        ("target-burst-capacity", "-2", "invalid value: -2"),
    ],
)
def test_a_wrong_annotation_is_refused_in_knatives_words(
    machine: MachineLab, small_model: pathlib.Path, annotation: str, value: str, expected: str
) -> None:
    wrong = service("wrong", small_model, {f"autoscaling.knative.dev/{annotation}": value})
    refused = machine.kubectl("apply", "-f", "-", stdin=json.dumps(wrong), check=False)
    assert refused.returncode != 0
    assert expected in refused.stderr


def test_the_configmap_of_the_autoscaler_is_kept_to(machine: MachineLab, small_model: pathlib.Path) -> None:
    def config(**data: str) -> Object:
        keys = {key.replace("_", "-"): value for key, value in data.items()}
        metadata = {"name": "config-autoscaler", "namespace": "knative-serving"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": keys}

    machine.kubectl("create", "namespace", "knative-serving", check=False)
    wrong = machine.kubectl("apply", "-f", "-", stdin=json.dumps(config(stable_window="1s")), check=False)
    assert "stable-window = 1s, must be in [6s; 1h0m0s] range" in wrong.stderr
    machine.apply(config(initial_scale="2", enable_scale_to_zero="false", stable_window="6s"))
    machine.apply(service("configured", small_model, {}, minReplicas=0))
    machine.wait_ready("configured")
    # As many at first as the cluster says; later one stays, since none is to go to zero.
    created = machine.kubectl("get", "events", "--field-selector=reason=SuccessfulCreate").stdout
    assert created.count("pod: configured-predictor-00001") == 2
    wait_for(lambda: autoscaler(machine, "configured")["desiredScale"] == 1, "one pod to be desired", 60)
    assert len(pods(machine, "configured")) == 1
    machine.kubectl("delete", "configmap", "-n", "knative-serving", "config-autoscaler")
    machine.delete("configured")


def test_a_recorded_trace_replays_the_same_decisions(
    machine: MachineLab, small_model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    machine.apply(service("recorded", small_model, minReplicas=1))
    machine.wait_ready("recorded")
    wait_for(
        lambda: machine.glowplug("autoscaler", "record", "recorded", check=False).stdout.count("\n") > 3,
        "a trace",
    )
    trace = tmp_path / "trace.jsonl"
    trace.write_text(machine.glowplug("autoscaler", "record", "recorded").stdout)
    replayed = machine.glowplug("autoscaler", "replay", str(trace), "--json").stdout.splitlines()
    assert len(replayed) == len(trace.read_text().splitlines()) - 1
    # Nobody asked for anything.
    assert json.loads(replayed[-1])["desired"] == 0
    unknown = machine.glowplug("autoscaler", "record", "nobody", check=False)
    assert unknown.returncode == 1 and "nobody" in unknown.stderr
    machine.delete("recorded")
