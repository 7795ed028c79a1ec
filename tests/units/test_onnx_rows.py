"""When the ONNX predictor computes rows of several requests at once, and that they never see each other."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from units.onnx_models import (
    FLOAT,
    INT64,
    ROWS,
    STRING,
    WEIGHTS,
    OnnxModel,
    ask,
    conv,
    echo,
    gather,
    linear,
    loaded,
    node,
    save,
    two_and_two,
    value,
)  # fmt: skip

from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.wire import Tensor

from glowplug_onnx import rows  # isort: skip
from glowplug_onnx.rows import Verdict, close, dependence, examine, first_axis, trial, worth  # isort: skip
from glowplug_onnx.signature import Signature  # isort: skip


async def warm(path: Path, **more: Any) -> OnnxModel:
    model = loaded(path, **more)
    await model.warmup()
    return model


@pytest.fixture
def always_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models gain nothing by batches; here it is about the rest."""
    monkeypatch.setattr(rows, "worth", lambda *_: Verdict(True, "test"))


def batch_sum(path: Path) -> Path:
    """y = x - mean over all rows: each row depends on the others."""
    return save(
        path,
        [node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), node("Sub", ["x", "mean"], ["y"])],
        [value("x", FLOAT, ["n", 4])],
        [value("y", FLOAT, ["n", 4])],
    )


def pooled(path: Path) -> Path:
    """One answer for all rows."""
    return save(
        path,
        [node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)],
        [value("x", FLOAT, ["n", 4])],
        [value("y", FLOAT, ["m", 4])],
    )


def tokens(path: Path, *, axis: str = "n") -> Path:
    """ids, mask [n, length] int64 to the mean of the masked embeddings [n, 2], and a text."""
    table = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    return save(
        path,
        [
            node("Gather", ["table", "ids"], ["each"]),
            node("Cast", ["mask"], ["number"], to=FLOAT),
            node("Unsqueeze", ["number", "last"], ["wide"]),
            node("Mul", ["each", "wide"], ["seen"]),
            node("ReduceSum", ["seen", "middle"], ["y"], keepdims=0),
        ],
        [value("ids", INT64, ["n", "length"]), value("mask", INT64, [axis, "length"])],
        [value("y", FLOAT, ["n", 2])],
        ("table", table),
        ("last", np.array([2])),
        ("middle", np.array([1])),
    )


@pytest.mark.usefixtures("always_worth")
async def test_rows_that_are_independent_are_batched(tmp_path: Path) -> None:
    for make in (linear, tokens, gather, conv):
        (tmp_path / make.__name__).mkdir()
        model = await warm(make(tmp_path / make.__name__))
        assert model.max_batch_size == 32, (make.__name__, model.batching)
    assert (await warm(echo(tmp_path, STRING, ["n", 2]))).batching.is_batched
    assert (await warm(tmp_path, max_batch_size=7)).max_batch_size == 7
    assert (await warm(tmp_path, max_batch_size=1)).batching == Verdict(False, "--max_batch_size is 1")


@pytest.mark.usefixtures("always_worth")
async def test_rows_that_know_of_each_other_are_not(tmp_path: Path) -> None:
    model = await warm(batch_sum(tmp_path))
    assert model.batching.reason == "rows that are computed together come out differently"
    assert model.max_batch_size == 1
    assert not (await warm(pooled(tmp_path))).batching.is_batched
    assert "different names" in (await warm(two_and_two(tmp_path))).batching.reason
    assert "different names" in (await warm(tokens(tmp_path, axis="m"))).batching.reason
    for shape in ([4], [], None):
        assert "is not of any size" in (await warm(echo(tmp_path, FLOAT, shape))).batching.reason


async def test_a_model_that_gains_nothing_is_not_batched(tmp_path: Path) -> None:
    assert "by itself" in (await warm(linear(tmp_path))).batching.reason


def test_what_is_worth_it() -> None:
    # 200 µs to 60: clearly. A tenth less, or 60 µs of 70: not.
    assert worth(200e-6, 60e-6) == Verdict(True, "a row takes 200 µs by itself, 60 µs among 4")
    assert not worth(20e-3, 18e-3).is_batched
    assert not worth(70e-6, 10e-6).is_batched


def signature(axis: str, *shape: int, datatype: str = "FP32", name: str = "x") -> Signature:
    return Signature(name, datatype, shape, "", axis)


def test_slow_models_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    monkeypatch.setattr(rows, "perf_counter", lambda: clock[0])

    def compute(feeds: dict[str, Any]) -> list[Any]:
        calls.append(len(feeds["x"]))
        clock[0] += 0.2
        return [feeds["x"]]

    found = examine([signature("n", -1, 2)], [signature("n", -1, 2)], compute)
    assert found == Verdict(False, "a row takes 200 ms by itself")
    assert calls == [1]


def test_trials_differ_and_fit() -> None:
    takes = [
        signature("n", -1, 3, -1, name="a"),
        signature("n", -1, -1, datatype="INT64", name="b"),
        signature("n", -1, 2, datatype="BYTES", name="c"),
        signature("n", -1, 2, datatype="BOOL", name="d"),
        signature("n", -1, 2, datatype="FP16", name="e"),
    ]
    first, second = (trial(takes, 8, seed) for seed in (0, 1))
    assert {name: array.shape for name, array in first.items()} == {
        "a": (1, 3, 8), "b": (1, 8), "c": (1, 2), "d": (1, 2), "e": (1, 2),
    }  # fmt: skip
    assert [array.dtype.name for array in first.values()] == ["float32", "int64", "object", "bool", "float16"]
    assert not np.array_equal(first["a"], second["a"])
    assert not np.array_equal(first["b"], second["b"])
    assert first_axis(takes, [signature("", -1)]) == ""
    assert first_axis([signature("", -1), signature("", -1)], []) != ""


def test_closeness() -> None:
    ones = np.ones((2, 2), np.float32)
    assert close(ones, ones + np.float32(5e-4))
    assert not close(ones, ones + np.float32(5e-3))
    assert close(np.array([np.nan, np.inf, 1]), np.array([np.nan, np.inf, 1]))
    assert not close(np.array([1]), np.array([2]))
    assert dependence([[ones[:1]], [ones[:1]]], [ones]) == ""
    assert dependence([[ones[0, 0]]], [ones]) != ""


@pytest.mark.usefixtures("always_worth")
async def test_requests_that_share_a_batch_get_their_own_answers(tmp_path: Path) -> None:
    model = loaded(linear(tmp_path))
    metrics = Metrics()
    served = LightModel(model, metrics)
    await served.warmup()

    async def one(index: int) -> None:
        part = ROWS[index % 20 : index % 20 + 1 + index % 3]
        answer = await served.infer(ask(Tensor.from_numpy("x", part)), {})
        np.testing.assert_allclose(answer.output("y").data, part @ WEIGHTS, rtol=1e-4, atol=1e-5)

    await asyncio.gather(*map(one, range(100)))
    batches = re.search(r'glowplug_batch_rows_count{model_name="m"} (\d+)', metrics.render().decode())
    assert batches is not None
    assert int(batches[1]) < 50
    await served.close()
