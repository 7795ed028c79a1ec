"""Requests whose inputs are not the declared ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import InferenceError
from glowplug.serving import InferRequest, InferResponse, Model, Tensor, TensorSpec
from glowplug.serving.declared import check_inputs
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.serving.urgency import Urgency

SPECS = (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("s", "BYTES", (-1,)))


def x(shape: tuple[int, ...] = (2, 3), datatype: str = "FP32", name: str = "x") -> Tensor:
    return Tensor(name, datatype, shape, np.zeros(shape))


S = Tensor.from_strings("s", ["a", "b"])


@pytest.mark.parametrize("inputs", [(x(), S), (S, x()), (x((0, 3)), S)])
def test_what_is_declared_passes_in_any_order(inputs: tuple[Tensor, ...]) -> None:
    check_inputs(SPECS, inputs)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ((x(),), "tensor 's' is missing, expected BYTES [-1]"),
        ((x(), S, x(name="y")), "tensor 'y' is no input of this model, expected 'x', 's'"),
        ((x((2, 4)), S), "tensor 'x' is FP32 [2, 4], expected FP32 [-1, 3]"),
        ((x((2, 3, 1)), S), "tensor 'x' is FP32 [2, 3, 1], expected FP32 [-1, 3]"),
        ((x(datatype="FP64"), S), "tensor 'x' is FP64 [2, 3], expected FP32 [-1, 3]"),
        ((), "tensor 'x' is missing, expected FP32 [-1, 3]; tensor 's' is missing, expected BYTES [-1]"),
    ],
)
def test_what_is_not_is_named_all_at_once(inputs: tuple[Tensor, ...], said: str) -> None:
    with pytest.raises(InferenceError) as caught:
        check_inputs(SPECS, inputs)
    assert (caught.value.message, caught.value.code) == (said, 400)


def test_a_message_is_bounded() -> None:
    with pytest.raises(InferenceError, match=r"and 95 more$") as caught:
        check_inputs(SPECS, [x(), S, *(x(name=str(i) * 1000) for i in range(100))])
    assert len(caught.value.message) < 1000


@given(st.lists(st.integers(0, 4), max_size=3), st.lists(st.integers(-1, 4), max_size=3))
def test_minus_one_is_any_size_and_nothing_else(shape: list[int], declared: list[int]) -> None:
    fits = len(shape) == len(declared) and all(d in (-1, s) for s, d in zip(shape, declared, strict=False))
    try:
        check_inputs([TensorSpec("x", "FP32", tuple(declared))], [x(tuple(shape))])
    except InferenceError:
        assert not fits
    else:
        assert fits


class Checked(Model):
    inputs = SPECS
    checks_inputs = True
    seen = 0

    def predict(self, request: InferRequest) -> InferResponse:
        self.seen += 1
        return InferResponse(self.name, ())


@pytest.mark.parametrize("max_batch_size", [1, 4])
async def test_such_a_request_never_reaches_the_model(max_batch_size: int) -> None:
    model = Checked("m")
    model.max_batch_size = max_batch_size
    served = LightModel(model, Metrics())
    bad = InferRequest("m", (x(),))
    with pytest.raises(InferenceError, match="'s' is missing"):
        await served.infer(bad, {})
    with pytest.raises(InferenceError, match="'s' is missing"):
        served.submit(bad, Urgency(), lambda result: None)
    assert model.seen == 0
    await served.infer(InferRequest("m", (x(), S)), {})
    assert model.seen == 1
    await served.close()
