"""Stock kserve transformer: an entity id in, its features from Redis by one MGET, the predictor over REST or gRPC.

It reads the very rows that glowplug's materialization wrote: a header, then float32s. `KEY_PREFIXES` has a prefix for
each group of features, separated by blanks.
"""

import os

import kserve
import numpy as np
import redis.asyncio as redis
from kserve import InferInput, InferRequest
from kserve import logging as kserve_logging

HEADER_BYTES = 20


class Lookup(kserve.Model):
    def __init__(self, options) -> None:
        # Host and protocol of the predictor are taken from the command line by ModelServer.
        super().__init__(options.model_name)
        self._is_grpc = options.predictor_protocol == "grpc-v2"
        self._prefixes = os.environ["KEY_PREFIXES"].split()
        self._redis = redis.Redis.from_url(os.environ["REDIS_URL"])
        self.ready = True

    async def preprocess(self, payload, headers=None):
        ids = np.asarray(payload.inputs[0].as_numpy()).reshape(-1)
        keys = [f"{prefix}{each}" for each in ids for prefix in self._prefixes]
        packed = await self._redis.mget(keys)
        values = [np.frombuffer(each, dtype="<f4", offset=HEADER_BYTES) for each in packed]
        rows = np.concatenate(values).reshape(len(ids), -1)
        tensor = InferInput("input-0", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=self._is_grpc)
        return InferRequest(self.name, [tensor], request_id=payload.id)


if __name__ == "__main__":
    options, _ = kserve.model_server.parser.parse_known_args()
    kserve_logging.configure_logging(options.log_config_file)
    kserve.ModelServer().start([Lookup(options)])
