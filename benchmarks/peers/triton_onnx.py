"""Triton's Python backend around onnxruntime: the requests that it hands over are computed as one batch."""

import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            os.path.join(os.environ["MODEL_DIR"], "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._names = [each.name for each in self._session.get_inputs()]

    def execute(self, requests):
        rows = [
            [pb_utils.get_input_tensor_by_name(each, name).as_numpy() for name in self._names]
            for each in requests
        ]
        feeds = {
            name: np.concatenate(parts)
            for name, parts in zip(self._names, zip(*rows, strict=True), strict=True)
        }
        values = self._session.run(None, feeds)[0]
        ends = np.cumsum([len(each[0]) for each in rows])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("logits", np.ascontiguousarray(each))])
            for each in np.split(values, ends[:-1])
        ]
