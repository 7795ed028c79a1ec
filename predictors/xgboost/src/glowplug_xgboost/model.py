"""An XGBoost booster behind the V1 and V2 protocols.

Takes either one tensor [n, features] or a tensor for each feature, by name and in any order. Few rows at a time are
predicted by the trees' compiled form, many by libxgboost, as `choice.py` measures at the start. One thread by default:
a row takes less time than handing it to a second one. Requests that arrive together are predicted together, since 32
rows take libxgboost hardly more than one does (100 trees of depth 6: 75 µs and 120 µs).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from glowplug.errors import InferenceError, StorageError
from glowplug.serving import Model, TensorSpec
from glowplug.wire import InferRequest, InferResponse, Tensor
from glowplug_xgboost.choice import AUTO, COMPILED, Choice, choose
from glowplug_xgboost.files import read_model
from glowplug_xgboost.native import Booster, XgboostError

log = logging.getLogger("glowplug.xgboost")

INPUT = "input-0"
OUTPUT = "predict"
# `booster.set_attr(glowplug_accepts_missing="true")` after training on data with gaps.
MISSING_ATTRIBUTE = "glowplug_accepts_missing"
MAX_NAMED = 10
MAX_BATCH_SIZE = 32


class XgboostModel(Model):
    """Regression, binary, multi-class and ranking boosters of trees; output `predict`, FP32 [n] or [n, classes]."""

    platform = "xgboost"

    def __init__(
        self,
        name: str,
        model_dir: str,
        *,
        nthread: int = 1,
        accepts_missing: bool = False,
        max_batch_size: int = MAX_BATCH_SIZE,
        trees: str = AUTO,
    ) -> None:
        super().__init__(name)
        self.max_batch_size = max_batch_size
        self.accepts_missing = accepts_missing
        self._model_dir = model_dir
        self._nthread = nthread
        self._trees = trees
        # What predicts how many rows, and why.
        self.choice = Choice(0, "the booster, until its trees are compiled")
        self._booster: Any = None
        self._width = 0
        self._names: tuple[str, ...] = ()
        self._indexes: dict[str, int] = {}
        self._classes: tuple[int, ...] = ()

    def load(self) -> None:
        """Reads the model file. Raises StorageError or ConfigError."""
        path, content = read_model(self._model_dir)
        try:
            booster = Booster(content, nthread=self._nthread)
            kind, objective = booster.description()
            width = booster.feature_count()
        except (XgboostError, ValueError, KeyError) as error:
            raise StorageError(
                f"{path} is no XGBoost model that can be read: {error}", hint="train again, or copy it again"
            ) from error
        if kind not in ("gbtree", "dart"):
            raise StorageError(f"{path} is a {kind} booster; only trees (gbtree, dart) are served")
        if width == 0:
            raise StorageError(f"{path} has no features")
        self._booster = booster
        self._width = width
        self._names = self.columns = booster.feature_names()
        self._indexes = {name: index for index, name in enumerate(self._names)}
        if booster.attribute(MISSING_ATTRIBUTE) == "true":
            self.accepts_missing = True
        # What one row yields, is told by the model itself: the objectives differ.
        self._classes = tuple(self._booster.predict(np.zeros((1, width), dtype=np.float32)).shape[1:])
        self.inputs = (TensorSpec(INPUT, "FP32", (-1, width)),)
        self.outputs = (TensorSpec(OUTPUT, "FP32", (-1, *self._classes)),)
        self.platform = f"xgboost_{objective.replace(':', '_')}"
        if self._trees != AUTO:
            self.choice = choose(booster, self._trees)
        if self._trees == COMPILED and self.choice.trees is None:
            raise StorageError(
                f"{path}: {self.choice.reason}", hint="--trees=auto lets the booster predict then"
            )
        self.facts["trees"] = self.choice.reason

    def improve(self) -> None:
        """Compiles the trees and compares them with the booster, which has predicted so far."""
        if self._trees == AUTO:
            self.choice = choose(self._booster)
            self.facts["trees"] = self.choice.reason
            log.info("model %s: %s", self.name, self.choice.reason)

    def predict(self, request: InferRequest) -> InferResponse:
        """One prediction a row. Raises InferenceError (400) where the inputs are not this model's."""
        rows = self._rows(request.inputs)
        if len(rows):
            trees = self.choice.trees if len(rows) <= self.choice.max_rows else None
            values = (trees or self._booster).predict(rows)
        else:
            values = np.empty((0, *self._classes), dtype=np.float32)
        return InferResponse(self.name, (Tensor(OUTPUT, "FP32", values.shape, values),))

    def _rows(self, inputs: tuple[Tensor, ...]) -> Any:
        """C-contiguous float32 [n, features]."""
        if not inputs:
            raise InferenceError(f"no input, expected one tensor [n, {self._width}] or one a feature")
        if len(inputs) > 1 or (inputs[0].name in self._indexes and self._is_column(inputs[0])):
            return self._from_columns(inputs)
        tensor = inputs[0]
        if len(tensor.shape) != 2 or tensor.shape[1] != self._width:
            raise InferenceError(
                f"tensor {tensor.name!r}: shape is {list(tensor.shape)}, expected [n, {self._width}]"
            )
        return np.ascontiguousarray(_numbers(tensor), dtype=np.float32)

    def _is_column(self, tensor: Tensor) -> bool:
        return len(tensor.shape) == 1 or self._width == 1

    def _from_columns(self, inputs: tuple[Tensor, ...]) -> Any:
        if not self._names:
            raise InferenceError(
                f"{len(inputs)} tensors, but the model has no feature names; "
                f"expected one tensor [n, {self._width}]"
            )
        given = {tensor.name for tensor in inputs}
        missing = [name for name in self._names if name not in given]
        unknown = [name for name in given if name not in self._indexes]
        if missing or unknown:
            raise InferenceError(
                f"the features are not the model's {self._width}: missing {_some(missing)}; "
                f"unknown {_some(sorted(unknown))}"
            )
        count = inputs[0].size
        rows: Any = np.empty((count, self._width), dtype=np.float32)
        for tensor in inputs:
            if tensor.shape not in ((count,), (count, 1)):
                raise InferenceError(
                    f"tensor {tensor.name!r}: shape is {list(tensor.shape)}, expected [{count}] "
                    f"as {inputs[0].name!r} has"
                )
            rows[:, self._indexes[tensor.name]] = _numbers(tensor).reshape(-1)
        return rows


def _numbers(tensor: Tensor) -> Any:
    if tensor.datatype == "BYTES":
        raise InferenceError(
            f"tensor {tensor.name!r}: datatype is BYTES, expected numbers (FP32); "
            "categories are sent as their codes in the order of training"
        )
    return tensor.data


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(repr(name[:80]) for name in names[:MAX_NAMED]) + rest
