"""Triton's and KServe's own clients, and curl, against every predictor that is ours; Triton's has its own tests."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from units.huggingface_lab import minilm, minilm_cache, needs_minilm
from units.onnx_models import WEIGHTS, linear
from units.triton_lab import tritonclient_python
from units.unit_process import DEADLINE_S, UnitProcess
from units.xgboost_models import NAMES, train, xgboost

kserve: Any = pytest.importorskip("kserve")

ASK = """
import json, sys
import numpy as np, tritonclient.grpc as g, tritonclient.http as h
rest, grpc, name, datatype, rows, output = sys.argv[1:]
rows = np.array(json.loads(rows), object if datatype == "BYTES" else np.float32)
for module, url in ((h, rest), (g, grpc)):
    client = module.InferenceServerClient(url)
    assert client.is_server_ready() and client.is_model_ready("m")
    assert client.get_model_metadata("m")
    tensor = module.InferInput(name, list(rows.shape), datatype)
    tensor.set_data_from_numpy(rows)
    print(json.dumps(client.infer("m", [tensor]).as_numpy(output).astype(float).tolist()))
"""
ROWS = np.linspace(-1, 1, 10, dtype=np.float32).reshape(2, 5)


@dataclass
class Served:
    """A unit, what to ask it, and what it must answer (None: twice the same)."""

    unit: UnitProcess
    name: str
    datatype: str
    rows: Any
    output: str
    expected: Any


@pytest.fixture(scope="module", params=["xgboost", "onnx", pytest.param("huggingface", marks=needs_minilm)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("model")
    log = tmp_path_factory.mktemp("log") / "stderr"
    if request.param == "xgboost":
        booster = train()
        booster.save_model(folder / "model.ubj")
        expected = booster.predict(xgboost.DMatrix(ROWS, feature_names=NAMES))
        unit = UnitProcess(log, "glowplug_xgboost", f"--model_dir={folder}")
        found = Served(unit, "input-0", "FP32", ROWS, "predict", expected)
    elif request.param == "onnx":
        pytest.importorskip("onnxruntime")
        linear(folder)
        unit = UnitProcess(log, "glowplug_onnx", f"--model_dir={folder}")
        found = Served(unit, "x", "FP32", ROWS[:, :4], "y", ROWS[:, :4] @ WEIGHTS)
    else:
        cache = minilm_cache(tmp_path_factory)
        unit = UnitProcess(log, "glowplug_huggingface", f"--model_dir={minilm()}", f"--cache_dir={cache}")
        found = Served(unit, "text", "BYTES", np.array(["one", "two"], object), "embedding", None)
    found.unit.wait_until_ready()
    yield found
    found.unit.stop()


def hold(answers: list[Any], expected: Any) -> None:
    """All of them are `expected`, or else each other."""
    wanted = answers[0] if expected is None else expected
    for answer in answers:
        np.testing.assert_allclose(
            np.asarray(answer, dtype=float), np.asarray(wanted, float), rtol=1e-4, atol=1e-5
        )


def test_tritons_client(served: Served) -> None:
    unit = served.unit
    rows = json.dumps(served.rows.tolist())
    words = [unit.url.removeprefix("http://"), unit.grpc, served.name, served.datatype, rows, served.output]
    ran = subprocess.run(
        [str(tritonclient_python()), "-c", ASK, *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(answers) == 2
    hold(answers, served.expected)


async def test_kserves_clients(served: Served) -> None:
    answers = []
    rest = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2", timeout=DEADLINE_S))
    rpc = kserve.InferenceGRPCClient(served.unit.grpc, timeout=DEADLINE_S)
    for is_binary in (True, False):
        tensor = kserve.InferInput(served.name, list(served.rows.shape), served.datatype)
        tensor.set_data_from_numpy(served.rows, binary_data=is_binary)
        asked = kserve.InferRequest(model_name="m", infer_inputs=[tensor])
        answers.append((await rest.infer(served.unit.url, asked, model_name="m")).outputs[0].as_numpy())
        answers.append((await rpc.infer(asked)).outputs[0].as_numpy())
    await rest.close()
    hold(answers, served.expected)


def test_curl(served: Served, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    data = served.rows.ravel().tolist()
    tensor = {
        "name": served.name,
        "shape": list(served.rows.shape),
        "datatype": served.datatype,
        "data": data,
    }
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"inputs": [tensor]}))
    url = f"{served.unit.url}/v2/models/m/infer"
    answers = []
    for _ in range(2):
        ran = subprocess.run(
            [curl, "-sf", "-d", f"@{body}", url], capture_output=True, text=True, timeout=30, check=True
        )
        output = json.loads(ran.stdout)["outputs"][0]
        answers.append(np.reshape(output["data"], output["shape"]))
    hold(answers, served.expected)
