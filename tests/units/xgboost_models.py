"""Small boosters, and the unit's model class loaded with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowplug.wire import InferRequest, Tensor

xgboost: Any = pytest.importorskip("xgboost")

UNIT = Path(__file__).parents[2] / "predictors" / "xgboost"
sys.path.insert(0, str(UNIT / "src"))
from glowplug_xgboost.model import XgboostModel  # noqa: E402

FEATURES = 5
NAMES = [f"f{index}" for index in range(FEATURES)]
ROWS = np.random.default_rng(7).normal(size=(200, FEATURES)).astype(np.float32)
LABELS = {
    "reg:squarederror": ROWS[:, 0] * 2 + ROWS[:, 1],
    "binary:logistic": (ROWS[:, 0] > 0).astype(np.float32),
    "multi:softprob": (ROWS[:, 0] > 0).astype(np.float32) + (ROWS[:, 1] > 0),
    "multi:softmax": (ROWS[:, 0] > 0).astype(np.float32) + (ROWS[:, 1] > 0),
    "count:poisson": np.abs(ROWS[:, 0]),
}


def train(objective: str = "reg:squarederror", *, named: bool = True, **parameters: Any) -> Any:
    options = {"objective": objective, "max_depth": 3, "nthread": 1, **parameters}
    options = {name: value for name, value in options.items() if value is not None}
    if objective.startswith("multi"):
        options["num_class"] = 3
    data = xgboost.DMatrix(
        ROWS, LABELS.get(objective, LABELS["reg:squarederror"]), feature_names=NAMES if named else None
    )
    return xgboost.train(options, data, 8)


def loaded(folder: Path, booster: Any, name: str = "model.ubj", **more: Any) -> XgboostModel:
    booster.save_model(folder / name)
    model = XgboostModel("m", str(folder), **more)
    model.load()
    model.improve()
    return model


def ask(*tensors: Tensor) -> InferRequest:
    return InferRequest("m", tensors)


def predict(model: XgboostModel, *tensors: Tensor) -> Any:
    output = model.predict(ask(*tensors)).output("predict")
    assert output.datatype == "FP32"
    return output.data
