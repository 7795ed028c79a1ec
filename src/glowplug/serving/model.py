"""What a unit implements: a light `Model`.

The heavier alternative is kserve.Model, which our server runs too; importing it costs more than a second at start, so
the shipped units don't.
"""

from __future__ import annotations

from collections.abc import Awaitable

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire import InferRequest, InferResponse, Tensor
from glowplug.wire.datatypes import DATATYPES
from glowplug.wire.v2_grpc import TensorMetadata as TensorSpec

__all__ = ["Model", "TensorSpec", "zeros"]


class Model:
    """Subclass and give it `predict`; everything else has a default. Each method may be `async`.

    `inputs` and `outputs` are the metadata; V1 requests are mapped to tensors by them, and the default warm-up
    predicts zeros of that shape. A dimension of -1 is of any size.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    # What the columns of the one input [n, columns] are called, where the model knows: part of the metadata, by which
    # a feature lookup sees that it feeds the features that the model was trained on.
    columns: tuple[str, ...] = ()
    # Whether the server refuses (400) requests whose inputs are not the declared ones by name, datatype and shape,
    # before any stage sees them; False for models that take other forms too and check for themselves.
    checks_inputs: bool = False
    accepts_missing: bool = False
    platform: str = ""
    version: str = ""
    # True runs a plain `predict` in a worker thread: for models that hold the event loop for more than some ms.
    in_thread: bool = False
    # Above 1, `predict` may get the rows of several requests at once, stacked along the first axis of every input, and
    # answers with as many rows in every output; requests of other shapes, datatypes or parameters stay apart. It has
    # no headers then. A single request may have more rows.
    max_batch_size: int = 1
    # The longest that requests are held back for company, never those that find the model idle. Not for a plain
    # `predict` on the event loop, which never waits.
    max_queue_delay_s: float = 0.005

    def __init__(self, name: str) -> None:
        self.name = name
        # What is worth knowing of how it predicts; shown in /metrics, as labels of `glowplug_model_info`.
        self.facts: dict[str, str] = {}

    def load(self) -> Awaitable[None] | None:
        """Makes the model ready to predict. Raises GlowplugError with a hint where it cannot."""
        return None

    def warmup(self) -> Awaitable[object] | object:
        """One prediction before the server says that it is ready; the first of a process is slow."""
        if not self.inputs:
            return None
        return self.predict(InferRequest(self.name, tuple(zeros(spec) for spec in self.inputs), id="warm-up"))

    def improve(self) -> None:
        """Makes predictions faster, where that takes time: called once, in a worker thread, when the server has been
        ready for a moment, while `predict` is called as ever. An error is logged, and changes nothing."""

    def is_ready(self) -> Awaitable[bool] | bool:
        """Asked by readiness probes once `load` and `warmup` are done."""
        return True

    def preprocess(self, request: InferRequest) -> Awaitable[InferRequest] | InferRequest:
        """What to predict instead of what was asked."""
        return request

    def predict(self, request: InferRequest) -> Awaitable[InferResponse] | InferResponse:
        """The prediction. Raises InferenceError for a caller's mistake (400) or where it cannot now (503)."""
        raise InferenceError(f"model {self.name!r} has no predict", code=501)

    def postprocess(self, response: InferResponse) -> Awaitable[InferResponse] | InferResponse:
        """What to answer instead of what was predicted."""
        return response

    def close(self) -> Awaitable[None] | None:
        """Lets go of pools and clients, after the last request is answered."""
        return None


def zeros(spec: TensorSpec) -> Tensor:
    """A tensor of zeros (BYTES: empty strings) of a declared shape, dimensions of any size being 1."""
    shape = tuple(1 if dimension < 0 else dimension for dimension in spec.shape)
    if spec.datatype == "BYTES":
        return Tensor(spec.name, "BYTES", shape, [b""] * int(np.prod(shape, dtype=np.int64)))
    return Tensor(spec.name, spec.datatype, shape, np.zeros(shape, dtype=DATATYPES[spec.datatype].dtype))
