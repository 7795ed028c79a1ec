"""Texts on a whole machine, with the units' own manifests: text → ONNX in one pod and in two, and MiniLM."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import yaml
from local.machine_lab import MachineLab, Object
from units.huggingface_lab import UNIT as HUGGINGFACE
from units.huggingface_lab import minilm, minilm_cache, needs_minilm

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")
from units.text_lab import UNIT as TEXT
from units.text_lab import scores_of, write_net, write_tokenizer

TEXTS = ["Good film", "", "very bad films"]
EXPECTED = scores_of(
    ["[CLS]", "good", "film", "[SEP]"],
    ["[CLS]", "[SEP]"],
    ["[CLS]", "very", "bad", "film", "##s", "[SEP]"],
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("text")
    write_net(folder / "model.onnx", length=128)
    write_tokenizer(folder / "tokenizer.json")
    return folder


def manifest(path: pathlib.Path, uri: str) -> Object:
    """The file with another model."""
    service: Object = yaml.safe_load(path.read_text())
    service["spec"]["predictor"]["model"]["storageUri"] = uri
    for container in service["spec"].get("transformer", {}).get("containers", []):
        container["env"] = [{"name": "STORAGE_URI", "value": uri}]
    return service


def predictions(machine: MachineLab, name: str) -> Any:
    url = f"{machine.ingress}/serving/default/{name}/v1/models/{name}:predict"
    answer = machine.http.post(url, json={"instances": TEXTS})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


@pytest.mark.parametrize("placement", ["isvc.yaml", "isvc-separate.yaml"])
def test_texts_to_scores(machine: MachineLab, model: pathlib.Path, placement: str) -> None:
    machine.apply(manifest(TEXT / placement, model.as_uri()))
    machine.wait_ready("reviews")
    np.testing.assert_allclose(predictions(machine, "reviews"), EXPECTED, atol=1e-5)
    item = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}
    wrong = machine.http.post(
        f"{machine.ingress}/serving/default/reviews/v2/models/reviews/infer",
        json={"inputs": [{**item, "datatype": "FP32", "data": [1]}]},
    )
    assert wrong.status_code == 400
    assert "tensor 'text': datatype is FP32" in wrong.text
    machine.delete("reviews")


@needs_minilm
def test_embeddings_of_minilm(machine: MachineLab, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = minilm_cache(tmp_path_factory)
    service = manifest(HUGGINGFACE / "isvc.yaml", minilm().as_uri())
    service["spec"]["predictor"]["model"]["args"] = [f"--cache_dir={cache}"]
    machine.apply(service)
    machine.wait_ready("minilm")
    good, _, bad = np.array(predictions(machine, "minilm"))
    (again,) = [np.array(row) for row in predictions(machine, "minilm")[:1]]
    np.testing.assert_allclose(np.linalg.norm([good, bad], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(good, again, atol=1e-6)
    assert good @ bad < 0.9
    machine.delete("minilm")
