"""BentoML as it comes: one service, one API, V2 JSON in and out."""

import os

import bentoml
import numpy as np
import xgboost


@bentoml.service
class Predictor:
    def __init__(self) -> None:
        self._booster = xgboost.Booster(params={"nthread": 1}, model_file=os.environ["MODEL_FILE"])

    @bentoml.api(route="/v2/models/m/infer")
    def infer(self, inputs: list[dict], id: str = "") -> dict:
        tensor = inputs[0]
        rows = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        values = self._booster.inplace_predict(rows)
        output = {"name": "predict", "shape": list(values.shape), "datatype": "FP32", "data": values.tolist()}
        return {"model_name": "m", "id": id, "outputs": [output]}
