"""A transformer that makes $FEATURES features of any request, asks its predictor, and adds its own number to the
answer. $LOAD_S is how long it takes to load."""

import asyncio
import os
import sys

import numpy as np

from glowplug.serving import Model, PredictorClient, ServerConfig, serve
from glowplug.wire import InferRequest, InferResponse, Tensor

MADE = int(os.environ["FEATURES"])
FEATURES = Tensor.from_numpy("input-0", np.zeros((1, MADE), dtype=np.float32))


class Making(Model):
    """The answer: what the predictor expects, what it got, and what was made here."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config.model_name)
        self._predictor = PredictorClient(config.predictor)

    async def load(self) -> None:
        """As a large vocabulary would."""
        await asyncio.sleep(float(os.environ.get("LOAD_S", "0")))

    def warmup(self) -> None:
        """Nothing is slow the first time."""

    async def predict(self, request: InferRequest) -> InferResponse:
        """Three whole numbers."""
        answer = await self._predictor.infer(InferRequest(self.name, (FEATURES,)))
        counted = np.append(np.asarray(answer.outputs[0].data).reshape(-1), MADE).astype(np.int64)
        return InferResponse(self.name, (Tensor.from_numpy("counted", counted),))

    async def close(self) -> None:
        """The connections."""
        await self._predictor.aclose()


if __name__ == "__main__":
    settings = ServerConfig.from_args(sys.argv[1:], os.environ)
    sys.exit(serve([Making(settings)], settings))
