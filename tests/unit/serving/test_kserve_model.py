"""Subclasses of kserve.Model behind our endpoints: they get and may give what they would under KServe."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import orjson
import pytest

from glowplug.serving.config import PredictorConfig
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.http import HttpEndpoints, HttpRequest
from glowplug.serving.kserve_model import KServeModel, is_kserve_model
from glowplug.serving.metrics import Metrics
from glowplug.serving.model import Model
from glowplug.wire import InferRequest, Tensor, v2_grpc, v2_json
from glowplug.wire.cloudevents import ResponsePolicy

kserve: Any = pytest.importorskip("kserve")
from kserve.errors import InvalidInput  # noqa: E402
from kserve.utils.utils import get_predict_input, get_predict_response  # noqa: E402


class Doubler(kserve.Model):  # type: ignore[misc, name-defined]
    """As KServe's documentation writes them."""

    def load(self) -> bool:
        self.ready = True
        return True

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        self.seen = (payload, headers)
        return payload

    def predict(self, payload: Any, headers: Any = None) -> Any:
        if headers.get("x-mode") == "invalid":
            raise InvalidInput("bad rows")
        if headers.get("x-mode") == "dict":
            return {"outputs": [{"name": "d", "datatype": "INT32", "shape": [1], "data": [7]}], "id": "1"}
        return get_predict_response(payload, get_predict_input(payload) * 2, self.name)

    async def explain(self, payload: Any, headers: Any = None) -> Any:
        return {"explanations": payload["instances"]}


@pytest.fixture
async def served() -> Any:
    model = Doubler("m")
    plane = DataPlane([KServeModel(model, PredictorConfig())], Metrics(), max_in_flight=8)
    await plane.load("m")
    endpoints = HttpEndpoints(plane, max_body_bytes=10**6, events=ResponsePolicy())

    async def ask(path: str, body: Any, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await endpoints.answer(HttpRequest("POST", path, "", named, data))
        if "inference-header-content-length" in response.headers:
            length = response.headers["inference-header-content-length"]
            return response.status, v2_json.decode_response(response.body, header_length=length)
        return response.status, orjson.loads(response.body)

    return model, plane, ask


def test_it_is_known_without_importing_kserve() -> None:
    assert is_kserve_model(Doubler("m"))
    assert not is_kserve_model(Model("m"))
    heavy = (
        "kserve click uvicorn starlette httpx prometheus_client pandas scipy sklearn pydantic google.protobuf"
    )
    code = (
        "import sys, glowplug.serving, glowplug.serving.grpc_server;"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


async def test_v1_gets_the_document_and_the_headers(served: Any) -> None:
    model, _, ask = served
    body = {"instances": [[1, 2]], "more": 1}
    assert await ask("/v1/models/m:predict", body, authorization="me") == (200, {"predictions": [[2, 4]]})
    assert model.seen == (body, {"authorization": "me"})
    assert await ask("/v1/models/m:explain", body) == (200, {"explanations": [[1, 2]]})


async def test_v2_json_gets_the_clients_own_lists(served: Any) -> None:
    model, _, ask = served
    item = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2.5]], "parameters": {"a": 1}}
    status, found = await ask("/v2/models/m/infer", {"inputs": [item], "parameters": {"p": True}})
    assert status == 200
    assert found["outputs"][0]["data"] == [2.0, 5.0]
    request = model.seen[0]
    assert isinstance(request, kserve.InferRequest)
    assert request.inputs[0].data == [[1, 2.5]]
    assert request.inputs[0].parameters == {"a": 1}
    assert request.parameters == {"p": True}
    assert not request.from_grpc


async def test_v2_binary_in_and_out(served: Any) -> None:
    model, _, ask = served
    asked = InferRequest("m", (Tensor.from_numpy("x", np.array([[1, 2]], dtype=np.float32)),))
    body, length = v2_json.encode_request(asked, binary=True)
    # What kserve's own transformer sends: two content types, of which a server sees either.
    status, answer = await ask(
        "/v2/models/m/infer",
        body,
        content_type="application/json",
        inference_header_content_length=str(length),
    )
    assert status == 200
    assert answer.outputs[0].data.tolist() == [[2, 4]]
    assert model.seen[0].inputs[0].data == [1.0, 2.0]


@pytest.mark.parametrize("raw", [True, False])
async def test_grpc_raw_and_typed(served: Any, raw: bool) -> None:
    model, plane, _ = served
    tensor = Tensor.from_numpy("x", np.array([[1, 2]], dtype=np.float32))
    data = v2_grpc.encode_infer_request(InferRequest("m", (tensor,), id="7"), raw=raw)
    request = v2_grpc.decode_infer_request(data)
    answer = await plane.served("m").infer(request, {"x-request-id": "r"})
    response = v2_grpc.decode_infer_response(v2_grpc.encode_infer_response(answer, request))
    assert response.outputs[0].data.tolist() == [[2, 4]]
    assert model.seen[0].from_grpc
    assert model.seen[1] == {"x-request-id": "r"}


async def test_text_stays_text_over_json(served: Any) -> None:
    model, _, ask = served
    item = {"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a", "é"]}
    await ask("/v2/models/m/infer", {"inputs": [item]}, x_mode="dict")
    assert model.seen[0].inputs[0].data == ["a", "é"]


async def test_its_own_errors_have_their_codes(served: Any) -> None:
    _, _, ask = served
    assert await ask("/v1/models/m:predict", {"instances": [1]}, x_mode="invalid") == (
        400,
        {"error": "bad rows"},
    )


async def test_a_dict_is_a_v2_answer(served: Any) -> None:
    _, _, ask = served
    item = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
    status, found = await ask("/v2/models/m/infer", {"inputs": [item]}, x_mode="dict")
    assert status == 200
    assert found["outputs"] == [{"name": "d", "datatype": "INT32", "shape": [1], "data": [7]}]


async def test_shapes_and_missing_values_are_checked_before_it_sees_them(served: Any) -> None:
    _, _, ask = served
    for item in (
        {"name": "x", "datatype": "FP32", "shape": [3], "data": [1]},
        {"name": "x", "datatype": "FP32", "shape": [1], "data": [None]},
    ):
        status, _ = await ask("/v2/models/m/infer", {"inputs": [item]})
        assert status == 400


async def test_metrics_show_kserves_histograms_once(served: Any) -> None:
    _, plane, ask = served
    await ask("/v1/models/m:predict", {"instances": [[1, 2]]})
    text = plane.metrics.render().decode()
    assert text.count("# TYPE request_predict_seconds histogram") == 1
    assert 'request_predict_seconds_count{model_name="m"}' in text
    assert text.count("# TYPE process_cpu_seconds_total") == 1
