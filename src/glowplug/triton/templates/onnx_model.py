"""An ONNX model on Triton's Python backend, on the CPU, where Triton has no onnxruntime backend of its own.

Written by `glowplug triton build`.
"""

import json
import os
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonPythonModel:
    """The rows of all requests of a batch are computed by one call; a model without a batch axis by one each."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        count = sum(group.get("count", 1) for group in config.get("instance_group", [])) or 1
        options = onnxruntime.SessionOptions()
        # The instances share the CPUs that this process may use.
        options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // count)
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [each["name"] for each in config["input"]]
        self.outputs = [each["name"] for each in config["output"]]
        self.is_batched = config.get("max_batch_size", 0) > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        if not self.is_batched or len(feeds) == 1:
            return [self.response(self.session.run(self.outputs, feed)) for feed in feeds]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        values = self.session.run(self.outputs, together)
        responses, start = [], 0
        for feed in feeds:
            end = start + len(feed[self.inputs[0]])
            responses.append(self.response([value[start:end] for value in values]))
            start = end
        return responses

    def response(self, values: list[Any]) -> Any:
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(value))
            for name, value in zip(self.outputs, values, strict=True)
        ]
        return pb_utils.InferenceResponse(tensors)
