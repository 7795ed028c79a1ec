"""The least that a Python server can do: an ASGI callable on uvicorn (uvloop, httptools), no framework, no checks."""

import os

import numpy as np
import orjson
import xgboost

booster = xgboost.Booster(params={"nthread": 1}, model_file=os.environ["MODEL_FILE"])


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    content = b""
    while True:
        message = await receive()
        content += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = _infer(content) if scope["method"] == "POST" else b"{}"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _infer(content: bytes) -> bytes:
    body = orjson.loads(content)
    tensor = body["inputs"][0]
    rows = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    values = booster.inplace_predict(rows, validate_features=False)
    output = {"name": "predict", "shape": list(values.shape), "datatype": "FP32", "data": values.tolist()}
    return orjson.dumps({"model_name": "m", "id": body.get("id"), "outputs": [output]})
