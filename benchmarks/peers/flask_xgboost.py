"""Flask behind gunicorn's gthread workers: V2 JSON in and out, inplace_predict on one thread."""

import os

import numpy as np
import xgboost
from flask import Flask, request

app = Flask(__name__)
booster = xgboost.Booster(params={"nthread": 1}, model_file=os.environ["MODEL_FILE"])


@app.get("/v2/health/ready")
def ready():
    return {"ready": True}


@app.post("/v2/models/<name>/infer")
def infer(name: str):
    body = request.get_json()
    tensor = body["inputs"][0]
    rows = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    values = booster.inplace_predict(rows)
    output = {"name": "predict", "shape": list(values.shape), "datatype": "FP32", "data": values.tolist()}
    return {"model_name": name, "id": body.get("id"), "outputs": [output]}
