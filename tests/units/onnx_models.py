"""Small ONNX models made on the spot, and the unit's model class loaded with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowplug.wire import InferRequest, RequestedOutput, Tensor

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

UNIT = Path(__file__).parents[2] / "predictors" / "onnx"
sys.path.insert(0, str(UNIT / "src"))
from glowplug_onnx.model import OnnxModel  # noqa: E402

RNG = np.random.default_rng(11)
WEIGHTS = RNG.normal(size=(4, 3)).astype(np.float32)
ROWS = RNG.normal(size=(20, 4)).astype(np.float32)
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
node = helper.make_node
value = helper.make_tensor_value_info


def save(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    *weights: Any,
    opset: int = 17,
    ir: int = 9,
) -> Path:
    """A model file; `path` may be a folder."""
    named = [numpy_helper.from_array(array, name) for name, array in weights]
    graph = helper.make_graph(nodes, "test", inputs, outputs, named)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    target = path / "model.onnx" if path.is_dir() else path
    onnx.save(made, str(target))
    return target


def linear(path: Path, **more: Any) -> Path:
    """y = x @ w, [batch, 4] to [batch, 3]."""
    return save(
        path,
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["batch", 4])],
        [value("y", FLOAT, ["batch", 3])],
        ("w", WEIGHTS),
        **more,
    )


def two_and_two(path: Path) -> Path:
    """sum = a + b [n, 2]; twice = 2 b."""
    return save(
        path,
        [node("Add", ["a", "b"], ["sum"]), node("Add", ["b", "b"], ["twice"])],
        [value("a", FLOAT, ["n", 2]), value("b", FLOAT, ["m", 2])],
        [value("sum", FLOAT, ["k", 2]), value("twice", FLOAT, ["m", 2])],
    )


def echo(path: Path, datatype: int, shape: Any) -> Path:
    return save(
        path, [node("Identity", ["x"], ["y"])], [value("x", datatype, shape)], [value("y", datatype, shape)]
    )


def gather(path: Path) -> Path:
    """Rows of a table of 5 by index."""
    return save(
        path,
        [node("Gather", ["table", "index"], ["row"])],
        [value("index", INT64, ["n"])],
        [value("row", FLOAT, ["n", 2])],
        ("table", np.arange(10, dtype=np.float32).reshape(5, 2)),
    )


def loaded(path: Path, **more: Any) -> OnnxModel:
    model = OnnxModel("m", str(path), **more)
    model.load()
    return model


def ask(*tensors: Tensor, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest("m", tensors, outputs=tuple(map(RequestedOutput, outputs)))


def conv(path: Path) -> Path:
    return save(
        path,
        [node("Conv", ["x", "w"], ["y"])],
        [value("x", FLOAT, ["n", 1, "h", "w_"])],
        [value("y", FLOAT, ["n", 1, "a", "b"])],
        ("w", np.ones((1, 1, 3, 3), np.float32)),
    )
