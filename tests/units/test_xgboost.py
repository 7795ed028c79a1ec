"""The XGBoost predictor: the model on its own, then the unit as the process that a container would be."""

from __future__ import annotations

import asyncio
import os
import re
import signal
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
from units.unit_process import DEADLINE_S, UnitProcess

from glowplug.errors import InferenceError, StorageError
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.wire import InferRequest, Tensor, v2_json

xgboost: Any = pytest.importorskip("xgboost")

UNIT = Path(__file__).parents[2] / "predictors" / "xgboost"
sys.path.insert(0, str(UNIT / "src"))
from glowplug_xgboost.model import XgboostModel  # noqa: E402

FEATURES = 5
NAMES = [f"f{index}" for index in range(FEATURES)]
ROWS = np.random.default_rng(7).normal(size=(200, FEATURES)).astype(np.float32)
LABELS = {
    "reg:squarederror": ROWS[:, 0] * 2 + ROWS[:, 1],
    "binary:logistic": (ROWS[:, 0] > 0).astype(np.float32),
    "multi:softprob": (ROWS[:, 0] > 0).astype(np.float32) + (ROWS[:, 1] > 0),
    "multi:softmax": (ROWS[:, 0] > 0).astype(np.float32) + (ROWS[:, 1] > 0),
    "count:poisson": np.abs(ROWS[:, 0]),
}


def train(objective: str = "reg:squarederror", *, named: bool = True, **parameters: Any) -> Any:
    options = {"objective": objective, "max_depth": 3, "nthread": 1, **parameters}
    options = {name: value for name, value in options.items() if value is not None}
    if objective.startswith("multi"):
        options["num_class"] = 3
    data = xgboost.DMatrix(
        ROWS, LABELS.get(objective, LABELS["reg:squarederror"]), feature_names=NAMES if named else None
    )
    return xgboost.train(options, data, 8)


def loaded(folder: Path, booster: Any, name: str = "model.ubj", **more: Any) -> XgboostModel:
    booster.save_model(folder / name)
    model = XgboostModel("m", str(folder), **more)
    model.load()
    return model


def ask(*tensors: Tensor) -> InferRequest:
    return InferRequest("m", tensors)


def predict(model: XgboostModel, *tensors: Tensor) -> Any:
    output = model.predict(ask(*tensors)).output("predict")
    assert output.datatype == "FP32"
    return output.data


@pytest.mark.parametrize("objective", list(LABELS))
@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_predictions_are_the_boosters(tmp_path: Path, objective: str, suffix: str) -> None:
    booster = train(objective)
    model = loaded(tmp_path, booster, f"model{suffix}")
    expected = booster.predict(xgboost.DMatrix(ROWS, feature_names=NAMES))
    found = predict(model, Tensor.from_numpy("rows", ROWS))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert model.outputs[0].shape == (-1, *expected.shape[1:])
    assert model.inputs[0].shape == (-1, FEATURES)
    assert model.platform == "xgboost_" + objective.replace(":", "_")


def test_dart_is_served_and_a_linear_booster_refused(tmp_path: Path) -> None:
    # XGBoost 3.4 calls both deprecated, on a log that becomes a Python warning.
    with xgboost.config_context(verbosity=0):
        booster = train(booster="dart", rate_drop=0.3)
        expected = booster.predict(xgboost.DMatrix(ROWS, feature_names=NAMES))
        np.testing.assert_allclose(
            predict(loaded(tmp_path, booster), Tensor.from_numpy("x", ROWS)), expected, rtol=1e-5
        )
        with pytest.raises(StorageError, match="is a gblinear booster; only trees"):
            loaded(tmp_path, train(booster="gblinear", max_depth=None))


def test_columns_by_name_in_any_order_are_the_rows(tmp_path: Path) -> None:
    model = loaded(tmp_path, train())
    expected = predict(model, Tensor.from_numpy("x", ROWS))
    order = [3, 1, 4, 0, 2]
    columns = [Tensor.from_numpy(NAMES[index], ROWS[:, index]) for index in order]
    np.testing.assert_array_equal(predict(model, *columns), expected)
    wide = [Tensor.from_numpy(NAMES[index], ROWS[:, index : index + 1].astype(np.float64)) for index in order]
    np.testing.assert_array_equal(predict(model, *wide), expected)


def test_other_numbers_are_taken_and_rows_need_not_be_contiguous(tmp_path: Path) -> None:
    model = loaded(tmp_path, train(named=False))
    whole = np.arange(3 * FEATURES).reshape(3, FEATURES)
    expected = predict(model, Tensor.from_numpy("x", whole.astype(np.float32)))
    for dtype in (np.float64, np.int64, np.int8, np.uint16, np.float16):
        np.testing.assert_array_equal(predict(model, Tensor.from_numpy("x", whole.astype(dtype))), expected)
    strided = np.asfortranarray(whole.astype(np.float32))
    np.testing.assert_array_equal(predict(model, Tensor("x", "FP32", (3, FEATURES), strided)), expected)


@pytest.mark.parametrize(("objective", "shape"), [("reg:squarederror", (0,)), ("multi:softprob", (0, 3))])
def test_no_rows_are_no_predictions(tmp_path: Path, objective: str, shape: tuple[int, ...]) -> None:
    model = loaded(tmp_path, train(objective))
    assert predict(model, Tensor.from_numpy("x", np.empty((0, FEATURES), dtype=np.float32))).shape == shape


def test_results_are_not_overwritten_by_the_next_call(tmp_path: Path) -> None:
    model = loaded(tmp_path, train())
    first = predict(model, Tensor.from_numpy("x", ROWS[:1]))
    value = float(first[0])
    predict(model, Tensor.from_numpy("x", ROWS[50:51]))
    assert float(first[0]) == value


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ((), "no input"),
        ((Tensor.from_numpy("x", ROWS[:, :4]),), "shape is [200, 4], expected [n, 5]"),
        ((Tensor.from_numpy("x", ROWS[0]),), "shape is [5], expected [n, 5]"),
        ((Tensor.from_numpy("x", ROWS[None]),), "expected [n, 5]"),
        ((Tensor.from_strings("x", ["a"] * FEATURES, (1, FEATURES)),), "datatype is BYTES, expected numbers"),
        ((Tensor.from_numpy("f0", ROWS[:, 0]),), "missing 'f1', 'f2', 'f3', 'f4'; unknown none"),
        (
            tuple(Tensor.from_numpy(name, ROWS[:, 0]) for name in [*NAMES[:4], "q"]),
            "missing 'f4'; unknown 'q'",
        ),
        (
            tuple(Tensor.from_numpy(name, ROWS[: 3 + index, 0]) for index, name in enumerate(NAMES)),
            "tensor 'f1': shape is [4], expected [3] as 'f0' has",
        ),
    ],
)
def test_inputs_that_are_not_the_models(tmp_path: Path, tensors: Any, said: str) -> None:
    model = loaded(tmp_path, train())
    with pytest.raises(InferenceError) as caught:
        model.predict(ask(*tensors))
    assert said in caught.value.message
    assert caught.value.code == 400


def test_columns_need_a_model_with_names(tmp_path: Path) -> None:
    model = loaded(tmp_path, train(named=False))
    with pytest.raises(InferenceError, match="the model has no feature names"):
        model.predict(ask(*(Tensor.from_numpy(name, ROWS[:, 0]) for name in NAMES)))


def test_missing_values_by_flag_or_by_the_models_own_word(tmp_path: Path) -> None:
    booster = train()
    assert not loaded(tmp_path, booster).accepts_missing
    assert loaded(tmp_path, booster, accepts_missing=True).accepts_missing
    booster.set_attr(glowplug_accepts_missing="true")
    model = loaded(tmp_path, booster)
    assert model.accepts_missing
    gaps = ROWS.copy()
    gaps[::2, 0] = np.nan
    expected = booster.predict(xgboost.DMatrix(gaps, feature_names=NAMES))
    np.testing.assert_allclose(predict(model, Tensor.from_numpy("x", gaps)), expected, rtol=1e-6)


def test_model_files_that_are_not_one_model(tmp_path: Path) -> None:
    def said(place: Path) -> str:
        with pytest.raises(StorageError) as caught:
            XgboostModel("m", str(place)).load()
        return caught.value.message

    assert "does not exist" in said(tmp_path / "nowhere")
    assert "holds no model file" in said(tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"x")
    assert "it holds model.pkl" in said(tmp_path)
    (tmp_path / "model.bst").write_bytes(b"binf\0\0\0\0old")
    assert "XGBoost 3.1 dropped its older binary format" in said(tmp_path)
    (tmp_path / "model.bst").write_bytes(b"")
    assert "is empty" in said(tmp_path)
    (tmp_path / "model.bst").write_bytes(b'{"learner": 1}')
    assert "is no XGBoost model that can be read" in said(tmp_path)
    train().save_model(tmp_path / "model.ubj")
    assert "holds 2 model files: model.bst, model.ubj; expected exactly one" in said(tmp_path)
    (tmp_path / "model.bst").unlink()
    (tmp_path / "input_example.json").write_text("{}")
    XgboostModel("m", str(tmp_path)).load()
    XgboostModel("m", str(tmp_path / "model.ubj")).load()


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_a_cut_off_model_is_an_error_and_no_crash(tmp_path: Path, suffix: str) -> None:
    train().save_model(tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    code = """
import sys
from pathlib import Path
from glowplug.errors import StorageError
from glowplug_xgboost.model import XgboostModel
whole, refused = Path(sys.argv[1]), 0
data = whole.read_bytes()
for share in range(1, 20):
    whole.write_bytes(data[: len(data) * share // 20])
    try:
        XgboostModel("m", str(whole)).load()
    except StorageError:
        refused += 1
print(refused)
"""
    (tmp_path / f"cut{suffix}").write_bytes(whole)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / f"cut{suffix}")],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "19", done.stderr


@pytest.mark.parametrize("objective", ["reg:squarederror", "multi:softprob"])
async def test_requests_that_share_a_batch_get_their_own_predictions(tmp_path: Path, objective: str) -> None:
    model = loaded(tmp_path, train(objective))
    expected = predict(model, Tensor.from_numpy("x", ROWS))
    metrics = Metrics()
    served = LightModel(model, metrics)

    async def rows(start: int, end: int) -> None:
        answer = await served.infer(ask(Tensor.from_numpy("x", ROWS[start:end])), {})
        np.testing.assert_allclose(answer.output("predict").data, expected[start:end], rtol=1e-6)

    async def columns(row: int) -> None:
        inputs = [Tensor.from_numpy(name, ROWS[row : row + 1, index]) for index, name in enumerate(NAMES)]
        answer = await served.infer(ask(*inputs), {})
        np.testing.assert_allclose(answer.output("predict").data, expected[row : row + 1], rtol=1e-6)

    async def wrong() -> None:
        with pytest.raises(InferenceError, match=r"expected \[n, 5\]"):
            await served.infer(ask(Tensor.from_numpy("x", ROWS[:1, :3])), {})

    work = [rows(item, item + item % 4) for item in range(60)] + [columns(item) for item in range(20)]
    await asyncio.gather(*work, wrong(), wrong(), rows(0, 200))
    page = metrics.render().decode()
    batches = re.search(r'glowplug_batch_rows_count{model_name="m"} (\d+)', page)
    assert batches is not None
    assert int(batches[1]) < len(work) / 4
    await served.close()


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
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
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
