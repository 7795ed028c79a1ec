"""A model's inputs and outputs, as MLflow writes them into the file `MLmodel` beside a model.

A table's tensor has one name in V2 and MLflow knows columns by name: so each feature is a column, in the tensor's
order. What is no table, an image or texts with tokens, is a named tensor of MLflow's; the two are not mixed.
No flavor is written: MLflow is where the model is kept, a predictor unit is what loads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeAlias, Union

import yaml

MLMODEL_FILE = "MLmodel"


@dataclass(frozen=True)
class TensorType:
    """numpy's name of the elements' type, and the shape; -1 is any number."""

    dtype: str
    shape: tuple[int, ...]


ColumnType: TypeAlias = Union[str, TensorType]  # noqa: UP007 - evaluated, on Python 3.10 too
"""MLflow's type of a column (float, double, string, long), or a tensor."""


@dataclass(frozen=True)
class Signature:
    """Names and types, in order; `metadata` is what else belongs to the model."""

    inputs: Mapping[str, ColumnType]
    outputs: Mapping[str, ColumnType]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def mlmodel(signature: Signature, run_id: str) -> str:
    """The file's text, which `mlflow.models.Model.load` and MLflow's user interface read."""
    document = {
        "artifact_path": "model",
        "flavors": {},
        "metadata": dict(signature.metadata),
        "run_id": run_id,
        "signature": {
            "inputs": _columns(signature.inputs),
            "outputs": _columns(signature.outputs),
            "params": None,
        },
        "utc_time_created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    return yaml.safe_dump(document, sort_keys=True)


def _columns(columns: Mapping[str, ColumnType]) -> str:
    return json.dumps([_column(name, kind) for name, kind in columns.items()])


def _column(name: str, kind: ColumnType) -> dict[str, Any]:
    if isinstance(kind, TensorType):
        spec = {"dtype": kind.dtype, "shape": list(kind.shape)}
        return {"type": "tensor", "tensor-spec": spec, "name": name}
    return {"type": kind, "name": name, "required": True}
