"""A server of ours whose model multiplies matrices: gRPC's core, uvloop and BLAS's threads all begin in the replica."""

from __future__ import annotations

import os
import sys

import numpy as np

from glowplug.serving import InferRequest, InferResponse, Model, ServerConfig, Tensor, TensorSpec, serve

SIZE = 256


class Product(Model):
    """`rows @ weights`, twice: once as it is and once as part of a product that is large enough for several threads."""

    inputs = (TensorSpec("rows", "FP32", (-1, SIZE)),)
    outputs = (TensorSpec("product", "FP32", (-1, SIZE)),)

    def load(self) -> None:
        self._weights = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE) / (SIZE * SIZE)
        self._many = np.ones((4 * SIZE, SIZE), dtype=np.float32)

    def predict(self, request: InferRequest) -> InferResponse:
        rows = np.ascontiguousarray(request.inputs[0].data, dtype=np.float32)
        large = np.concatenate([rows, self._many]) @ self._weights
        product = large[: len(rows)]
        assert np.allclose(product, rows @ self._weights, rtol=1e-4)
        return InferResponse(self.name, (Tensor("product", "FP32", product.shape, product),))


if __name__ == "__main__":
    config = ServerConfig.from_args(sys.argv[1:], os.environ)
    sys.exit(serve([Product(config.model_name)], config))
