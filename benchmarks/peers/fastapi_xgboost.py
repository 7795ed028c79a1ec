"""FastAPI with orjson on uvicorn: V2 JSON in and out, no pydantic model, inplace_predict on one thread."""

import os

import numpy as np
import orjson
import xgboost
from fastapi import FastAPI, Request, Response

app = FastAPI()
booster = xgboost.Booster(params={"nthread": 1}, model_file=os.environ["MODEL_FILE"])


@app.get("/v2/health/ready")
async def ready():
    return {"ready": True}


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request):
    body = orjson.loads(await request.body())
    tensor = body["inputs"][0]
    rows = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    values = booster.inplace_predict(rows)
    output = {"name": "predict", "shape": list(values.shape), "datatype": "FP32", "data": values.tolist()}
    answer = {"model_name": name, "id": body.get("id"), "outputs": [output]}
    return Response(orjson.dumps(answer), media_type="application/json")
