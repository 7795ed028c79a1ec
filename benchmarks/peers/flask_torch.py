"""The monolith: Flask behind gunicorn, the eager torch model in the same process, tensors as plain bytes.

In: the inputs' little-endian bytes one after another, in the model's order. Out: the logits' float32 bytes. No JSON,
so that what is compared is the serving of the model and not the parsing of 150,528 numbers.
"""

import os

import numpy as np
import torch
from architectures import build, split_inputs
from flask import Flask, Response, request

app = Flask(__name__)
torch.set_num_threads(int(os.environ["TORCH_THREADS"]))
model = build(os.environ["MODEL_DIR"])


@app.get("/v2/health/ready")
def ready():
    return {"ready": True}


@app.post("/predict")
def predict():
    with torch.inference_mode():
        logits = model(*split_inputs(model, request.get_data()))
    return Response(np.ascontiguousarray(logits.numpy()).tobytes(), mimetype="application/octet-stream")
