"""What a model takes and gives, read from its file by the library that runs it.

The libraries are imported inside the calls: they are heavy, and only the kind at hand is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError, StorageError

# FIL's names for a forest's input and output; the Python model made here has the same, so that clients need not care.
FOREST_INPUT = "input__0"
FOREST_OUTPUT = "output__0"
_FATAL_ONLY = 4  # onnxruntime's severities go from 0 (verbose) to 4 (fatal)
_ONNX_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
# XGBoost writes `version` last; a cut-off file without it crashes the library, and the process with it.
_TAIL_BYTES = 64


@dataclass(frozen=True)
class TensorShape:
    """An input or output with its whole shape, -1 for axes of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """A model's tensors. `forest` is set for XGBoost."""

    inputs: tuple[TensorShape, ...]
    outputs: tuple[TensorShape, ...]
    forest: Forest | None = None


@dataclass(frozen=True)
class Forest:
    """An XGBoost model: `classes` is 0 for regression and ranking, `booster` gbtree, dart or gblinear."""

    features: int
    classes: int
    booster: str
    objective: str
    targets: int = 1

    @property
    def signature(self) -> Signature:
        """Rows of FP32 in; a value or a probability for each class out."""
        width = self.classes or self.targets
        return Signature(
            (TensorShape(FOREST_INPUT, "FP32", (-1, self.features)),),
            (TensorShape(FOREST_OUTPUT, "FP32", (-1, width)),),
            self,
        )


def read_onnx(path: Path) -> Signature:
    """Opens the model with onnxruntime. Raises StorageError for what it cannot open, or types that V2 has not."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime", path) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
    except Exception as error:  # onnxruntime's classes of errors have no common base but this
        hint = "weights in files of their own? name the folder instead" if "xternal" in str(error) else ""
        raise StorageError(f"{path} is no ONNX model: {_first_line(error)}", hint=hint) from error
    return Signature(
        tuple(_onnx_tensor(path, argument) for argument in inputs),
        tuple(_onnx_tensor(path, argument) for argument in outputs),
    )


def _onnx_tensor(path: Path, argument: Any) -> TensorShape:
    datatype = _ONNX_TYPES.get(argument.type)
    if datatype is None:
        raise StorageError(f"{path}: {argument.name!r} is {argument.type}, expected a tensor that V2 can say")
    sizes = (size if isinstance(size, int) and size >= 0 else -1 for size in argument.shape)
    return TensorShape(argument.name, datatype, tuple(sizes))


def read_xgboost(path: Path) -> Signature:
    """Opens the model with xgboost. Raises StorageError."""
    content = path.read_bytes()
    is_json = content[1:2] in b'"}\r\n\t '
    if content[:1] != b"{" or (not is_json and b"version" not in content[-_TAIL_BYTES:]):
        raise StorageError(
            f"{path} is no whole JSON or UBJSON model of XGBoost",
            hint="booster.save_model('model.ubj') writes one",
        )
    try:
        import xgboost
    except ImportError as error:
        raise _missing("xgboost", path) from error
    import json

    try:
        booster = xgboost.Booster(model_file=str(path))
        learner = json.loads(booster.save_config())["learner"]
        features = int(booster.num_features())
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise StorageError(f"{path} is no XGBoost model: {_first_line(error)}") from error
    return forest_of(learner, features).signature


def forest_of(learner: dict[str, Any], features: int) -> Forest:
    """From the `learner` part of a booster's configuration."""
    objective = str(learner["objective"]["name"])
    parameters = learner["learner_model_param"]
    classes = int(parameters["num_class"])
    if objective == "multi:softmax":
        classes = 0  # it answers the class's number itself
    elif objective == "binary:logistic":
        classes = 2
    booster = str(learner["gradient_booster"]["name"])
    return Forest(features, classes, booster, objective, int(parameters.get("num_target", "1") or 1))


def _missing(package: str, path: Path) -> ConfigError:
    return ConfigError(
        f"reading {path.name} needs {package}, which is not installed",
        hint="pip install 'glowplug[serving]'",
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
