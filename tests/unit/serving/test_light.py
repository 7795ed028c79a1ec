"""Light models: what may be async may be plain too, and slow ones leave the event loop."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from glowplug.errors import InferenceError
from glowplug.serving import Model, TensorSpec
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.serving.model import zeros
from glowplug.wire import InferRequest, InferResponse, Tensor


class Where(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("b", "BYTES", (-1,)))
    in_thread = False
    seen: Any = None
    thread: Any = None

    def predict(self, request: InferRequest) -> InferResponse:
        self.seen = request
        self.thread = threading.current_thread()
        return InferResponse(self.name, ())


REQUEST = InferRequest("m", ())


@pytest.mark.parametrize("in_thread", [False, True])
async def test_only_models_that_ask_for_it_leave_the_loop(in_thread: bool) -> None:
    model = Where("m")
    model.in_thread = in_thread
    await LightModel(model, Metrics()).infer(REQUEST, {})
    assert (model.thread is not threading.main_thread()) == in_thread


async def test_the_default_warm_up_predicts_zeros_of_the_declared_inputs() -> None:
    model = Where("m")
    await LightModel(model, Metrics()).warmup()
    assert model.seen.input("x").data.tolist() == [[0, 0, 0]]
    assert model.seen.input("b").data == [b""]


def test_zeros_of_every_kind() -> None:
    assert zeros(TensorSpec("x", "INT64", (2, -1))).data.tolist() == [[0], [0]]
    assert zeros(TensorSpec("x", "BF16", ())).data.dtype == np.float32
    assert zeros(TensorSpec("x", "BYTES", (2, 2))).data == [b""] * 4


async def test_every_stage_may_be_async_or_plain() -> None:
    class Staged(Model):
        async def load(self) -> None:
            self.steps = ["load"]

        async def preprocess(self, request: InferRequest) -> InferRequest:
            self.steps.append("pre")
            return request

        async def predict(self, request: InferRequest) -> InferResponse:
            self.steps.append("predict")
            return InferResponse(self.name, (Tensor.from_strings("s", ["a"]),))

        def postprocess(self, response: InferResponse) -> InferResponse:
            self.steps.append("post")
            return response

        async def close(self) -> None:
            self.steps.append("close")

    model = Staged("m")
    served = LightModel(model, Metrics())
    await served.load()
    await served.warmup()
    assert await served.predict_v1({"instances": [1]}, {}) == {"predictions": ["a"]}
    await served.close()
    assert model.steps == ["load", "pre", "predict", "post", "close"]


async def test_a_model_without_predict_is_501() -> None:
    with pytest.raises(InferenceError) as caught:
        await LightModel(Model("m"), Metrics()).infer(REQUEST, {})
    assert caught.value.code == 501


async def test_an_answer_of_another_kind_is_named() -> None:
    class Wrong(Model):
        def predict(self, request: InferRequest) -> Any:
            return {"outputs": []}

    with pytest.raises(
        InferenceError, match=r"builtins\.dict, expected glowplug\.serving\.InferResponse"
    ) as caught:
        await LightModel(Wrong("m"), Metrics()).infer(REQUEST, {})
    assert caught.value.code == 500
