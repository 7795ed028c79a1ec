"""A model's inputs and outputs, as MLflow writes them into the file `MLmodel` beside a model.

The tensor has one name in V2 and MLflow knows columns by name: so each feature is a column, in the tensor's order.
No flavor is written: MLflow is where the model is kept, a predictor unit is what loads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import yaml

MLMODEL_FILE = "MLmodel"


@dataclass(frozen=True)
class Signature:
    """Column → MLflow type (float, double, string, long), in order; `metadata` is what else belongs to the model."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
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


def _columns(columns: Mapping[str, str]) -> str:
    return json.dumps([{"type": kind, "name": name, "required": True} for name, kind in columns.items()])
