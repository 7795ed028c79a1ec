"""A server of ours whose model waits `--service_ms` and answers the sum of the row.

It stands for a model that is busy elsewhere (an accelerator, a remote store): on a small computer many replicas can
then be busy at a time, and what is measured is the scaling and not the cores that are left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

import numpy as np

from glowplug.serving import (
    InferRequest,
    InferResponse,
    Model,
    ServerConfig,
    Tensor,
    TensorSpec,
    arguments,
    serve,
)


class Patient(Model):
    """FP32 [1, 4] → FP32 [1]."""

    inputs = (TensorSpec("input-0", "FP32", (-1, 4)),)
    outputs = (TensorSpec("sum", "FP32", (-1,)),)

    def __init__(self, name: str, service_s: float) -> None:
        super().__init__(name)
        self._service_s = service_s

    async def predict(self, request: InferRequest) -> InferResponse:
        await asyncio.sleep(self._service_s)
        total = np.asarray(request.inputs[0].data, dtype=np.float32).sum(axis=1)
        return InferResponse(self.name, (Tensor("sum", "FP32", total.shape, total),))


def main() -> int:
    """Serves until a signal."""
    parser = argparse.ArgumentParser(parents=[arguments()])
    parser.add_argument(
        "--service_ms", type=float, required=True, help="milliseconds that a prediction takes"
    )
    options = parser.parse_args()
    config = ServerConfig.from_options(options, os.environ)
    return serve([Patient(config.model_name, options.service_ms / 1000)], config)


if __name__ == "__main__":
    sys.exit(main())
