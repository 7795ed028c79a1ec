"""LitServe as it comes: its HTTP process before one inference process, V2 JSON in and out."""

import os
import sys

import litserve
import numpy as np
import xgboost


class Api(litserve.LitAPI):
    def setup(self, device):
        self._booster = xgboost.Booster(params={"nthread": 1}, model_file=os.environ["MODEL_FILE"])

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])

    def predict(self, x):
        return self._booster.inplace_predict(x)

    def encode_response(self, output):
        tensor = {"name": "predict", "shape": list(output.shape), "datatype": "FP32", "data": output.tolist()}
        return {"model_name": "m", "outputs": [tensor]}


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(api_path="/v2/models/m/infer"), accelerator="cpu", healthcheck_path="/v2/health/ready"
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
