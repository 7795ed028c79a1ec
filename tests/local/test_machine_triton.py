"""Triton as a ServingRuntime of the local machine: a model repository, changed and tuned while it is served."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
from local.machine_lab import MachineLab, inference_service, wait_for
from units.triton_lab import FEATURES, Hammer, glowplug, require_triton, v2, write_forest

from glowplug.triton.pbtxt import parse
from glowplug.triton.settings import setting_of

ROWS = np.random.default_rng(3).random((3, FEATURES), dtype=np.float32)
NAME = "triton"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A model repository with one XGBoost model, as the command makes it."""
    require_triton()
    folder = tmp_path_factory.mktemp("triton")
    write_forest(folder / "sum.ubj")
    out = folder / "repository"
    glowplug("triton", "build", str(folder / "sum.ubj"), "--out", str(out), "--backend", "python")
    return out


@pytest.fixture(scope="module")
def served(machine: MachineLab, repository: pathlib.Path) -> Iterator[str]:
    """The URL of the InferenceService."""
    service = inference_service(NAME, repository)
    service["spec"]["predictor"]["model"]["modelFormat"] = {"name": "triton"}
    service["spec"]["predictor"]["model"]["args"] = ["--repository_poll_s=1"]
    machine.apply(service)
    yield machine.wait_ready(NAME)["status"]["url"]
    machine.delete(NAME)


def test_rest_and_grpc_through_the_ingress(machine: MachineLab, served: str) -> None:
    body = json.dumps(v2("input__0", ROWS))
    rest = json.loads(machine.glowplug("predict", NAME, "--model", "sum", "-d", "-", stdin=body).stdout)
    grpc = json.loads(
        machine.glowplug("predict", NAME, "--model", "sum", "-d", "-", "--grpc", stdin=body).stdout
    )
    assert rest["outputs"][0]["data"] == pytest.approx(ROWS.sum(axis=1).tolist(), abs=0.6)
    assert rest["outputs"][0]["data"] == pytest.approx(grpc["outputs"][0]["data"], rel=1e-5)
    by_host = machine.http.post(
        f"{machine.ingress}/v2/models/sum/infer", content=body, headers={"Host": f"{NAME}.default.localhost"}
    )
    assert by_host.json()["outputs"][0]["data"] == pytest.approx(rest["outputs"][0]["data"], rel=1e-5)


def test_a_new_version_in_the_repository_is_served_without_a_new_pod(
    machine: MachineLab, served: str, repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    write_forest(tmp_path / "sum.ubj", seed=1)
    pods = {pod["metadata"]["uid"] for pod in machine.get("pods")["items"]}
    with Hammer(f"{served}/v2/models/sum/infer", v2("input__0", ROWS)) as hammer:
        wait_for(lambda: len(hammer.answers) > 20, "first answers")
        glowplug(
            "triton", "build", str(tmp_path / "sum.ubj"), "--out", str(repository), "--backend", "python"
        )
        wait_for(lambda: hammer.versions(20) == {"2"}, "the second version")
    assert {status for status, _, _ in hammer.answers} == {200}
    assert {pod["metadata"]["uid"] for pod in machine.get("pods")["items"]} == pods


def test_a_new_revision_replaces_the_pod_and_no_request_is_lost(
    machine: MachineLab, served: str, tmp_path: pathlib.Path
) -> None:
    """Tuning by the InferenceService's name needs a server that loads on request: a changed argument, a new pod."""
    args = ["--model_control_mode=explicit"]
    patch = {"spec": {"predictor": {"model": {"args": args}}}}
    before = machine.get("isvc", NAME)["status"]["components"]["predictor"]["latestReadyRevision"]

    def is_replaced() -> bool:
        status = machine.get("isvc", NAME)["status"]["components"]["predictor"]
        return status["latestReadyRevision"] != before and len(machine.get("pods")["items"]) == 1

    with Hammer(f"{served}/v2/models/sum/infer", v2("input__0", ROWS)) as hammer:
        wait_for(lambda: len(hammer.answers) > 20, "first answers")
        machine.kubectl("patch", "isvc", NAME, "--type=merge", "-p", json.dumps(patch))
        wait_for(is_replaced, "the old pod to be gone")
    assert {status for status, _, _ in hammer.answers} == {200}
    ran = machine.glowplug(
        "triton", "tune", NAME, "--model", "sum", "--slo-p99-ms", "1000", "--batch-sizes", "8", "--delays-us", "0",
        "--instances", "1", "--concurrency", "8", "--window-ms", "200", "--out", str(tmp_path),
    )  # fmt: skip
    assert "loaded until the server restarts" in ran.stderr
    text = (tmp_path / "report.md").read_text()
    assert "before" in text and "chosen" in text
    kept = setting_of(parse((tmp_path / "tuned.pbtxt").read_text(), "tuned.pbtxt"))
    live = machine.http.get(f"{served}/v2/models/sum/config").json()
    assert live["max_batch_size"] == kept.max_batch_size
    assert live["dynamic_batching"]["max_queue_delay_microseconds"] == kept.max_queue_delay_us
