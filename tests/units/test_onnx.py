"""The ONNX predictor's model on its own: what it takes and what it answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from units.onnx_models import (
    FLOAT,
    RNG,
    ROWS,
    STRING,
    WEIGHTS,
    TensorProto,
    ask,
    conv,
    echo,
    gather,
    linear,
    loaded,
    two_and_two,
)  # fmt: skip

from glowplug.errors import ConfigError, InferenceError
from glowplug.serving.threads import available_cpus, quota_cpus, thread_count
from glowplug.wire import Tensor


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
