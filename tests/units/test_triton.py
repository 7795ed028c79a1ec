"""The Triton unit, build and tune, on a real tritonserver with the Python backend on the CPU."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from units.triton_lab import (
    ADD_SUB,
    DEADLINE_S,
    FEATURES,
    UNIT,
    Hammer,
    TritonUnit,
    glowplug,
    is_ready,
    require_triton,
    tritonclient_python,
    v2,
    write_forest,
)

from glowplug.cli.main import app
from glowplug.errors import GlowplugError
from glowplug.registry.models import Candidate, RegistryConfig, register
from glowplug.triton import repository
from glowplug.triton.build import build
from glowplug.triton.control import Address, Control
from glowplug.triton.home import find_perf_analyzer
from glowplug.triton.model_config import VersionPolicy
from glowplug.triton.options import BuildOptions
from glowplug.triton.pbtxt import parse
from glowplug.triton.perf import Load, measure
from glowplug.triton.settings import Setting, setting_of
from glowplug.triton.signature import TensorShape

pytest.importorskip("xgboost")
pytest.importorskip("onnxruntime")
ROWS = np.random.default_rng(3).random((6, FEATURES), dtype=np.float32)
TUNED = ("max_batch_size", "dynamic_batching", "instance_group")
WEIGHTS = np.arange(FEATURES * 2, dtype=np.float32).reshape(FEATURES, 2)


def wait_for(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S:.0f} s for {what}"
        time.sleep(0.02)


def write_linear(path: Path) -> None:
    """y = x @ WEIGHTS with a batch axis, and the sum of each row, which has no other axis."""
    onnx: Any = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]),
         helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0)],
        "linear",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, ["n", 2]),
         helper.make_tensor_value_info("total", kinds.FLOAT, ["n"])],
        [onnx.numpy_helper.from_array(WEIGHTS, "w"), onnx.numpy_helper.from_array(np.array([1]), "axes")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    require_triton()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of models, and the boosters' answers beside them."""
    folder = tmp_path_factory.mktemp("models")
    for name, objective in (
        ("sum", "reg:squarederror"),
        ("half", "binary:logistic"),
        ("third", "multi:softprob"),
    ):
        booster = write_forest(folder / f"{name}.ubj", objective=objective)
        np.save(folder / f"{name}.npy", booster.inplace_predict(ROWS))
    write_linear(folder / "linear.onnx")
    (folder / "slow").mkdir()
    (folder / "slow" / "model.py").write_text(ADD_SUB)
    return folder


@pytest.fixture(scope="module")
def built(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of models on the Python backend."""
    out = tmp_path_factory.mktemp("served") / "repository"
    for name in ("sum.ubj", "half.ubj", "third.ubj", "linear.onnx"):
        build(models / name, out, BuildOptions(name.partition(".")[0], backend="python"))
    return out


@pytest.fixture(scope="module")
def slow(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model of its owner's own Python, added by the command."""
    out = tmp_path_factory.mktemp("slow") / "repository"
    glowplug("triton", "build", str(models / "slow"), "--out", str(out), "--no-batching",
             "--input", "a:FP32:1", "--output", "b:FP32:1", "--no-warmup")  # fmt: skip
    return out


@pytest.fixture(scope="module")
def unit(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonUnit]:
    """The unit on that repository, which it polls each second."""
    flags = ("--repository_poll_s=1", "--log-verbose=0")  # the latter is tritonserver's own
    server = TritonUnit(tmp_path_factory.mktemp("pod"), built, *flags).wait_until_ready()
    yield server
    assert server.stop() == 0, server.text()[-2000:]


def post(server: TritonUnit, model: str, name: str, rows: Any) -> httpx2.Response:
    return httpx2.post(
        f"{server.url}/v2/models/{model}/infer", json=v2(name, rows), trust_env=False, timeout=DEADLINE_S
    )


def output(answer: httpx2.Response, name: str) -> Any:
    assert answer.status_code == 200, answer.text
    found = next(each for each in answer.json()["outputs"] if each["name"] == name)
    return np.array(found["data"], np.float32).reshape(found["shape"])


def test_forests_answer_as_their_boosters(unit: TritonUnit, models: Path) -> None:
    expected = {name: np.load(models / f"{name}.npy") for name in ("sum", "half", "third")}
    found = {name: output(post(unit, name, "input__0", ROWS), "output__0") for name in expected}
    np.testing.assert_allclose(found["sum"], expected["sum"][:, None], rtol=1e-5)
    np.testing.assert_allclose(
        found["half"], np.stack([1 - expected["half"], expected["half"]], 1), atol=1e-5
    )
    np.testing.assert_allclose(found["third"], expected["third"], atol=1e-5)


def test_onnx_on_the_python_backend(unit: TritonUnit) -> None:
    answer = post(unit, "linear", "x", ROWS)
    np.testing.assert_allclose(output(answer, "y"), ROWS @ WEIGHTS, rtol=1e-4)
    np.testing.assert_allclose(output(answer, "total").ravel(), (ROWS @ WEIGHTS).sum(1), rtol=1e-4)


def test_curl(unit: TritonUnit, models: Path, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(json.dumps(v2("input__0", ROWS)))
    ran = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", f"{unit.url}/v2/models/sum/infer", "-d", f"@{tmp_path / 'body.json'}"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    data = json.loads(ran.stdout)["outputs"][0]["data"]
    np.testing.assert_allclose(data, np.load(models / "sum.npy"), rtol=1e-5)


def test_tritonclient_rest_and_grpc(unit: TritonUnit, models: Path) -> None:
    code = """
import json, sys
import numpy as np, tritonclient.grpc as g, tritonclient.http as h
rows = np.array(json.loads(sys.argv[3]), np.float32)
for module, url in ((h, sys.argv[1]), (g, sys.argv[2])):
    client = module.InferenceServerClient(url)
    assert client.is_server_ready() and client.is_model_ready("sum")
    tensor = module.InferInput("input__0", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    print(json.dumps(client.infer("sum", [tensor]).as_numpy("output__0").ravel().tolist()))
"""
    rest = unit.url.removeprefix("http://")
    words = [str(tritonclient_python()), "-c", code, rest, unit.grpc, json.dumps(ROWS.tolist())]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    for line in ran.stdout.splitlines():
        np.testing.assert_allclose(json.loads(line), np.load(models / "sum.npy"), rtol=1e-5)
    assert len(ran.stdout.splitlines()) == 2


async def test_kserves_clients(unit: TritonUnit, models: Path) -> None:
    kserve: Any = pytest.importorskip("kserve")
    tensor = kserve.InferInput("input__0", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=True)
    asked = kserve.InferRequest(model_name="sum", infer_inputs=[tensor])
    expected = np.load(models / "sum.npy")[:, None]
    rest = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2", timeout=DEADLINE_S))
    assert await rest.is_model_ready(unit.url, "sum")
    answer = await rest.infer(unit.url, asked, model_name="sum")
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), expected, rtol=1e-5)
    await rest.close()
    rpc = kserve.InferenceGRPCClient(unit.grpc, timeout=DEADLINE_S)
    answer = await rpc.infer(asked)
    np.testing.assert_allclose(answer.outputs[0].as_numpy(), expected, rtol=1e-5)
    await rpc.close()


@pytest.mark.parametrize("rows", [ROWS[:, :2], np.zeros((33, FEATURES)), ROWS[0]])
def test_wrong_shapes_are_400(unit: TritonUnit, rows: Any) -> None:
    answer = post(unit, "sum", "input__0", rows)
    assert answer.status_code == 400
    assert "sum" in answer.json()["error"]


def test_metrics(unit: TritonUnit) -> None:
    post(unit, "sum", "input__0", ROWS)
    text = httpx2.get(unit.metrics, trust_env=False).text
    count = next(line for line in text.splitlines() if line.startswith('nv_inference_count{model="sum"'))
    assert float(count.split()[-1]) >= len(ROWS)


def test_a_new_version_is_served_a_broken_one_is_not_and_no_request_is_lost(
    unit: TritonUnit, built: Path, models: Path, tmp_path: Path
) -> None:
    write_forest(tmp_path / "sum.ubj", seed=1)
    url = f"{unit.url}/v2/models/sum/infer"
    is_over, ready = threading.Event(), []

    def watch() -> None:
        with httpx2.Client(trust_env=False, timeout=30) as client:
            while not is_over.is_set():
                ready.append(is_ready(client, unit.url))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with Hammer(url, v2("input__0", ROWS)) as hammer:
        wait_for(lambda: len(hammer.answers) > 20, "first answers")
        ran = glowplug(
            "triton", "build", str(tmp_path / "sum.ubj"), "--out", str(built), "--backend", "python"
        )
        wait_for(lambda: hammer.versions(20) == {"2"}, "the second version")
        broken = built / "sum" / "3"
        shutil.copytree(built / "sum" / "2", broken)
        (broken / "model.py").write_text("broken(")
        wait_for(lambda: "failed to load 'sum' version 3" in unit.text(), "the broken version to be refused")
        before = len(hammer.answers)
        wait_for(lambda: len(hammer.answers) > before + 20, "answers after that")
        assert hammer.versions(20) == {"2"}
    is_over.set()
    watcher.join()
    shutil.rmtree(broken)
    assert "version 2" in ran.stderr
    assert {status for status, _, _ in hammer.answers} == {200}
    assert {version for _, version, _ in hammer.answers} == {"1", "2"}
    assert all(ready)


def test_sigterm_lets_requests_in_flight_finish(slow: Path, tmp_path: Path) -> None:
    """The folder of one model of a repository is served as well, under the name that its configuration says."""
    server = TritonUnit(tmp_path, slow / "slow", "--model_control_mode=none").wait_until_ready()
    answers: list[httpx2.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(post(server, "slow", "a", [[0.4]]))) for _ in range(3)
    ]
    stats = f"{server.url}/v2/models/slow/stats"
    for thread in threads:
        thread.start()
    # One is answered while the other two are in flight, one of them waiting for the only instance.
    wait_for(
        lambda: httpx2.get(stats, trust_env=False).json()["model_stats"][0]["inference_count"] == 1,
        "an answer",
    )
    assert server.stop() == 0, server.text()[-2000:]
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [answer.status_code for answer in answers] == [200] * 3, server.text()[-2000:]
    assert all(output(answer, "b")[0, 0] == pytest.approx(0.8) for answer in answers)


@pytest.fixture(scope="module")
def tuned(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonUnit, Path]]:
    """A server that loads on request, from a plain model folder as its repository of one."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "plain").mkdir()
    shutil.copy(models / "sum.ubj", folder / "plain" / "model.ubj")
    server = TritonUnit(folder / "pod", folder / "plain", "--model_control_mode=explicit").wait_until_ready()
    yield server, folder / "pod" / ".triton-repository"
    assert server.stop() == 0


def test_a_plain_folder_is_made_a_model(tuned: tuple[TritonUnit, Path], models: Path) -> None:
    server, made = tuned
    found = output(post(server, "m", "input__0", ROWS), "output__0")
    np.testing.assert_allclose(found[:, 0], np.load(models / "sum.npy"), rtol=1e-5)
    assert "XGBoost as the model m on the backend python" in server.text()
    assert setting_of(repository.read_config(made / "m") or {}) == Setting(32, 5000, 1)


def test_explicit_load_under_load_loses_nothing(tuned: tuple[TritonUnit, Path]) -> None:
    server, _ = tuned
    message = parse((tuned[1] / "m" / "config.pbtxt").read_text(), "config")
    with Control(Address.parse(server.grpc)) as control, Hammer(
        f"{server.url}/v2/models/m/infer", v2("input__0", ROWS[:1])
    ) as hammer:  # fmt: skip
        wait_for(lambda: len(hammer.answers) > 20, "first answers")
        before = len(hammer.answers)
        control.load("m", {**message, "max_batch_size": [16], "model_warmup": []}, DEADLINE_S)
        during = len(hammer.answers) - before
        wait_for(lambda: len(hammer.answers) > before + during + 20, "answers after the load")
        assert control.is_model_ready("m", 5)
        assert not control.is_model_ready("nobody", 5)
        control.load("m", message, DEADLINE_S)
    assert {status for status, _, _ in hammer.answers} == {200}
    assert during > 5, "requests were answered while the model was loaded"


def test_batches_form_and_pay(tuned: tuple[TritonUnit, Path]) -> None:
    server, made = tuned
    message = parse((made / "m" / "config.pbtxt").read_text(), "config")
    without = {name: values for name, values in message.items() if name != "dynamic_batching"}
    perf = find_perf_analyzer({"HOME": str(Path.home())})
    ratios = []
    with Control(Address.parse(server.grpc)) as control:
        for config in (without, message):
            control.load("m", config, DEADLINE_S)
            level = measure(perf, Load("m", server.grpc, window_ms=400), 32, {"PATH": "/usr/bin"})
            ratios.append(level.throughput)
    stats = httpx2.get(f"{server.url}/v2/models/m/stats", trust_env=False).json()["model_stats"][0]
    sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in stats["batch_stats"]}
    assert max(sizes) > 8, sizes
    assert stats["inference_count"] > 4 * stats["execution_count"], sizes
    assert ratios[1] > 1.3 * ratios[0], ratios
    print(f"triton.batching.rps.ratio {ratios[1] / ratios[0]:.2f}")


def test_tune_a_repository(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    glowplug("triton", "build", str(models / "linear.onnx"), "--out", str(out), "--backend", "python")
    glowplug(
        "triton", "tune", str(out), "--slo-p99-ms", "1000", "--batch-sizes", "1", "--delays-us", "0",
        "--instances", "1", "--window-ms", "200", "--out", str(tmp_path / "report"),
    )  # fmt: skip
    message = repository.read_config(out / "linear")
    assert message is not None
    assert message["input"], "what is not tuned stays"
    with (tmp_path / "report" / "report.csv").open() as file:
        found = list(csv.DictReader(file))
    by_batch = {
        size: max(float(row["throughput"]) for row in found if row["max_batch_size"] == size)
        for size in ("1", "32")
    }
    assert by_batch["32"] > by_batch["1"]
    assert setting_of(message).max_batch_size == 32
    assert (tmp_path / "report" / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_configurations_for_other_backends_are_understood(
    tuned: tuple[TritonUnit, Path], models: Path, tmp_path: Path
) -> None:
    """This Triton has none of them; that the backend is all that it misses says that it took the rest."""
    server, made = tuned
    shutil.copy(models / "sum.ubj", tmp_path / "net.pt")
    torch = {
        "inputs": (TensorShape("INPUT__0", "FP32", (3, -1)),),
        "outputs": (TensorShape("OUTPUT__0", "BYTES", (1,)),),
    }
    for name, file, options in (
        ("onnxruntime", models / "linear.onnx", {}),
        ("fil", models / "third.ubj", {"preferred_batch_sizes": (4, 8), "versions": VersionPolicy(None)}),
        ("pytorch", tmp_path / "net.pt", torch),
    ):
        build(file, made, BuildOptions(name, kind="KIND_CPU", **options))
        with Control(Address.parse(server.grpc)) as control, pytest.raises(GlowplugError) as caught:
            control.load(name, None, DEADLINE_S)
        assert f"unable to find backend library for backend '{name}'" in caught.value.message
        shutil.rmtree(made / name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_build_from_a_registered_version(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "model").mkdir()
    shutil.copy(models / "half.ubj", tmp_path / "model" / "model.ubj")
    config = RegistryConfig.local(tmp_path / "mlflow")
    register(config, Candidate("fraud", tmp_path / "model"))
    out = tmp_path / "repository"
    words = ["triton", "build", "models:/fraud@champion", "--out", str(out), "--registry", config.uri]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    assert "backend fil runs in Triton's image only" in ran.output and "modelFormat: triton" in ran.output
    message = repository.read_config(out / "fraud") or {}
    assert (message["backend"], message["output"][0]["dims"]) == (["fil"], [2])
    assert (out / "fraud" / "1" / "xgboost.ubj").read_bytes() == (models / "half.ubj").read_bytes()
    ran = CliRunner().invoke(app, ["triton", "build", "models:/fraud", "--out", str(out), "--kind", "x"])
    assert "expected models:/NAME@ALIAS" in str(ran.exception) and "--kind 'x'" in str(ran.exception)


def test_a_limit_that_nothing_meets_is_said(tuned: tuple[TritonUnit, Path], tmp_path: Path) -> None:
    server, _ = tuned
    config_url = f"{server.url}/v2/models/m/config"
    before = httpx2.get(config_url, trust_env=False).json()
    ran = glowplug(
        "triton", "tune", server.url, "--grpc", server.grpc, "--model", "m", "--slo-p99-ms", "0.001",
        "--budget-s", "1", "--window-ms", "200", "--out", str(tmp_path), check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "no setting has p99 within 0.001 ms; the lowest was" in ran.stderr
    assert not (tmp_path / "tuned.pbtxt").exists()
    live = httpx2.get(config_url, trust_env=False).json()
    assert {name: live[name] for name in TUNED} == {name: before[name] for name in TUNED}


def test_a_polling_server_cannot_be_tuned_and_says_why(unit: TritonUnit, tmp_path: Path) -> None:
    ran = glowplug(
        "triton", "tune", unit.url, "--grpc", unit.grpc, "--model", "half", "--slo-p99-ms", "9",
        "--out", str(tmp_path), check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "--model_control_mode=explicit" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_is_missing_is_said(built: Path, tmp_path: Path) -> None:
    nowhere = {"GLOWPLUG_TRITON_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ran = glowplug(
        "triton", "tune", str(built), "--model", "sum", "--slo-p99-ms", "9", check=False, **nowhere
    )
    assert ran.returncode == 1
    assert "glowplug triton install" in ran.stderr and "tritonclient 2.46.0" in ran.stderr


def test_a_broken_model_ends_the_pod_with_the_reason(models: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.ubj").write_bytes((models / "sum.ubj").read_bytes()[:100])
    server = TritonUnit(tmp_path / "pod", tmp_path / "broken")
    assert server.process.wait(DEADLINE_S) == 1
    assert "is no whole JSON or UBJSON model of XGBoost" in server.text()
    assert "Traceback" not in server.text()


def test_models_that_cannot_be_loaded_are_named_last(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    ran = glowplug("triton", "build", str(models / "sum.ubj"), "--out", str(out), "--kind", "cpu")
    assert "for this computer: --backend python" in ran.stderr and "triton tune" not in ran.stderr
    server = TritonUnit(tmp_path / "pod", out)
    assert server.process.wait(DEADLINE_S) == 1
    reason, hint = server.text().splitlines()[-2:]
    assert reason.startswith("model 'sum' version 1: UNAVAILABLE") and "backend 'fil'" in reason
    assert "--backend python" in hint
    ran = glowplug("triton", "tune", str(out), "--slo-p99-ms", "9", "--out", str(tmp_path), check=False)
    assert ran.returncode == 1 and reason in ran.stderr


@pytest.mark.parametrize("is_repository", [True, False])
def test_paths_with_blanks_are_served(models: Path, slow: Path, tmp_path: Path, is_repository: bool) -> None:
    """Both the model's folder and the pod's own."""
    folder = tmp_path / "with blanks"
    if is_repository:
        shutil.copytree(slow, folder)
    else:
        folder.mkdir()
        shutil.copy(models / "sum.ubj", folder / "model.ubj")
    server = TritonUnit(tmp_path / "a pod", folder).wait_until_ready()
    if is_repository:
        assert output(post(server, "slow", "a", [[2.0]]), "b")[0, 0] == 4
    else:
        found = output(post(server, "m", "input__0", ROWS), "output__0")
        np.testing.assert_allclose(found[:, 0], np.load(models / "sum.npy"), rtol=1e-5)
    assert server.stop() == 0


def test_the_manifests_agree_with_the_unit() -> None:
    runtime = yaml.safe_load((UNIT / "runtime.yaml").read_text())
    container = runtime["spec"]["containers"][0]
    assert container["image"].rpartition(":")[0] == "glowplug/triton"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    formats = [each["name"] for each in runtime["spec"]["supportedModelFormats"] if each.get("autoSelect")]
    assert formats == ["triton"]
    service = yaml.safe_load((UNIT / "isvc.yaml").read_text())["spec"]["predictor"]
    assert (service["scaleMetric"], service["model"]["modelFormat"]["name"]) == ("concurrency", "triton")
