"""A booster's trees run by onnxruntime: a row for a fifth to a seventh of what libxgboost takes.

Most of that call is spent around the trees, which matters for one row and not for a hundred; `choice.py` measures
where the one overtakes the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug_xgboost.forest import Forest
from glowplug_xgboost.objectives import Unsupported
from glowplug_xgboost.tree_ensemble import INPUT, OUTPUT, encode_forest

# onnxruntime's severities go from 0 (verbose) to 4 (fatal).
FATAL_ONLY = 4
MAX_QUOTED = 200


class CompiledTrees:
    """A forest, ready to predict. Predictions of several threads do not disturb each other."""

    def __init__(self, forest: Forest) -> None:
        """Raises Unsupported where there is no onnxruntime, or an old one that does not know the operator."""
        self._output = forest.objective.output
        self._categories = forest.category_features
        self._session = _session(encode_forest(forest))

    def predict(self, rows: Any) -> Any:
        """FP32 [n] or [n, k] for float32 rows [n, features], n above 0; NaN is missing."""
        if self._categories:
            # XGBoost cuts off a category's decimals, and takes what is negative for no category.
            rows = rows.copy()
            rows[:, self._categories] = np.floor(rows[:, self._categories])
        (sums,) = self._session.run((OUTPUT,), {INPUT: rows})
        return self._output(sums)


def _session(model: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise Unsupported(f"onnxruntime cannot be imported: {error}") from error
    onnxruntime.set_default_logger_severity(FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    # A few rows take less time than handing them to another thread.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # An arena pays where large tensors come and go.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes have no common base but Exception
        said = " ".join(str(error).split())[:MAX_QUOTED]
        raise Unsupported(f"onnxruntime {onnxruntime.__version__} refuses the trees: {said}") from error
