"""Triton's Python backend around a booster: the rows of the requests that it hands over are predicted at once."""

import os

import numpy as np
import triton_python_backend_utils as pb_utils
import xgboost


class TritonPythonModel:
    def initialize(self, args):
        self._booster = xgboost.Booster(params={"nthread": 1}, model_file=os.environ["MODEL_FILE"])

    def execute(self, requests):
        rows = [pb_utils.get_input_tensor_by_name(each, "input-0").as_numpy() for each in requests]
        values = self._booster.inplace_predict(np.concatenate(rows)).astype(np.float32).reshape(-1, 1)
        ends = np.cumsum([len(each) for each in rows])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("predict", each)])
            for each in np.split(values, ends[:-1])
        ]
