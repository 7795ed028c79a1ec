"""The text transformer: tokens, requests, predictors that fit or not; then the whole path over real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.errors import ConfigError, InferenceError, StorageError
from glowplug.serving import TensorSpec
from glowplug.wire import InferRequest, Tensor, v2_json
from glowplug.wire.v2_grpc import ModelMetadata

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")
from units.text_lab import NAMES, SEGMENTS, UNIT, scores_of, write_net, write_tokenizer

sys.path.insert(0, str(UNIT / "src"))
from glowplug_text.fit import Taken, fit, tensors
from glowplug_text.payload import texts_of
from glowplug_text.settings import TextConfig
from glowplug_text.tokens import IDS, MASK, TYPES, Tokenizer

TEXTS = ["Good film", "", "very  BAD films 東京 zzz", "good " * 500]
LENGTH = 8
WORDS = [
    ["[CLS]", "good", "film", "[SEP]"],
    ["[CLS]", "[SEP]"],
    ["[CLS]", "very", "bad", "film", "##s", "東", "京", "[SEP]"],
    ["[CLS]", *["good"] * (LENGTH - 2), "[SEP]"],
]
EXPECTED = scores_of(*WORDS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as predictor and transformer share it: model.onnx and tokenizer.json."""
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder / "tokenizer.json")
    write_net(folder / "model.onnx")
    return folder


def test_texts_become_padded_tokens(place: Path) -> None:
    arrays = Tokenizer(place, TextConfig(max_length=LENGTH))(TEXTS)
    assert {array.shape for array in arrays.values()} == {(4, LENGTH)}
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}
    assert arrays[IDS][0].tolist() == [2, 4, 6, 3, 0, 0, 0, 0]
    assert arrays[IDS][2].tolist() == [2, 8, 5, 6, 7, 9, 10, 3]
    assert arrays[IDS][3].tolist() == [2, *[4] * 6, 3]
    assert arrays[MASK].sum(axis=1).tolist() == [4, 2, 8, 8]
    assert not arrays[TYPES].any()
    longest = Tokenizer(place / "tokenizer.json", TextConfig(max_length=LENGTH, padding="longest"))
    assert longest(TEXTS[:2])[IDS].shape == (2, 4)
    padded = Tokenizer(place, TextConfig(max_length=LENGTH, pad_id=9))([""])[IDS]
    assert padded.tolist() == [[2, 3, 9, 9, 9, 9, 9, 9]]


def test_the_tokenizers_own_padding_is_kept_in_part(place: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library

    made = Library.from_file(str(place / "tokenizer.json"))
    made.enable_padding(pad_id=7, pad_type_id=1, length=99)
    made.enable_truncation(3)
    made.save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer(tmp_path, TextConfig(max_length=5))(["good film"])
    assert found[IDS].tolist() == [[2, 4, 6, 3, 7]]
    assert found[TYPES].tolist() == [[0, 0, 0, 0, 1]]


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"tokenizer\.json does not exist"):
        Tokenizer(tmp_path, TextConfig())
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(StorageError, match="is no tokenizer") as caught:
        Tokenizer(tmp_path, TextConfig())
    assert "\n" not in caught.value.message
    for wrong in ({"max_length": 0}, {"padding": "none"}, {"pad_id": -1}):
        with pytest.raises(ConfigError):
            TextConfig(**wrong)  # type: ignore[arg-type]


def request(*texts: str | bytes, shape: tuple[int, ...] | None = None) -> InferRequest:
    return InferRequest("m", (Tensor.from_strings("text", texts, shape),))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (InferRequest("m", ()), "0 inputs, expected one BYTES tensor"),
        (
            InferRequest("m", (Tensor.from_numpy("x", np.zeros(3)),)),
            "tensor 'x': datatype is FP64, expected BYTES",
        ),
        (request("a", "b", shape=(1, 2)), "tensor 'text': shape is [1, 2], expected [n]"),
        (request(), "tensor 'text': 0 texts, expected 1 to 2"),
        (request("a", "b", "c"), "tensor 'text': 3 texts, expected 1 to 2"),
        (request("a", "b" * 10), "tensor 'text': text 1 has 10 bytes, at most 9 are allowed"),
        (request("a", b"a\xff"), "tensor 'text': text 1 is not UTF-8 (byte 1)"),
    ],
)
def test_requests_that_are_no_texts(asked: InferRequest, said: str) -> None:
    with pytest.raises(InferenceError) as caught:
        texts_of(asked, TextConfig(max_rows=2, max_text_bytes=9))
    assert said in caught.value.message
    assert caught.value.code == 400


def spec(name: str, datatype: str = "INT64", shape: tuple[int, ...] = (-1, -1)) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def test_the_predictors_metadata_says_what_is_sent() -> None:
    def taken(*inputs: TensorSpec, padding: str = "max_length") -> Any:
        found, reason = fit(ModelMetadata("m", inputs=inputs), TextConfig(padding=padding))
        return reason or found

    assert taken(spec(MASK), spec(IDS)) == (Taken(MASK, "INT64", MASK), Taken(IDS, "INT64", IDS))
    assert taken(spec(IDS, shape=(1, 128)), spec("input_mask", "INT32"), spec("segment_ids", shape=())) == (
        Taken(IDS, "INT64", IDS), Taken("input_mask", "INT32", MASK), Taken("segment_ids", "INT64", TYPES),
    )  # fmt: skip
    assert "is [-1, 64], the transformer makes [-1, 128]" in taken(spec(IDS, shape=(-1, 64)))
    assert "is [-1, 128], the transformer makes [-1, -1]" in taken(
        spec(IDS, shape=(-1, 128)), padding="longest"
    )
    assert "is [-1]" in taken(spec(IDS, shape=(-1,)))
    assert "is FP32, expected INT64 or INT32" in taken(spec(IDS, "FP32"))
    assert "wants an input 'position_ids'" in taken(spec(IDS), spec("position_ids"))
    assert "takes no 'input_ids'" in taken(spec(MASK))
    assert "takes texts itself ('text')" in taken(spec("text", "BYTES", (-1,)))
    arrays = dict.fromkeys(NAMES, np.arange(3, dtype=np.int64)[None])
    (made,) = tensors((Taken("x", "INT32", IDS),), arrays)
    assert (made.name, made.datatype, made.shape, made.data.dtype) == ("x", "INT32", (1, 3), np.int32)


# The whole path.


@dataclass(frozen=True)
class Deployment:
    """A transformer over gRPC before a net that takes all three, and one over REST before one that takes two."""

    predictor: UnitProcess
    plain: UnitProcess
    other: UnitProcess
    client: httpx.Client

    def post(self, server: UnitProcess, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.client.post(server.url + path, content=content, headers=headers)


@pytest.fixture(scope="module")
def pod(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    logs = tmp_path_factory.mktemp("logs")
    narrow = tmp_path_factory.mktemp("narrow")
    # As Google's own exports of BERT are: other names, INT32, a fixed length.
    write_net(narrow / "bert.onnx", names=("input_ids", "input_mask"), length=LENGTH, dtype=6)
    predictors = [
        UnitProcess(logs / f"predictor-{folder.name}", "glowplug_onnx", f"--model_dir={folder}")
        for folder in (place, narrow)
    ]
    first, second = (server.wait_until_ready() for server in predictors)
    plain = UnitProcess(
        logs / "plain", "glowplug_text", f"--model_dir={place}", f"--predictor_host={first.grpc}",
        f"--max_length={LENGTH}", "--padding=longest", "--enable_predictor_health_check",
    )  # fmt: skip
    other = UnitProcess(
        logs / "other", "glowplug_text", f"--tokenizer={place / 'tokenizer.json'}", f"--max_length={LENGTH}",
        f"--predictor_host={second.url.partition('://')[2]}", "--predictor_protocol=v2",
    )  # fmt: skip
    # No certificates to load: everything is plain HTTP.
    with httpx.Client(timeout=DEADLINE_S, verify=False) as client:
        yield Deployment(first, plain.wait_until_ready(), other.wait_until_ready(), client)
    for server in (plain, other, *predictors):
        server.stop()


def test_from_text_to_scores(pod: Deployment) -> None:
    for server, expected in ((pod.plain, EXPECTED), (pod.other, EXPECTED - SEGMENTS[0])):
        assert pod.client.get(server.url + "/v2/health/ready").status_code == 200
        body, length = v2_json.encode_request(request(*TEXTS), binary=True)
        answer = pod.post(server, "/v2/models/m/infer", body, **{v2_json.HEADER_LENGTH: str(length)})
        assert answer.status_code == 200, answer.text
        header = answer.headers.get(v2_json.HEADER_LENGTH)
        found = v2_json.decode_response(answer.content, header_length=header).output("scores")
        np.testing.assert_allclose(found.data, expected, atol=1e-5)
        item = {"name": "any", "datatype": "BYTES", "shape": [4, 1], "data": TEXTS}
        answer = pod.post(server, "/v2/models/m/infer", {"inputs": [item], "id": "7"}).json()
        assert (answer["id"], answer["model_name"]) == ("7", "m")
        np.testing.assert_allclose(answer["outputs"][0]["data"], expected.ravel(), atol=1e-5)
        answer = pod.post(server, "/v1/models/m:predict", {"instances": TEXTS})
        np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-5)


def test_large_requests_leave_the_event_loop_and_agree(pod: Deployment) -> None:
    texts = ["good " * 2000 if index % 3 else "Good film" for index in range(64)]
    answer = pod.post(pod.plain, "/v1/models/m:predict", {"instances": texts})
    expected = [EXPECTED[3] if index % 3 else EXPECTED[0] for index in range(64)]
    np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-5)


def test_metadata_and_outputs_are_the_predictors(pod: Deployment) -> None:
    found = pod.client.get(pod.plain.url + "/v2/models/m").json()
    assert found["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]
    item = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}
    answer = pod.post(pod.plain, "/v2/models/m/infer", {"inputs": [item], "outputs": [{"name": "nothing"}]})
    assert answer.status_code == 400
    assert "the predictor: no output 'nothing'" in answer.json()["error"]


async def test_kserves_clients(pod: Deployment) -> None:
    kserve: Any = pytest.importorskip("kserve")
    made = kserve.InferInput("text", [4], "BYTES")
    made.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=object), binary_data=True)
    rpc = kserve.InferenceGRPCClient(pod.plain.grpc, timeout=DEADLINE_S)
    answer = await rpc.infer(kserve.InferRequest(model_name="m", infer_inputs=[made]))
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), EXPECTED, atol=1e-5)
    await rpc.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)), count=st.integers(0, 3))
def test_no_bytes_make_a_5xx(pod: Deployment, data: bytes, count: int) -> None:
    body, length = v2_json.encode_request(request(*[data] * count), binary=True)
    answer = pod.post(pod.plain, "/v2/models/m/infer", body, **{v2_json.HEADER_LENGTH: str(length)})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert "tensor 'text': " in answer.json()["error"]


def test_a_text_without_tokens_is_refused(pod: Deployment, place: Path, tmp_path: Path) -> None:
    """Of a tokenizer that adds none itself: a mask of zeros only is a division by zero to most models."""
    bare = orjson.loads((place / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps({**bare, "post_processor": None}))
    server = UnitProcess(
        tmp_path / "log", "glowplug_text", f"--model_dir={tmp_path}", f"--predictor_host={pod.predictor.grpc}"
    ).wait_until_ready()
    good, empty = (
        pod.post(server, "/v1/models/m:predict", {"instances": ["good", text]}) for text in ("bad", "")
    )
    server.stop()
    assert good.status_code == 200, good.text
    assert empty.status_code == 400
    assert "tensor 'text': text 1 has no tokens" in empty.json()["error"]


def test_without_a_predictor_that_fits_it_waits_and_says_so(
    pod: Deployment, place: Path, tmp_path: Path
) -> None:
    nobody, itself = (
        UnitProcess(tmp_path / name, "glowplug_text", f"--model_dir={place}", f"--predictor_host={host}")
        for name, host in (("nobody", "127.0.0.1:1"), ("itself", pod.plain.grpc))
    )
    for server, said in ((nobody, "cannot be reached"), (itself, "it needs no transformer")):
        server.wait_until_ready()
        assert pod.client.get(server.url + "/v2/health/live").status_code == 200
        assert pod.client.get(server.url + "/v2/health/ready").status_code == 503
        answer = pod.post(server, "/v1/models/m:predict", {"instances": ["good"]})
        server.stop()
        assert answer.status_code == 503
        assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], 2, "--predictor_host is missing"),
        (["--predictor_host=x", "--max_length=0"], 2, "--max_length=0, expected 1 or more"),
        (["--predictor_host=x", "--padding=left"], 2, "invalid choice: 'left'"),
        (["--predictor_host=x", "--tokenizer=/nowhere"], 1, "error: /nowhere does not exist"),
    ],
)
def test_wrong_flags(argv: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glowplug_text", "--http_port=0", "--grpc_port=0", *argv],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_manifests_share_a_pod_or_not() -> None:
    together = yaml.safe_load((UNIT / "isvc.yaml").read_text())
    container = together["spec"]["predictor"]["containers"][0]
    assert container["name"] == "transformer-container"
    assert container["ports"] == [{"containerPort": 8090, "protocol": "TCP"}]
    # KServe runs the predictor under the InferenceService's name.
    assert f"--model_name={together['metadata']['name']}" in container["args"]
    apart = yaml.safe_load((UNIT / "isvc-separate.yaml").read_text())
    assert apart["spec"]["predictor"]["model"] == together["spec"]["predictor"]["model"]
    (own,) = apart["spec"]["transformer"]["containers"]
    uri = apart["spec"]["predictor"]["model"]["storageUri"]
    assert own["env"] == [{"name": "STORAGE_URI", "value": uri}]
    assert own["image"] == container["image"]
