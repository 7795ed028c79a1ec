"""ResNet and BERT, small and with random weights, from the wire to the logits; and the manifests of the examples."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from units.onnx_architectures import small_bert, small_resnet
from units.onnx_models import UNIT, ask, loaded
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.wire import Tensor, v2_json

from onnx.reference import ReferenceEvaluator  # isort: skip
from glowplug_onnx import rows  # isort: skip
from glowplug_onnx.rows import Verdict  # isort: skip

EXAMPLES = UNIT / "examples"
RANDOM = np.random.default_rng(8)
ROWS = 6
MASK = (np.arange(16) < RANDOM.integers(4, 17, (ROWS, 1))).astype(np.int64)
FEEDS: dict[Callable[[Path], Path], dict[str, Any]] = {
    small_resnet: {"pixel_values": RANDOM.normal(size=(ROWS, 3, 32, 32)).astype(np.float32)},
    small_bert: {"input_ids": RANDOM.integers(0, 50, (ROWS, 16)), "attention_mask": MASK},
}


def tensors(feeds: dict[str, Any], start: int, end: int) -> list[Tensor]:
    return [Tensor.from_numpy(name, array[start:end]) for name, array in feeds.items()]


@pytest.mark.parametrize("make", list(FEEDS), ids=lambda make: make.__name__)
async def test_logits_over_the_wire(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    feeds = FEEDS[make]
    path = make(tmp_path)
    expected = ReferenceEvaluator(str(path)).run(None, feeds)[0]
    unit = UnitProcess(tmp_path / "stderr", "glowplug_onnx", f"--model_dir={tmp_path}").wait_until_ready()
    try:
        async with httpx.AsyncClient(timeout=DEADLINE_S, verify=False) as client:

            async def post(start: int, end: int, binary: bool) -> None:
                body, length = v2_json.encode_request(ask(*tensors(feeds, start, end)), binary=binary)
                headers = {} if length is None else {v2_json.HEADER_LENGTH: str(length)}
                answer = await client.post(unit.url + "/v2/models/m/infer", content=body, headers=headers)
                assert answer.status_code == 200, answer.text
                found = v2_json.decode_response(
                    answer.content, header_length=answer.headers.get(v2_json.HEADER_LENGTH)
                )
                np.testing.assert_allclose(
                    found.output("logits").data, expected[start:end], rtol=1e-3, atol=1e-4
                )

            both = (False, True)
            await asyncio.gather(*(post(row, row + 1, binary) for row in range(ROWS) for binary in both))
            await post(0, ROWS, True)
            metadata = (await client.get(unit.url + "/v2/models/m")).json()
    finally:
        unit.stop()
    assert [each["name"] for each in metadata["inputs"]] == list(feeds)
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, expected.shape[1]]}]


@pytest.mark.parametrize("make", list(FEEDS), ids=lambda make: make.__name__)
async def test_their_rows_may_be_batched(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "worth", lambda *_: Verdict(True, "test"))
    model = loaded(make(tmp_path))
    await model.warmup()
    assert model.batching == Verdict(True, "test")


@pytest.mark.parametrize("name", ["resnet50", "bert"])
def test_the_examples_are_services_of_this_runtime(name: str) -> None:
    service = yaml.safe_load((EXAMPLES / name / "isvc.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] == "onnx"
    assert model["storageUri"].startswith("pvc://models/")
    # What it says of itself is true: an example of that name can be exported.
    script = ast.parse((EXAMPLES / "export.py").read_text())
    assert name in {node.name for node in ast.walk(script) if isinstance(node, ast.FunctionDef)}
