"""The Hugging Face predictor as a process with real weights: MiniLM's embeddings, against transformers' own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from units.huggingface_lab import (
    UNIT,
    import_torch,
    minilm,
    minilm_cache,
    needs_minilm,
    run_unit,
    text_request,
)
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.wire import InferRequest, Tensor, v2_json

pytestmark = needs_minilm
pytest.importorskip("onnxruntime")

TEXTS = [
    "The flight to Chicago was delayed by two hours.",
    "Our plane left for Chicago two hours late.",
    "My grandmother bakes the best apple pie.",
    "",
    "Grüße aus 東京 👍🏽 — naïve café",
    "a long report about the weather at sea " * 60,
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minilm_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def unit(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnitProcess]:
    log = tmp_path_factory.mktemp("minilm") / "stderr"
    server = UnitProcess(log, "glowplug_huggingface", f"--model_dir={minilm()}", f"--cache_dir={cache}")
    yield server.wait_until_ready()
    server.stop()


@pytest.fixture(scope="module")
def expected() -> Any:
    """sentence-transformers' formula on transformers' own model and tokenizer: the mean of the tokens, normalised."""
    torch, transformers = import_torch()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(minilm()), local_files_only=True)
    model = transformers.AutoModel.from_pretrained(str(minilm()), local_files_only=True).eval()
    encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        states = model(**encoded).last_hidden_state
    mask = encoded["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1).numpy()


def post(server: UnitProcess, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    # No certificates to load: everything is plain HTTP.
    with httpx.Client(timeout=DEADLINE_S, verify=False) as client:
        return client.post(server.url + path, content=content, headers=headers)


def texts_item(*texts: str) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


def embedded(server: UnitProcess, request: InferRequest) -> Any:
    body, length = v2_json.encode_request(request, binary=True)
    answer = post(server, "/v2/models/m/infer", body, **{v2_json.HEADER_LENGTH: str(length)})
    assert answer.status_code == 200, answer.text
    header = answer.headers.get(v2_json.HEADER_LENGTH)
    return v2_json.decode_response(answer.content, header_length=header).output("embedding").data


def test_embeddings_are_those_of_sentence_transformers(unit: UnitProcess, expected: Any) -> None:
    found = embedded(unit, text_request(*TEXTS))
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), 384))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    answer = post(unit, "/v2/models/m/infer", {"inputs": [texts_item(*TEXTS)], "id": "7"}).json()
    assert answer["id"] == "7"
    np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], expected.shape), expected, atol=1e-5)
    answer = post(unit, "/v1/models/m:predict", {"instances": TEXTS})
    np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-5)


def test_similar_sentences_are_closer(unit: UnitProcess) -> None:
    late, delayed, pie = embedded(unit, text_request(*TEXTS[:3]))
    assert late @ delayed > 0.6
    assert late @ pie < 0.2
    assert delayed @ pie < 0.2


def test_tokens_give_what_their_text_gives(unit: UnitProcess, expected: Any) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    tokenizer.enable_padding(length=128)
    rows = tokenizer.encode_batch(TEXTS[:3])
    ids, mask = (np.array([getattr(row, key) for row in rows]) for key in ("ids", "attention_mask"))
    tensors = (Tensor.from_numpy("attention_mask", mask), Tensor.from_numpy("input_ids", ids))
    np.testing.assert_allclose(embedded(unit, InferRequest("m", tensors)), expected[:3], atol=1e-5)
    columns = {"input_ids": ids[:1, :5].tolist()}
    assert post(unit, "/v1/models/m:predict", {"inputs": columns}).status_code == 200


def batches(server: UnitProcess) -> tuple[float, float]:
    """How many there were so far, and of how many rows in all."""
    text = httpx.get(server.url + "/metrics").text
    found = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("glowplug_batch_rows_")
    }
    return found["glowplug_batch_rows_count"], found["glowplug_batch_rows_sum"]


async def test_requests_share_batches_and_get_their_own_answers(unit: UnitProcess, expected: Any) -> None:
    before = batches(unit)
    async with httpx.AsyncClient(timeout=DEADLINE_S, verify=False) as client:

        async def ask(index: int) -> Any:
            body = orjson.dumps({"inputs": [texts_item(TEXTS[index])]})
            answer = await client.post(unit.url + "/v2/models/m/infer", content=body)
            return np.array(answer.json()["outputs"][0]["data"])

        indices = [index % len(TEXTS) for index in range(24)]
        wrong = client.post(unit.url + "/v2/models/m/infer", content=orjson.dumps({"inputs": []}))
        *found, refused = await asyncio.gather(*map(ask, indices), wrong)
    assert refused.status_code == 400
    np.testing.assert_allclose(np.stack(found), expected[indices], atol=1e-5)
    count, rows = np.subtract(batches(unit), before)
    assert rows == 24
    assert count < 24


async def test_kserves_clients(unit: UnitProcess, expected: Any) -> None:
    kserve: Any = pytest.importorskip("kserve")
    made = kserve.InferInput("text", [2], "BYTES")
    made.set_data_from_numpy(np.array([text.encode() for text in TEXTS[:2]], dtype=object), binary_data=True)
    asked = kserve.InferRequest(model_name="m", infer_inputs=[made])
    rpc = kserve.InferenceGRPCClient(unit.grpc, timeout=DEADLINE_S)
    assert await rpc.is_model_ready("m")
    answer = await rpc.infer(asked)
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), expected[:2], atol=1e-5)
    await rpc.close()


def test_metadata(unit: UnitProcess) -> None:
    found = httpx.get(unit.url + "/v2/models/m").json()
    assert found["platform"] == "huggingface_onnx"
    assert found["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"inputs": [{"name": "text", "datatype": "FP32", "shape": [1], "data": [1]}]},
            "tensor 'text': datatype",
        ),
        (
            {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [1]}]},
            "tensor 'text': element 0",
        ),
        ({"inputs": [texts_item(*["a"] * 257)]}, "tensor 'text': 257 rows, at most 256"),
        ({"inputs": [texts_item("a" * 70_000)]}, "tensor 'text': text 0 has 70000 bytes"),
        (
            {"inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [1, 1], "data": [30522]}]},
            "'input_ids'",
        ),
        ({"inputs": [texts_item("a")], "outputs": [{"name": "logits"}]}, "no output 'logits'"),
    ],
)
def test_mistakes_are_400(unit: UnitProcess, body: Any, said: str) -> None:
    answer = post(unit, "/v2/models/m/infer", body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from(["text", "input_ids", "attention_mask", "x"]), max_size=3),
    shape=st.lists(st.sampled_from([0, 1, 2, 130]), max_size=3),
    datatype=st.sampled_from(["INT64", "INT32", "BYTES", "FP32", "BOOL"]),
    item=st.one_of(st.integers(-2, 40000), st.text(max_size=20), st.just(2**63 - 1), st.booleans()),
)
def test_no_request_makes_a_5xx(
    unit: UnitProcess, names: list[str], shape: list[int], datatype: str, item: Any
) -> None:
    count = int(np.prod(shape, dtype=int))
    items = [{"name": name, "datatype": datatype, "shape": shape, "data": [item] * count} for name in names]
    answer = post(unit, "/v2/models/m/infer", {"inputs": items})
    assert answer.status_code < 500, answer.text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_text_or_refused(unit: UnitProcess, data: bytes) -> None:
    body, length = v2_json.encode_request(text_request(data), binary=True)
    answer = post(unit, "/v2/models/m/infer", body, **{v2_json.HEADER_LENGTH: str(length)})
    try:
        data.decode()
    except UnicodeDecodeError:
        assert answer.status_code == 400
        assert "tensor 'text': text 0 is not UTF-8" in answer.json()["error"]
    else:
        assert answer.status_code == 200, answer.text


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_a_process_with_a_cached_export_holds_no_torch(unit: UnitProcess) -> None:
    libraries = {Path(item.path).name for item in psutil.Process(unit.process.pid).memory_maps()}
    assert any("onnxruntime" in name for name in libraries)
    assert not [name for name in libraries if "torch" in name]


def test_heavy_packages_stay_out(cache: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
import glowplug_huggingface.__main__
before = [name for name in ("onnxruntime", "tokenizers") if name in sys.modules]
from glowplug_huggingface.model import HuggingFaceModel
from glowplug_huggingface.settings import TextConfig
model = HuggingFaceModel("m", {str(minilm())!r}, TextConfig(cache_dir=Path({str(cache)!r})))
asyncio.run(model.load())
model.warmup()
heavy = ("torch", "transformers", "huggingface_hub", "onnx", "scipy", "pandas", "kserve")
print(before, [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[] []", done.stderr


def test_an_export_beside_the_model_needs_no_cache(cache: Path, tmp_path: Path) -> None:
    """How an image without torch gets its model."""
    place = tmp_path / "model"
    place.mkdir()
    for item in minilm().iterdir():
        (place / item.name).symlink_to(item)
    (place / ".glowplug").symlink_to(cache)
    (tmp_path / "file").touch()
    ran = run_unit(
        "--export", f"--model_dir={place}", f"--cache_dir={tmp_path / 'file'}", timeout_s=DEADLINE_S
    )
    assert ran.returncode == 0, ran.stderr
    assert "differs from torch by" in ran.stderr
    path = Path(ran.stdout.strip())
    assert path.is_relative_to(place / ".glowplug")
    assert path.name == "model.onnx"
