"""The XGBoost predictor's model on its own: what it takes, what it answers, which files it reads."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from units.xgboost_models import (
    FEATURES,
    LABELS,
    NAMES,
    ROWS,
    UNIT,
    XgboostModel,
    ask,
    loaded,
    predict,
    train,
    xgboost,
)  # fmt: skip

from glowplug.errors import InferenceError, StorageError
from glowplug.serving.light import LightModel
from glowplug.serving.metrics import Metrics
from glowplug.wire import Tensor


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


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    model = loaded(tmp_path, train(), trees="booster")
    expected = predict(model, Tensor.from_numpy("x", ROWS))

    def work(first: int) -> None:
        for row in range(first, len(ROWS), 4):
            for count in (1, 3):
                found = predict(model, Tensor.from_numpy("x", ROWS[row : row + count]))
                np.testing.assert_array_equal(found, expected[row : row + count])

    # Each thread's pool ends, and its memory in the library with it.
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))


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
