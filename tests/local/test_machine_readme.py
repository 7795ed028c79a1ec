"""The README's own files, taken out of it and served: what a newcomer copies works."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from local.machine_lab import MachineLab, v2_body

README = (pathlib.Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_inference_service(machine: MachineLab, small_model: pathlib.Path) -> None:
    (text,) = [block for block in blocks("yaml") if "my-model.yaml" in block]
    service = yaml.safe_load(text.replace("/home/you/models/my-model", str(small_model)))
    machine.apply(service)
    status = machine.wait_ready("my-model")["status"]
    answer = machine.http.post(f"{status['url']}/v2/models/my-model/infer", json=v2_body([[0.1, 0.2, 0.3]]))
    assert answer.status_code == 200, answer.text
    machine.delete("my-model")


def test_ones_own_code(machine: MachineLab, tmp_path: pathlib.Path) -> None:
    (code,) = [block for block in blocks("python") if "doubling.py" in block]
    (tmp_path / "doubling.py").write_text(code)
    (text,) = [block for block in blocks("yaml") if "example/doubling" in block]
    spec = yaml.safe_load(text.replace("/home/you/doubling.py", str(tmp_path / "doubling.py")))
    machine.apply(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "doubling", "annotations": {"serving.kserve.io/deploymentMode": "Knative"}},
            "spec": spec,
        }
    )
    machine.wait_ready("doubling")
    assert machine.infer("doubling", [[1.0, 2.5]]).json()["outputs"][0]["data"] == pytest.approx([2.0, 5.0])
    by_grpc = machine.glowplug(
        "predict",
        "doubling",
        "--grpc",
        stdin='{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [3]}]}',
    )
    assert "6.0" in by_grpc.stdout
    machine.delete("doubling")
