"""The HTTP endpoints, called as the function that they are."""

from __future__ import annotations

import asyncio
import gzip
import logging
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glowplug.errors import InferenceError, StorageError
from glowplug.serving import Model, TensorSpec, request_headers
from glowplug.serving.dataplane import DataPlane, Entry
from glowplug.serving.http import HttpEndpoints, HttpRequest, HttpResponse
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.wire import InferRequest, InferResponse, Tensor, v2_json
from glowplug.wire.cloudevents import ResponsePolicy

LIMIT = 100_000


class Doubler(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (TensorSpec("y", "FP32", (-1, 2)),)
    version = "3"
    headers: Any = None

    def predict(self, request: InferRequest) -> InferResponse:
        self.headers = dict(request_headers())
        data = request.input("x").data
        if data.dtype != np.float32:
            raise InferenceError("tensor 'x': expected FP32")
        return InferResponse(self.name, (Tensor.from_numpy("y", data * 2),))


class Broken(Model):
    def load(self) -> None:
        raise StorageError("the model file is gone", hint="bring it back")

    def predict(self, request: InferRequest) -> InferResponse:
        raise ValueError("the secret of the model")


class Gappy(Doubler):
    accepts_missing = True

    def preprocess(self, request: InferRequest) -> InferRequest:
        return request

    async def postprocess(self, response: InferResponse) -> InferResponse:
        return response


class Service:
    """Endpoints over three models."""

    def __init__(self, max_in_flight: int = 8) -> None:
        self.metrics = Metrics()
        self.doubler = Doubler("doubler")
        models = [self.doubler, Broken("broken"), Gappy("gappy")]
        served = [LightModel(model, self.metrics) for model in models]
        self.plane = DataPlane(served, self.metrics, max_in_flight=max_in_flight)
        for entry in self.plane.entries.values():
            entry.is_loaded = True
        self.endpoints = HttpEndpoints(self.plane, max_body_bytes=LIMIT, events=ResponsePolicy())

    async def ask(
        self, path: str, body: bytes | Any = b"", method: str | None = None, **headers: str
    ) -> tuple[int, Any, HttpResponse]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.endpoints.answer(
            HttpRequest(method or ("POST" if data else "GET"), path, "", named, data)
        )
        is_json = response.headers.get("content-type") == "application/json"
        return response.status, orjson.loads(response.body) if is_json else response.body, response


@pytest.fixture
def service() -> Service:
    return Service()


def tensor(data: Any, shape: Any = (1, 2), datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": list(shape), "data": data, **more}


INFER = "/v2/models/doubler/infer"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", {"status": "alive"}),
        ("/v1/models", {"models": ["doubler", "broken", "gappy"]}),
        ("/v1/models/doubler", {"name": "doubler", "ready": True}),
        ("/v2/models", {"models": ["doubler", "broken", "gappy"]}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/doubler/ready", {"name": "doubler", "ready": True}),
        ("/v2/models/doubler/versions/3/ready", {"name": "doubler", "ready": True}),
        (
            "/v2/models/doubler/versions/3",
            {
                "name": "doubler",
                "platform": "",
                "versions": ["3"],
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
            },
        ),
    ],
)
async def test_pages(service: Service, path: str, expected: Any) -> None:
    status, found, _ = await service.ask(path)
    assert (status, found) == (200, expected)


async def test_server_metadata_names_the_extensions(service: Service) -> None:
    _, found, _ = await service.ask("/v2")
    assert "binary_tensor_data" in found["extensions"]
    assert found["name"] == "glowplug"


@pytest.mark.parametrize(
    ("path", "body", "method", "code"),
    [
        ("/nope", b"", "GET", 404),
        ("/v2/models/nope", b"", "GET", 404),
        ("/v2/models/nope/infer", b"{}", "POST", 404),
        ("/v1/models/nope:predict", b"{}", "POST", 404),
        ("/v2/models/doubler/versions/9/infer", b"{}", "POST", 404),
        ("/v2/models/doubler/versions/9", b"", "GET", 404),
        ("/v2/models/doubler/what/ever", b"", "GET", 404),
        ("/v2/repository/what", b"{}", "POST", 404),
        ("/v2/repository/models/nope/load", b"{}", "POST", 404),
        (INFER, b"", "GET", 405),
        ("/v2/health/ready", b"{}", "POST", 405),
        ("/v1/models/doubler:explain", b"{}", "POST", 501),
        ("/v1/models/doubler:what", b"", "GET", 404),
    ],
)
async def test_codes(service: Service, path: str, body: bytes, method: str, code: int) -> None:
    status, found, _ = await service.ask(path, body, method)
    assert status == code
    assert set(found) == {"error"}


async def test_v2_json_without_id_and_without_a_content_type(service: Service) -> None:
    status, found, response = await service.ask(INFER, {"inputs": [tensor([1, 2.5])]})
    assert status == 200
    assert found["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 5.0]}]
    assert found["model_name"] == "doubler"
    assert found["id"]
    assert response.headers["content-type"] == "application/json"


async def test_the_id_is_the_requests_else_the_x_request_id(service: Service) -> None:
    _, found, _ = await service.ask(INFER, {"id": "mine", "inputs": [tensor([1, 2])]}, x_request_id="theirs")
    assert found["id"] == "mine"
    _, found, response = await service.ask(INFER, {"inputs": [tensor([1, 2])]}, x_request_id="theirs")
    assert found["id"] == "theirs"
    assert response.headers["x-request-id"] == "theirs"
    assert service.doubler.headers["x-request-id"] == "theirs"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "text/plain", "application/octet-stream"]
)
@pytest.mark.parametrize("path", [INFER, "/v1/models/doubler:predict"])
async def test_any_content_type_is_taken(service: Service, path: str, content_type: str) -> None:
    body = {"inputs": [tensor([1, 2])]} if path == INFER else {"instances": [[1, 2]]}
    status, _, _ = await service.ask(path, body, content_type=content_type)
    assert status == 200


async def test_binary_in_and_out(service: Service) -> None:
    asked = InferRequest("doubler", (Tensor.from_numpy("x", np.array([[1, 2]], dtype=np.float32)),))
    body, length = v2_json.encode_request(asked, binary=True)
    status, found, response = await service.ask(INFER, body, inference_header_content_length=str(length))
    assert status == 200
    assert response.headers["content-type"] == "application/octet-stream"
    answer = v2_json.decode_response(found, header_length=response.headers["inference-header-content-length"])
    assert answer.output("y").data.tolist() == [[2, 4]]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (tensor([1, 2, 3]), "tensor 'x': shape [1, 2] needs 2 elements, the data has 3"),
        (tensor([1, None]), "takes no missing values"),
        (tensor(["a", "b"], datatype="BYTES"), "expected FP32"),
    ],
)
async def test_a_callers_mistake_is_400(service: Service, item: Any, said: str) -> None:
    service.doubler.predict = lambda request: (_ for _ in ()).throw(InferenceError("expected FP32"))  # type: ignore[method-assign]
    status, found, _ = await service.ask(INFER, {"inputs": [item]})
    assert status == 400
    assert said in found["error"]


async def test_missing_values_reach_a_model_that_takes_them(service: Service) -> None:
    status, found, _ = await service.ask("/v2/models/gappy/infer", {"inputs": [tensor([1, None])]})
    assert status == 200
    assert found["outputs"][0]["data"] == [2.0, None]


async def test_a_bug_of_the_model_is_500_without_detail_and_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    status, found, _ = await service.ask("/v2/models/broken/infer", {"inputs": []})
    assert status == 500
    assert "ValueError" in found["error"]
    assert "secret" not in found["error"]
    assert "the secret of the model" in caplog.text


async def test_v1_rows_and_objects(service: Service) -> None:
    status, found, _ = await service.ask("/v1/models/doubler:predict", {"instances": [[1, 2], [3, 4]]})
    assert (status, found) == (200, {"predictions": [[2.0, 4.0], [6.0, 8.0]]})
    status, found, _ = await service.ask("/v1/models/doubler:predict", {"instances": [{"x": [1, 2]}]})
    assert (status, found) == (200, {"predictions": [[2.0, 4.0]]})


EVENT = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}


@pytest.mark.parametrize("path", [INFER, "/v1/models/doubler:predict"])
@pytest.mark.parametrize("has_time", [True, False])
async def test_structured_events(service: Service, path: str, has_time: bool) -> None:
    data = {"inputs": [tensor([1, 2])]} if path == INFER else {"instances": [[1, 2]]}
    event = {**EVENT, "data": data, **({"time": "2026-01-01T00:00:00Z"} if has_time else {})}
    status, found, response = await service.ask(path, event, content_type="application/cloudevents+json")
    assert status == 200
    assert response.headers["content-type"] == "application/cloudevents+json"
    answer = orjson.loads(found)
    assert answer["type"] == "io.kserve.inference.response"
    assert ("outputs" if path == INFER else "predictions") in answer["data"]


@pytest.mark.parametrize("path", [INFER, "/v1/models/doubler:predict"])
async def test_binary_events(service: Service, path: str) -> None:
    data = {"inputs": [tensor([1, 2])]} if path == INFER else {"instances": [[1, 2]]}
    headers = {f"ce_{name}": value for name, value in EVENT.items()}
    status, found, response = await service.ask(path, data, content_type="application/json", **headers)
    assert status == 200
    assert response.headers["ce-source"] == "io.kserve.inference.doubler"
    assert ("outputs" if path == INFER else "predictions") in found


async def test_compressed_bodies(service: Service) -> None:
    body = orjson.dumps({"inputs": [tensor([1, 2])]})
    assert (await service.ask(INFER, gzip.compress(body), content_encoding="gzip"))[0] == 200
    assert (await service.ask(INFER, body, content_encoding="gzip"))[0] == 400
    assert (await service.ask(INFER, gzip.compress(body)[:-6], content_encoding="gzip"))[0] == 400
    assert (await service.ask(INFER, body, content_encoding="br"))[0] == 415
    bomb = gzip.compress(b" " * (LIMIT * 100))
    assert len(bomb) < LIMIT
    assert (await service.ask(INFER, bomb, content_encoding="gzip"))[0] == 413


async def test_past_the_limit_requests_are_told_to_come_back() -> None:
    service = Service(max_in_flight=1)
    with service.plane.admitted():
        status, found, response = await service.ask(INFER, {"inputs": [tensor([1, 2])]})
    assert status == 503
    assert response.headers["retry-after"] == "1"
    assert "try again" in found["error"]
    assert (await service.ask(INFER, {"inputs": [tensor([1, 2])]}))[0] == 200
    assert service.metrics.in_flight == 0


class Late(Doubler):
    async def preprocess(self, request: InferRequest) -> InferRequest:
        await asyncio.sleep(0.01)
        return request


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("is_parameter", [True, False])
async def test_a_request_that_nobody_waits_for_is_504_and_counted(
    service: Service, batch_size: int, is_parameter: bool
) -> None:
    late = Late("doubler")
    late.max_batch_size = batch_size
    service.plane.entries["doubler"] = Entry(LightModel(late, service.metrics), is_loaded=True)
    body: Any = {"inputs": [tensor([1, 2])], "parameters": {"timeout": 5000} if is_parameter else {}}
    headers = {} if is_parameter else {"x_envoy_expected_rq_timeout_ms": "5"}
    status, found, _ = await service.ask(INFER, body, **headers)
    assert (status, "deadline passed" in found["error"]) == (504, True)
    if not is_parameter:
        path = "/v1/models/doubler:predict"
        assert (await service.ask(path, {"instances": [[1, 2]]}, **headers))[0] == 504
    assert late.headers is None
    dropped = 'glowplug_requests_dropped_total{model_name="doubler",reason="deadline"} '
    assert dropped + ("1" if is_parameter else "2") in service.metrics.render().decode()
    assert (await service.ask(INFER, {"inputs": [tensor([1, 2])]}))[0] == 200


async def test_load_and_unload(service: Service) -> None:
    status, found, _ = await service.ask("/v2/repository/models/doubler/unload", {})
    assert (status, found) == (200, {"name": "doubler", "unload": True})
    assert (await service.ask(INFER, {"inputs": [tensor([1, 2])]}))[0] == 503
    assert (await service.ask("/v2/health/ready"))[0] == 503
    assert (await service.ask("/v1/models/doubler"))[0] == 503
    _, index, _ = await service.ask("/v2/repository/index", {})
    assert {"name": "doubler", "state": "UNAVAILABLE", "reason": "unloaded"} in index
    _, index, _ = await service.ask("/v2/repository/index", {"ready": True})
    assert "doubler" not in [row["name"] for row in index]
    assert (await service.ask("/v2/repository/models/doubler/load", {}))[0] == 200
    assert (await service.ask(INFER, {"inputs": [tensor([1, 2])]}))[0] == 200
    status, found, _ = await service.ask("/v2/repository/models/broken/load", {})
    assert status == 503
    assert "the model file is gone" in found["error"]


async def test_readiness_turns_false_while_draining_and_requests_are_served(service: Service) -> None:
    service.plane.is_draining = True
    assert (await service.ask("/v2/health/ready"))[0] == 503
    assert (await service.ask("/v2/models/doubler/ready"))[0] == 503
    assert (await service.ask("/v2/health/live"))[0] == 200
    assert (await service.ask(INFER, {"inputs": [tensor([1, 2])]}))[0] == 200


async def test_metrics_count_what_was_answered(service: Service) -> None:
    await service.ask(INFER, {"inputs": [tensor([1, 2])]})
    await service.ask(INFER, {"inputs": []})
    await service.ask("/v2/models/gappy/infer", {"inputs": [tensor([1, 2])]})
    await service.ask("/v2/models/" + "x" * 50 + "/infer", {"inputs": []})
    _, page, response = await service.ask("/metrics")
    text = page.decode()
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'glowplug_requests_total{model_name="doubler",protocol="v2",code="200"} 1' in text
    assert 'glowplug_requests_total{model_name="doubler",protocol="v2",code="400"} 1' in text
    assert 'request_predict_seconds_count{model_name="doubler"} 1' in text
    assert 'request_predict_seconds_bucket{model_name="doubler",le="+Inf"} 1' in text
    for stage in ("preprocess", "predict", "postprocess"):
        assert f'request_{stage}_seconds_count{{model_name="gappy"}} 1' in text
    assert "xxxxx" not in text


async def test_one_debug_line_a_request_and_none_by_default(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    await service.ask("/v2/health/live")
    assert not caplog.records
    with caplog.at_level(logging.DEBUG, logger="glowplug.serving.access"):
        await service.ask("/v2/health/live")
    assert [record.getMessage() for record in caplog.records] == ["v2 GET /v2/health/live 200"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
DOCUMENT = JSON | st.fixed_dictionaries(
    {},
    optional={
        "inputs": JSON
        | st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(tensor([]), JSON)), max_size=2),
        "instances": JSON,
        "outputs": JSON,
        "parameters": JSON,
        "id": JSON,
        **dict.fromkeys((*EVENT, "data", "data_base64"), JSON),
    },
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    body=st.binary(max_size=60) | DOCUMENT.map(orjson.dumps),
    path=st.sampled_from(
        [INFER, "/v1/models/doubler:predict", "/v2/models/gappy/infer", "/v2/repository/index"]
    ),
    headers=st.dictionaries(
        st.sampled_from(
            ["content_type", "content_encoding", "inference_header_content_length", "ce_specversion", "ce_id"]
        ),
        st.sampled_from(["application/cloudevents+json", "gzip", "deflate", "0", "7", "1.0", "é"]),
    ),
)
async def test_no_body_makes_a_5xx(service: Service, body: bytes, path: str, headers: dict[str, str]) -> None:
    status, found, _ = await service.ask(path, body, "POST", **headers)
    assert status < 500, found
