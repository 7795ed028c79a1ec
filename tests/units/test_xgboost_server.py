"""The XGBoost predictor as the process that a container would be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import orjson
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from units.bad_input import CHANGES, Attacker
from units.unit_process import DEADLINE_S, UnitProcess
from units.xgboost_models import FEATURES, NAMES, ROWS, UNIT, ask, train, xgboost

from glowplug.wire import Tensor, v2_json


def start(folder: Path, *argv: str) -> UnitProcess:
    return UnitProcess(folder / "stderr", "glowplug_xgboost", f"--model_dir={folder}", *argv)


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnitProcess]:
    folder = tmp_path_factory.mktemp("model")
    train().save_model(folder / "model.ubj")
    server = start(folder).wait_until_ready()
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(DEADLINE_S) == 0


EXPECTED = train().predict(xgboost.DMatrix(ROWS[:3], feature_names=NAMES))


async def post(server: UnitProcess, path: str, content: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    # No certificates to load: everything is plain HTTP.
    async with httpx.AsyncClient(timeout=DEADLINE_S, verify=False) as client:
        return await client.post(server.url + path, content=content, headers=named)


async def test_v2_json_binary_columns_and_v1(unit: UnitProcess) -> None:
    rows = ask(Tensor.from_numpy("anything", ROWS[:3]))
    columns = ask(
        *(Tensor.from_numpy(name, ROWS[:3, index]) for index, name in reversed(list(enumerate(NAMES))))
    )
    for asked in (rows, columns):
        for binary in (False, True):
            body, length = v2_json.encode_request(asked, binary=binary)
            headers = {} if length is None else {v2_json.HEADER_LENGTH: str(length)}
            answer = await post(unit, "/v2/models/m/infer", body, **headers)
            assert answer.status_code == 200, answer.text
            found = v2_json.decode_response(
                answer.content, header_length=answer.headers.get(v2_json.HEADER_LENGTH)
            )
            np.testing.assert_allclose(found.output("predict").data, EXPECTED, rtol=1e-6)
    as_objects = [dict(zip(NAMES, row, strict=True)) for row in ROWS[:3].tolist()]
    for instances in (ROWS[:3].tolist(), as_objects):
        answer = await post(unit, "/v1/models/m:predict", orjson.dumps({"instances": instances}))
        np.testing.assert_allclose(answer.json()["predictions"], EXPECTED, rtol=1e-6)


async def test_metadata_comes_from_the_booster(unit: UnitProcess) -> None:
    async with httpx.AsyncClient() as client:
        found = (await client.get(unit.url + "/v2/models/m")).json()
    assert found["inputs"] == [{"name": "input-0", "datatype": "FP32", "shape": [-1, FEATURES]}]
    assert found["outputs"] == [{"name": "predict", "datatype": "FP32", "shape": [-1]}]


async def test_kserves_clients(unit: UnitProcess) -> None:
    kserve: Any = pytest.importorskip("kserve")

    def asked() -> Any:
        made = kserve.InferInput("input-0", [3, FEATURES], "FP32")
        made.set_data_from_numpy(ROWS[:3], binary_data=True)
        return kserve.InferRequest(model_name="m", infer_inputs=[made])

    rest = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2", timeout=DEADLINE_S))
    assert await rest.is_model_ready(unit.url, "m")
    answer = await rest.infer(unit.url, asked(), model_name="m")
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), EXPECTED, rtol=1e-6)
    await rest.close()
    rpc = kserve.InferenceGRPCClient(unit.grpc, timeout=DEADLINE_S)
    assert await rpc.is_model_ready("m")
    answer = await rpc.infer(asked())
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), EXPECTED, rtol=1e-6)
    await rpc.close()


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"shape": [1, 5], "data": [1, 2, 3, 4]}, "needs 5 elements, the data has 4"),
        ({"shape": [1, 4], "data": [1, 2, 3, 4]}, "expected [n, 5]"),
        ({"shape": [1, 5], "data": [1, 2, 3, 4, None]}, "takes no missing values"),
    ],
)
async def test_mistakes_are_400(unit: UnitProcess, item: Any, said: str) -> None:
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", **item}]})
    answer = await post(unit, "/v2/models/m/infer", body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from([*NAMES, "x"]), max_size=6),
    shape=st.lists(st.sampled_from([0, 1, 3, 5]), max_size=3),
    datatype=st.sampled_from(["FP32", "FP64", "INT8", "BOOL", "BYTES", "FP16"]),
    value=st.sampled_from([1, 1.5, True, "a", None, 1e300, -1]),
)
async def test_no_request_makes_a_5xx(
    unit: UnitProcess, names: list[str], shape: list[int], datatype: str, value: Any
) -> None:
    count = int(np.prod(shape, dtype=int))
    items = [{"name": name, "datatype": datatype, "shape": shape, "data": [value] * count} for name in names]
    answer = await post(unit, "/v2/models/m/infer", orjson.dumps({"inputs": items}))
    assert answer.status_code < 500, answer.text


@pytest.fixture(scope="module")
def attacker(unit: UnitProcess) -> Iterator[Attacker]:
    made = Attacker(unit)
    yield made
    made.close()


@settings(max_examples=80, deadline=None)
@given(
    changes=CHANGES, shift=st.integers(-3, 3) | st.sampled_from([-(10**6), 10**9]), in_columns=st.booleans()
)
def test_damaged_requests_are_no_fault_of_the_server(
    attacker: Attacker, changes: Any, shift: int, in_columns: bool
) -> None:
    rows = [Tensor.from_numpy("x", ROWS[:2])]
    columns = [Tensor.from_numpy(name, ROWS[:2, index]) for index, name in enumerate(NAMES)]
    attacker.send_changed(ask(*(columns if in_columns else rows)), changes, shift)


async def test_many_at_once_get_their_own_answers(unit: UnitProcess) -> None:
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:

        async def one(index: int) -> None:
            body, _ = v2_json.encode_request(ask(Tensor.from_numpy("x", ROWS[index : index + 1])))
            answer = await client.post(unit.url + "/v2/models/m/infer", content=body)
            np.testing.assert_allclose(answer.json()["outputs"][0]["data"], EXPECTED[index], rtol=1e-6)

        await asyncio.gather(*(one(index % 3) for index in range(60)))


def test_the_process_says_what_is_wrong_with_the_model(tmp_path: Path) -> None:
    server = start(tmp_path)
    assert server.process.wait(DEADLINE_S) == 1
    lines = server.log.read_text().splitlines()
    assert lines[0].startswith(f"error: {tmp_path} holds no model file")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


@pytest.mark.parametrize("form", ["auto", "booster", "compiled"])
async def test_what_predicts_is_said_and_answers_the_same(tmp_path: Path, form: str) -> None:
    train().save_model(tmp_path / "model.ubj")
    server = start(tmp_path, f"--trees={form}").wait_until_ready()
    try:
        for rows in (ROWS[:1], ROWS[:3]):
            body, _ = v2_json.encode_request(ask(Tensor.from_numpy("x", rows)))
            answer = await post(server, "/v2/models/m/infer", body)
            np.testing.assert_allclose(answer.json()["outputs"][0]["data"], EXPECTED[: len(rows)], rtol=1e-6)
        # With `auto` the booster begins, and the trees are compared with it a moment later.
        told = {"auto": "1 row: ", "booster": "as --trees says", "compiled": "compiled trees, as"}[form]
        with anyio.fail_after(DEADLINE_S):
            async with httpx.AsyncClient() as client:
                while told not in (await client.get(server.url + "/metrics")).text:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    finally:
        server.stop()


def test_a_model_that_cannot_be_compiled_where_it_must_be(tmp_path: Path) -> None:
    with xgboost.config_context(verbosity=0):
        train(booster="dart").save_model(tmp_path / "model.ubj")
    server = start(tmp_path, "--trees=compiled")
    assert server.process.wait(DEADLINE_S) == 1
    error, hint = server.log.read_text().splitlines()
    assert error.endswith("model.ubj: dart boosters are not compiled, only gbtree")
    assert hint == "hint: --trees=auto lets the booster predict then"


def test_help_and_wrong_flags(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(UNIT / "src")}
    command = [sys.executable, "-m", "glowplug_xgboost"]
    done = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "--accept_missing" in done.stdout
    assert "--model_dir" in done.stdout
    done = subprocess.run(
        [*command, "--workers=3"], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "a pod runs one process" in done.stderr
    assert "Traceback" not in done.stderr


def test_heavy_packages_stay_out(tmp_path: Path) -> None:
    train().save_model(tmp_path / "model.json")
    code = (
        "import sys; from glowplug_xgboost.model import XgboostModel; "
        f"XgboostModel('m', {str(tmp_path)!r}).load(); import glowplug_xgboost.__main__; "
        "print([n for n in ('xgboost', 'scipy', 'pandas', 'sklearn', 'kserve', 'google.protobuf') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_manifests_agree_with_the_unit() -> None:
    runtime = yaml.safe_load((UNIT / "runtime.yaml").read_text())
    assert runtime["metadata"]["name"] == "glowplug-xgboost"
    container = runtime["spec"]["containers"][0]
    assert container["name"] == "kserve-container"
    assert container["image"].rpartition(":")[0] == "glowplug/xgboost"
    assert container["args"] == [
        "--model_name={{.Name}}", "--model_dir=/mnt/models", "--http_port=8080", "--grpc_port=8081",
    ]  # fmt: skip
    assert runtime["spec"]["protocolVersions"] == ["v1", "v2", "grpc-v2"]
    service = yaml.safe_load((UNIT / "isvc.yaml").read_text())
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    assert 'image = "glowplug/xgboost"' in (UNIT / "pyproject.toml").read_text()
