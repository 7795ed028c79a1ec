"""The ONNX predictor as the process that a container would be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from units.bad_input import CHANGES, Attacker
from units.onnx_models import FLOAT, ROWS, UNIT, WEIGHTS, ask, echo, linear
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.wire import Tensor, v2_json


def start(folder: Path, *argv: str) -> UnitProcess:
    return UnitProcess(folder / "stderr", "glowplug_onnx", f"--model_dir={folder}", *argv)


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnitProcess]:
    folder = tmp_path_factory.mktemp("model")
    linear(folder)
    server = start(folder).wait_until_ready()
    yield server
    server.stop()


async def post(server: UnitProcess, path: str, content: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    # No certificates to load: everything is plain HTTP.
    async with httpx.AsyncClient(timeout=DEADLINE_S, verify=False) as client:
        return await client.post(server.url + path, content=content, headers=named)


async def test_v2_json_binary_and_v1(unit: UnitProcess) -> None:
    for binary in (False, True):
        body, length = v2_json.encode_request(ask(Tensor.from_numpy("x", ROWS)), binary=binary)
        headers = {} if length is None else {v2_json.HEADER_LENGTH: str(length)}
        answer = await post(unit, "/v2/models/m/infer", body, **headers)
        assert answer.status_code == 200, answer.text
        found = v2_json.decode_response(
            answer.content, header_length=answer.headers.get(v2_json.HEADER_LENGTH)
        )
        np.testing.assert_allclose(found.output("y").data, ROWS @ WEIGHTS, rtol=1e-4, atol=1e-5)
    answer = await post(unit, "/v1/models/m:predict", orjson.dumps({"instances": ROWS[:2].tolist()}))
    np.testing.assert_allclose(answer.json()["predictions"], ROWS[:2] @ WEIGHTS, rtol=1e-4, atol=1e-5)


async def test_metadata_comes_from_the_model(unit: UnitProcess) -> None:
    async with httpx.AsyncClient() as client:
        found = (await client.get(unit.url + "/v2/models/m")).json()
    assert found["platform"] == "onnxruntime_onnx"
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert found["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]


async def test_kserves_clients(unit: UnitProcess) -> None:
    kserve: Any = pytest.importorskip("kserve")

    def asked() -> Any:
        made = kserve.InferInput("x", [3, 4], "FP32")
        made.set_data_from_numpy(ROWS[:3], binary_data=True)
        return kserve.InferRequest(model_name="m", infer_inputs=[made])

    expected = ROWS[:3] @ WEIGHTS
    rest = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2", timeout=DEADLINE_S))
    assert await rest.is_model_ready(unit.url, "m")
    answer = await rest.infer(unit.url, asked(), model_name="m")
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), expected, rtol=1e-4, atol=1e-5)
    await rest.close()
    rpc = kserve.InferenceGRPCClient(unit.grpc, timeout=DEADLINE_S)
    assert await rpc.is_model_ready("m")
    answer = await rpc.infer(asked())
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), expected, rtol=1e-4, atol=1e-5)
    await rpc.close()


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"name": "x", "shape": [1, 5], "data": [1, 2, 3, 4]}, "needs 5 elements, the data has 4"),
        (
            {"name": "x", "shape": [1, 5], "data": [1, 2, 3, 4, 5]},
            "tensor 'x': shape is [1, 5], expected [batch, 4]",
        ),
        ({"name": "x", "shape": [1, 4], "data": [1, 2, 3, None]}, "takes no missing values"),
        ({"name": "q", "shape": [1, 4], "data": [1, 2, 3, 4]}, "missing 'x'; unknown 'q'"),
    ],
)
async def test_mistakes_are_400(unit: UnitProcess, item: Any, said: str) -> None:
    body = orjson.dumps({"inputs": [{"datatype": "FP32", **item}]})
    answer = await post(unit, "/v2/models/m/infer", body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from(["x", "y", "z"]), max_size=3),
    shape=st.lists(st.sampled_from([0, 1, 3, 4]), max_size=3),
    datatype=st.sampled_from(["FP32", "FP64", "INT8", "BOOL", "BYTES", "BF16"]),
    item=st.sampled_from([1, 1.5, True, "a", None, 1e300, -1]),
    outputs=st.lists(st.sampled_from(["y", "x"]), max_size=2),
)
async def test_no_request_makes_a_5xx(
    unit: UnitProcess, names: list[str], shape: list[int], datatype: str, item: Any, outputs: list[str]
) -> None:
    count = int(np.prod(shape, dtype=int))
    items = [{"name": name, "datatype": datatype, "shape": shape, "data": [item] * count} for name in names]
    body = {"inputs": items, "outputs": [{"name": name} for name in outputs]}
    answer = await post(unit, "/v2/models/m/infer", orjson.dumps(body))
    assert answer.status_code < 500, answer.text


@pytest.fixture(scope="module")
def attacker(unit: UnitProcess) -> Iterator[Attacker]:
    made = Attacker(unit)
    yield made
    made.close()


@settings(max_examples=80, deadline=None)
@given(changes=CHANGES, shift=st.integers(-3, 3) | st.sampled_from([-(10**6), 10**9]))
def test_damaged_requests_are_no_fault_of_the_server(attacker: Attacker, changes: Any, shift: int) -> None:
    attacker.send_changed(ask(Tensor.from_numpy("x", ROWS[:2]), outputs=("y",)), changes, shift)


async def test_missing_values_are_let_through_where_the_flag_says_so(tmp_path: Path) -> None:
    echo(tmp_path, FLOAT, ["n"])
    server = start(tmp_path, "--accept_missing").wait_until_ready()
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, None]}]}
    answer = await post(server, "/v2/models/m/infer", orjson.dumps(body))
    server.stop()
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [1, None]


def test_the_process_says_what_is_wrong_with_the_model(tmp_path: Path) -> None:
    linear(tmp_path, opset=99)
    server = start(tmp_path)
    assert server.process.wait(DEADLINE_S) == 1
    lines = server.log.read_text().splitlines()
    assert lines[0].startswith(f"error: {tmp_path}/model.onnx needs opset 99")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


def test_heavy_packages_stay_out(tmp_path: Path) -> None:
    linear(tmp_path)
    code = (
        "import sys; import glowplug_onnx.__main__; before = 'onnxruntime' in sys.modules; "
        f"from glowplug_onnx.model import OnnxModel; OnnxModel('m', {str(tmp_path)!r}).load(); "
        "print(before, [n for n in ('onnx', 'scipy', 'pandas', 'kserve', 'google.protobuf') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "False []"


def test_wrong_flags() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glowplug_onnx", "--threads=0"],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "--threads=0, expected 1 or more" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_manifests_agree_with_the_unit() -> None:
    runtime = yaml.safe_load((UNIT / "runtime.yaml").read_text())
    assert runtime["metadata"]["name"] == "glowplug-onnx"
    assert runtime["spec"]["supportedModelFormats"][0]["name"] == "onnx"
    container = runtime["spec"]["containers"][0]
    assert container["name"] == "kserve-container"
    assert container["image"].rpartition(":")[0] == "glowplug/onnx"
    assert container["args"] == [
        "--model_name={{.Name}}", "--model_dir=/mnt/models", "--http_port=8080", "--grpc_port=8081",
    ]  # fmt: skip
    service = yaml.safe_load((UNIT / "isvc.yaml").read_text())
    assert service["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/resnet50"
    assert 'image = "glowplug/onnx"' in (UNIT / "pyproject.toml").read_text()
