"""The main job, as a user does it: apply with kubectl, call over REST and gRPC, change, roll back, delete."""

from __future__ import annotations

import json
import pathlib
import threading

import pytest
from local.machine_lab import MachineLab, inference_service, v2_body, wait_for, write_model

ROWS = [[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]


@pytest.fixture
def served(machine: MachineLab, small_model: pathlib.Path, request: pytest.FixtureRequest):
    """An applied and ready InferenceService with the test's name."""
    name = request.node.name.replace("test_", "").replace("_", "-")[:40].strip("-")
    machine.apply(inference_service(name, small_model))
    machine.wait_ready(name)
    yield name
    machine.delete(name)


def answers(response) -> list[float]:
    assert response.status_code == 200, response.text
    return response.json()["outputs"][0]["data"]


def test_v2_by_path(machine: MachineLab, served: str) -> None:
    assert answers(machine.infer(served, ROWS)) == pytest.approx([0.6, 2.4], abs=0.3)


def test_v2_by_host(machine: MachineLab, served: str) -> None:
    response = machine.http.post(
        f"{machine.ingress}/v2/models/{served}/infer",
        json=v2_body(ROWS),
        headers={"Host": f"{served}.default.localhost"},
    )
    assert answers(response) == pytest.approx([0.6, 2.4], abs=0.3)


def test_v1(machine: MachineLab, served: str) -> None:
    response = machine.http.post(
        f"{machine.ingress}/serving/default/{served}/v1/models/{served}:predict", json={"instances": ROWS}
    )
    assert response.status_code == 200, response.text
    assert response.json()["predictions"] == pytest.approx([0.6, 2.4], abs=0.3)


def test_status_url_works_as_it_stands(machine: MachineLab, served: str) -> None:
    url = machine.get("isvc", served)["status"]["url"]
    response = machine.http.get(f"{url}/v2/models/{served}/ready")
    assert response.status_code == 200


def test_predict_command_rest_and_grpc_agree(machine: MachineLab, served: str) -> None:
    body = json.dumps(v2_body(ROWS))
    rest = json.loads(machine.glowplug("predict", served, "-d", "-", stdin=body).stdout)
    grpc = json.loads(machine.glowplug("predict", served, "-d", "-", "--grpc", stdin=body).stdout)
    assert rest["outputs"][0]["data"] == pytest.approx(grpc["outputs"][0]["data"])
    assert rest["outputs"][0]["data"] == pytest.approx([0.6, 2.4], abs=0.3)


def test_objects_are_those_of_a_cluster(machine: MachineLab, served: str) -> None:
    revision = f"{served}-predictor-00001"
    assert machine.get("ksvc", f"{served}-predictor")["status"]["latestReadyRevisionName"] == revision
    assert machine.get("revision", revision)["status"]["actualReplicas"] == 1
    status = machine.get("isvc", served)["status"]
    assert status["components"]["predictor"]["latestReadyRevision"] == revision
    assert status["modelStatus"]["states"]["activeModelState"] == "Loaded"
    assert {c["type"]: c["status"] for c in status["conditions"]}["PredictorReady"] == "True"
    table = machine.kubectl("get", "isvc", served).stdout.split("\n")
    assert table[0].split() == [
        "NAME", "URL", "READY", "PREV", "LATEST", "PREVROLLEDOUTREVISION", "LATESTREADYREVISION", "AGE",
    ]  # fmt: skip
    assert revision in table[1]


def test_logs(machine: MachineLab, served: str) -> None:
    pod = machine.get("pods", "", f"-lserving.kserve.io/inferenceservice={served}")["items"][0]["metadata"][
        "name"
    ]
    by_kubectl = machine.kubectl("logs", pod, "-c", "kserve-container").stdout
    by_name = machine.glowplug("logs", served).stdout
    assert by_kubectl.strip()
    # It may have gone on in between.
    assert by_name.startswith(by_kubectl)


def test_a_new_version_drops_no_request(machine: MachineLab, served: str, tmp_path: pathlib.Path) -> None:
    write_model(tmp_path / "second", seed=1)
    statuses: list[int] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            statuses.append(machine.infer(served, ROWS).status_code)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    machine.apply(inference_service(served, tmp_path / "second"))
    second = f"{served}-predictor-00002"

    def is_moved() -> bool:
        status = machine.get("isvc", served)["status"]
        pods = machine.get("pods", "", f"-lserving.knative.dev/revision={served}-predictor-00001")["items"]
        return status["components"]["predictor"].get("latestRolledoutRevision") == second and not pods

    wait_for(is_moved, "the second revision to take over")
    stop.set()
    for caller in callers:
        caller.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_canary_percent_and_rollback(machine: MachineLab, served: str, tmp_path: pathlib.Path) -> None:
    write_model(tmp_path / "second", seed=1)
    machine.apply(inference_service(served, tmp_path / "second", canaryTrafficPercent=30))

    def traffic() -> dict[str, int]:
        listed = machine.get("ksvc", f"{served}-predictor")["status"].get("traffic", [])
        return {target["revisionName"]: target.get("percent", 0) for target in listed}

    first, second = f"{served}-predictor-00001", f"{served}-predictor-00002"
    assert wait_for(lambda: traffic() == {first: 70, second: 30}, "the canary's share")
    assert {machine.infer(served, ROWS).status_code for _ in range(20)} == {200}
    machine.kubectl(
        "patch", "isvc", served, "--type=merge", "-p", '{"spec":{"predictor":{"canaryTrafficPercent":0}}}'
    )
    assert wait_for(lambda: traffic().get(first) == 100, "the rollback")


def test_transformer_as_a_component_of_its_own(
    machine: MachineLab, small_model: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """User code: a kserve.Model transformer run as written, which finds its predictor by the name KServe gives it."""
    pytest.importorskip("kserve", reason="user code here is a kserve.Model")
    script = tmp_path / "doubling.py"
    script.write_text(DOUBLING)
    service = inference_service("doubled", small_model)
    service["spec"]["transformer"] = {
        "containers": [
            {"name": "kserve-container", "image": "example/doubling", "command": ["python", str(script)],
             "args": ["--http_port=$(PORT)", "--predictor_protocol=v2"]}
        ]
    }  # fmt: skip
    machine.apply(service)
    machine.wait_ready("doubled")
    assert answers(machine.infer("doubled", [[0.1, 0.1, 0.1]])) == pytest.approx([0.6], abs=0.3)
    machine.delete("doubled")


DOUBLING = '''
import argparse, os
import kserve
from glowplug.serving import ServerConfig, arguments, serve

class Doubling(kserve.Model):
    """Doubles every input, then asks the predictor."""

    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    def preprocess(self, payload, headers=None):
        tensor = payload.inputs[0]
        values = (tensor.as_numpy() * 2).tolist()
        doubled = kserve.InferInput(tensor.name, tensor.shape, tensor.datatype, data=values)
        return kserve.InferRequest(model_name=self.name, infer_inputs=[doubled])

if __name__ == "__main__":
    options = argparse.ArgumentParser(parents=[arguments()]).parse_args()
    config = ServerConfig.from_options(options, os.environ)
    raise SystemExit(serve([Doubling(config.model_name)], config))
'''
