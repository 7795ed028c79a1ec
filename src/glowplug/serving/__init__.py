"""The server inside the pod: `Model` classes behind V1, V2 (JSON, binary tensors, gRPC), health and metrics endpoints.

One process and one event loop. It runs light models of ours and any subclass of kserve.Model. Importing it does
nothing but import; settings come from `ServerConfig`, resolved once by the unit's main.
"""

from glowplug.errors import InferenceError
from glowplug.serving.config import Parser, PredictorConfig, ServerConfig, arguments
from glowplug.serving.context import request_headers
from glowplug.serving.model import Model, TensorSpec
from glowplug.serving.predictor_client import PredictorClient
from glowplug.serving.server import Server, serve
from glowplug.wire import InferRequest, InferResponse, Tensor

__all__ = [
    "InferRequest",
    "InferResponse",
    "InferenceError",
    "Model",
    "Parser",
    "PredictorClient",
    "PredictorConfig",
    "Server",
    "ServerConfig",
    "Tensor",
    "TensorSpec",
    "arguments",
    "request_headers",
    "serve",
]
