"""A predictor of $FEATURES features, which takes any number of them and says what it saw, so that whoever asks can
count the requests that met the wrong version. $LOAD_S is how long it takes to load."""

import asyncio
import os
import sys

import numpy as np

from glowplug.serving import Model, ServerConfig, serve
from glowplug.wire import InferRequest, InferResponse, Tensor

EXPECTED = int(os.environ["FEATURES"])


class Counting(Model):
    """Answers how many features it expects, and how many it got."""

    async def load(self) -> None:
        """As a large model would."""
        await asyncio.sleep(float(os.environ.get("LOAD_S", "0")))

    def warmup(self) -> None:
        """Nothing is slow the first time."""

    def predict(self, request: InferRequest) -> InferResponse:
        """Two whole numbers."""
        counted = np.array([EXPECTED, request.inputs[0].shape[-1]], dtype=np.int64)
        return InferResponse(self.name, (Tensor.from_numpy("counted", counted),))


if __name__ == "__main__":
    settings = ServerConfig.from_args(sys.argv[1:], os.environ)
    sys.exit(serve([Counting(settings.model_name)], settings))
