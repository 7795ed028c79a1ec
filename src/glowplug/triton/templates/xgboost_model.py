"""XGBoost on Triton's Python backend, on the CPU. Input and output are those of the FIL backend.

Written by `glowplug triton build`. NaN is a missing value, as XGBoost has it.
"""

import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]
import xgboost

INPUT, OUTPUT = "input__0", "output__0"


class TritonPythonModel:
    """The rows of all requests of a batch are predicted by one call."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = os.path.join(args["model_repository"], args["model_version"])
        names = [name for name in ("model.ubj", "model.json") if os.path.exists(os.path.join(folder, name))]
        self.booster = xgboost.Booster(model_file=os.path.join(folder, names[0]))
        # A row takes less time than handing it to a second thread; instances are what runs at the same time.
        self.booster.set_param({"nthread": 1})
        objective = json.loads(self.booster.save_config())["learner"]["objective"]["name"]
        self.is_binary = objective == "binary:logistic"
        self.width = json.loads(args["model_config"])["output"][0]["dims"][-1]

    def execute(self, requests: list[Any]) -> list[Any]:
        inputs = [pb_utils.get_input_tensor_by_name(request, INPUT).as_numpy() for request in requests]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        values = np.asarray(self.booster.inplace_predict(rows), np.float32)
        if self.is_binary:
            values = np.stack([1 - values, values], axis=1)
        values = values.reshape(len(rows), int(self.width))
        responses, start = [], 0
        for each in inputs:
            tensor = pb_utils.Tensor(OUTPUT, values[start : start + len(each)])
            responses.append(pb_utils.InferenceResponse([tensor]))
            start += len(each)
        return responses
