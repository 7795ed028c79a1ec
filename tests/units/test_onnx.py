"""The ONNX predictor: small models made here, the model on its own, then the unit as the process of a container."""

from __future__ import annotations

import asyncio
import os
import re
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

from glowplug.errors import ConfigError, GlowplugError, InferenceError, StorageError
from glowplug.wire import InferRequest, RequestedOutput, Tensor, v2_json

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

UNIT = Path(__file__).parents[2] / "predictors" / "onnx"
sys.path.insert(0, str(UNIT / "src"))
from glowplug_onnx.model import OnnxModel  # noqa: E402
from glowplug_onnx.threads import available_cpus, quota_cpus, thread_count  # noqa: E402

RNG = np.random.default_rng(11)
WEIGHTS = RNG.normal(size=(4, 3)).astype(np.float32)
ROWS = RNG.normal(size=(20, 4)).astype(np.float32)
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
node = helper.make_node
value = helper.make_tensor_value_info


def save(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    *weights: Any,
    opset: int = 17,
    ir: int = 9,
) -> Path:
    """A model file; `path` may be a folder."""
    named = [numpy_helper.from_array(array, name) for name, array in weights]
    graph = helper.make_graph(nodes, "test", inputs, outputs, named)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    target = path / "model.onnx" if path.is_dir() else path
    onnx.save(made, str(target))
    return target


def linear(path: Path, **more: Any) -> Path:
    """y = x @ w, [batch, 4] to [batch, 3]."""
    return save(
        path,
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["batch", 4])],
        [value("y", FLOAT, ["batch", 3])],
        ("w", WEIGHTS),
        **more,
    )


def two_and_two(path: Path) -> Path:
    """sum = a + b [n, 2]; twice = 2 b."""
    return save(
        path,
        [node("Add", ["a", "b"], ["sum"]), node("Add", ["b", "b"], ["twice"])],
        [value("a", FLOAT, ["n", 2]), value("b", FLOAT, ["m", 2])],
        [value("sum", FLOAT, ["k", 2]), value("twice", FLOAT, ["m", 2])],
    )


def echo(path: Path, datatype: int, shape: Any) -> Path:
    return save(
        path, [node("Identity", ["x"], ["y"])], [value("x", datatype, shape)], [value("y", datatype, shape)]
    )


def gather(path: Path) -> Path:
    """Rows of a table of 5 by index."""
    return save(
        path,
        [node("Gather", ["table", "index"], ["row"])],
        [value("index", INT64, ["n"])],
        [value("row", FLOAT, ["n", 2])],
        ("table", np.arange(10, dtype=np.float32).reshape(5, 2)),
    )


def loaded(path: Path, **more: Any) -> OnnxModel:
    model = OnnxModel("m", str(path), **more)
    model.load()
    return model


def ask(*tensors: Tensor, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest("m", tensors, outputs=tuple(map(RequestedOutput, outputs)))


async def test_predictions_are_the_models(tmp_path: Path) -> None:
    model = loaded(linear(tmp_path).parent)
    await model.warmup()
    for count in (1, 7, 20, 0):
        found = (await model.predict(ask(Tensor.from_numpy("x", ROWS[:count])))).output("y")
        assert (found.datatype, found.shape) == ("FP32", (count, 3))
        np.testing.assert_allclose(found.data, ROWS[:count] @ WEIGHTS, rtol=1e-5, atol=1e-6)
    strided = np.asfortranarray(ROWS)
    found = (await model.predict(ask(Tensor("x", "FP32", strided.shape, strided)))).output("y")
    np.testing.assert_allclose(found.data, ROWS @ WEIGHTS, rtol=1e-5, atol=1e-6)


async def test_large_inputs_leave_the_event_loop_and_agree(tmp_path: Path) -> None:
    model = loaded(linear(tmp_path), threads=2)
    await model.warmup()
    many = RNG.normal(size=(5000, 4)).astype(np.float32)
    answers = await asyncio.gather(*(model.predict(ask(Tensor.from_numpy("x", many * k))) for k in range(8)))
    for k, answer in enumerate(answers):
        np.testing.assert_allclose(answer.output("y").data, many * k @ WEIGHTS, rtol=1e-4, atol=1e-4)
    model.close()


async def test_two_inputs_and_outputs_in_any_order(tmp_path: Path) -> None:
    model = loaded(two_and_two(tmp_path))
    assert [spec.name for spec in model.inputs] == ["a", "b"]
    a, b = Tensor.from_numpy("a", ROWS[:3, :2]), Tensor.from_numpy("b", ROWS[3:6, :2])
    both = await model.predict(ask(b, a))
    np.testing.assert_allclose(both.output("sum").data, a.data + b.data)
    np.testing.assert_allclose(both.output("twice").data, 2 * b.data)
    one = await model.predict(ask(a, b, outputs=("twice", "twice")))
    assert [tensor.name for tensor in one.outputs] == ["twice"]
    with pytest.raises(InferenceError, match="no output 'zero'; the outputs are: 'sum', 'twice'"):
        await model.predict(ask(a, b, outputs=("zero",)))


async def test_strings_go_in_and_out(tmp_path: Path) -> None:
    model = loaded(echo(tmp_path, STRING, ["n", 2]))
    await model.warmup()
    words = ["a\0b", "é😀", "", "long " * 100]
    found = (await model.predict(ask(Tensor.from_strings("x", words, (2, 2))))).output("y")
    assert (found.datatype, found.shape, found.as_strings()) == ("BYTES", (2, 2), words)
    with pytest.raises(InferenceError, match="tensor 'x': an element is not UTF-8 text"):
        await model.predict(ask(Tensor("x", "BYTES", (1, 2), [b"\xff", b""])))


@pytest.mark.parametrize(
    ("kind", "datatype", "dtype"),
    [
        (TensorProto.BOOL, "BOOL", np.bool_),
        (TensorProto.INT8, "INT8", np.int8),
        (TensorProto.UINT16, "UINT16", np.uint16),
        (TensorProto.INT64, "INT64", np.int64),
        (TensorProto.FLOAT16, "FP16", np.float16),
        (TensorProto.DOUBLE, "FP64", np.float64),
    ],
)
async def test_datatypes(tmp_path: Path, kind: int, datatype: str, dtype: Any) -> None:
    model = loaded(echo(tmp_path, kind, ["n", None]))
    assert (model.inputs[0].datatype, model.inputs[0].shape) == (datatype, (-1, -1))
    array = np.array([[1, 0, 1]], dtype=dtype)
    found = (await model.predict(ask(Tensor.from_numpy("x", array)))).output("y")
    assert found.datatype == datatype
    np.testing.assert_array_equal(found.data, array)


@pytest.mark.parametrize("shape", [None, []])
async def test_a_shape_that_the_model_does_not_say(tmp_path: Path, shape: Any) -> None:
    model = loaded(echo(tmp_path, FLOAT, shape))
    await model.warmup()
    for array in (np.float32(3), ROWS):
        found = (await model.predict(ask(Tensor.from_numpy("x", array)))).output("y")
        np.testing.assert_array_equal(found.data, array)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ((), "missing 'x'; unknown none"),
        ((Tensor.from_numpy("z", ROWS),), "missing 'x'; unknown 'z'"),
        (
            (Tensor.from_numpy("x", ROWS), Tensor.from_numpy("z", ROWS)),
            "the model's 1: missing none; unknown 'z'",
        ),
        ((Tensor.from_numpy("x", ROWS.astype(np.float64)),), "tensor 'x': datatype is FP64, expected FP32"),
        ((Tensor.from_strings("x", ["a"] * 4, (1, 4)),), "tensor 'x': datatype is BYTES, expected FP32"),
        ((Tensor.from_numpy("x", ROWS[0]),), "tensor 'x': shape is [4], expected [batch, 4]"),
        ((Tensor.from_numpy("x", ROWS[:, :3]),), "tensor 'x': shape is [20, 3], expected [batch, 4]"),
        ((Tensor.from_numpy("x", ROWS[None]),), "tensor 'x': shape is [1, 20, 4], expected [batch, 4]"),
    ],
)
async def test_wrong_inputs_are_named(tmp_path: Path, tensors: tuple[Tensor, ...], said: str) -> None:
    model = loaded(linear(tmp_path))
    with pytest.raises(InferenceError) as caught:
        await model.predict(ask(*tensors))
    assert said in caught.value.message
    assert caught.value.code == 400


async def test_what_only_onnxruntime_can_refuse_is_400(tmp_path: Path) -> None:
    model = loaded(gather(tmp_path))
    with pytest.raises(
        InferenceError, match="cannot compute these inputs: Gather node: indices element"
    ) as caught:
        await model.predict(ask(Tensor.from_numpy("index", np.array([99]))))
    assert caught.value.code == 400
    model = loaded(two_and_two(tmp_path))
    with pytest.raises(InferenceError, match="cannot compute these inputs"):
        await model.predict(ask(Tensor.from_numpy("a", ROWS[:3, :2]), Tensor.from_numpy("b", ROWS[:2, :2])))


async def test_a_model_that_cannot_compute_zeros_of_one_starts_anyway(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(conv(tmp_path))
    await model.warmup()
    assert "no warm-up: zeros with dynamic axes of 1 are refused" in caplog.text
    found = await model.predict(ask(Tensor.from_numpy("x", np.ones((2, 1, 5, 5), np.float32))))
    np.testing.assert_array_equal(found.output("y").data, np.full((2, 1, 3, 3), 9, np.float32))


def conv(path: Path) -> Path:
    return save(
        path,
        [node("Conv", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["n", 1, "h", "w_"])],
        [value("y", FLOAT, ["n", 1, "a", "b"])],
        ("w", np.ones((1, 1, 3, 3), np.float32)),
    )


def refused(place: Path) -> GlowplugError:
    with pytest.raises(StorageError) as caught:
        OnnxModel("m", str(place)).load()
    assert "\n" not in caught.value.message
    assert ".cc" not in caught.value.message
    return caught.value


def test_folders_that_are_not_one_model(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere").message
    assert "holds no model file (.onnx); it holds nothing" in refused(tmp_path).message
    (tmp_path / "model.pt").write_bytes(b"x")
    assert "it holds model.pt" in refused(tmp_path).message
    (tmp_path / "a.onnx").touch()
    assert "is empty" in refused(tmp_path).message
    linear(tmp_path / "b.onnx")
    assert "holds 2 model files: a.onnx, b.onnx; expected exactly one" in refused(tmp_path).message
    (tmp_path / "a.onnx").rename(tmp_path / "._b.onnx")
    loaded(tmp_path)
    loaded(tmp_path / "b.onnx")


def test_files_that_are_no_model_for_this_onnxruntime(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is no ONNX model, or is cut off (43 bytes)" in refused(tmp_path).message
    whole = linear(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is no ONNX model, or is cut off" in refused(tmp_path).message
    linear(path, opset=99)
    found = refused(tmp_path)
    assert re.search(r"needs opset 99 of ai\.onnx; onnxruntime \S+ knows opsets up to \d+$", found.message)
    assert "older opset_version" in found.hint
    linear(path, ir=99)
    assert "needs IR version 99" in refused(tmp_path).message
    save(path, [node("Bogus", ["x"], ["y"])], [value("x", FLOAT, [1])], [value("y", FLOAT, [1])])
    found = refused(tmp_path)
    assert "Bogus" in found.message
    assert "lacks an operator" in found.hint
    echo(path, TensorProto.BFLOAT16, [1])
    assert "the input 'x' is tensor(bfloat16), which is not served" in refused(tmp_path).message


def test_damaged_files_load_or_are_refused_and_no_crash(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    code = """
import random, sys
from pathlib import Path
from glowplug.errors import StorageError
from glowplug_onnx.model import OnnxModel
path, refused = Path(sys.argv[1]), 0
whole = path.read_bytes()
chance = random.Random(5)
for turn in range(200):
    data = bytearray(whole)
    if turn < 20:
        del data[len(data) * turn // 20:]
    else:
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)
    try:
        OnnxModel("m", str(path)).load()
    except StorageError as error:
        assert len(error.message.splitlines()) == 1, error.message
        refused += 1
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.onnx")],
        env={**os.environ, "PYTHONPATH": str(UNIT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    # A file that ends between two fields is a whole one without the rest.
    assert 100 < int(done.stdout) < 200, done.stdout


async def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    made = onnx.load(str(linear(path)))
    onnx.save(made, str(path), save_as_external_data=True, location="model.data", size_threshold=0)
    found = (await loaded(tmp_path).predict(ask(Tensor.from_numpy("x", ROWS)))).output("y")
    np.testing.assert_allclose(found.data, ROWS @ WEIGHTS, rtol=1e-5, atol=1e-6)
    (tmp_path / "model.data").unlink()
    assert "copy them beside it" in refused(tmp_path).hint


def test_thread_counts() -> None:
    assert thread_count(None, {}, 6) == 6
    assert thread_count(None, {"OMP_NUM_THREADS": "2"}, 6) == 2
    assert thread_count(None, {"OMP_NUM_THREADS": "64,2"}, 6) == 6
    assert thread_count(9, {"OMP_NUM_THREADS": "2"}, 6) == 9
    for flag, env in ((0, {}), (None, {"OMP_NUM_THREADS": "many"}), (None, {"OMP_NUM_THREADS": "0"})):
        with pytest.raises(ConfigError):
            thread_count(flag, env, 6)
    assert [quota_cpus(text, 6) for text in ("max 100000", "150000 100000\n", "900000 100000", "1 100000", "")] == [
        6, 2, 6, 1, 6,
    ]  # fmt: skip
    assert available_cpus(Path("/nowhere")) >= 1


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
